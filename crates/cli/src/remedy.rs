//! What to type when something went wrong. Libraries say what and where; only the command knows its flags.

mod converter;
mod drawing;
pub mod layers;
mod packs;
mod serving;

use rockshard::Error;

/// What to do about an error, where that is known.
pub fn remedy(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return match error {
                Error::Open(e) => packs::open(e),
                Error::Pack(e) => packs::pack(e),
                Error::Runtime(e) => packs::runtime(e),
                Error::Drawing(e) => drawing::drawing(e),
                Error::Frame(e) => drawing::drawing(e),
                Error::Convert(e) => converter::convert(e),
                Error::Validation(e) => packs::validation(e),
                Error::Batch { .. } => Some("convert the model again without --batch".into()),
                Error::Language(rockshard::LanguageError::Context { .. }) => {
                    Some("look at fewer views with --tiles, or ask for less".into())
                }
                Error::NoTileDecoder { .. } => {
                    Some("name another --vae-tile, or convert with a second --resolution".into())
                }
                _ => None,
            };
        }
        let found = cause.downcast_ref().and_then(serving::serving);
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::pack));
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::open));
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::runtime));
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::validation));
        let found = found.or_else(|| cause.downcast_ref().and_then(drawing::drawing));
        let found = found.or_else(|| cause.downcast_ref().and_then(drawing::prompt));
        found.or_else(|| cause.downcast_ref().and_then(converter::convert))
    })
}

/// A name as it is typed in a shell.
pub fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

/// A directory that is not there yet, named after a pack, as it is typed in a shell.
pub fn beside(pack: &str, what: &str) -> String {
    let name = format!("{}-{what}", pack.trim_end_matches('/'));
    let free = |name: &String| !std::path::Path::new(name).exists();
    let mut names = std::iter::once(name.clone()).chain((2..1000).map(|n| format!("{name}-{n}")));
    word(&names.find(free).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_typed_so_that_a_shell_reads_them_back() {
        for (name, typed) in
            [("out/pack-1.2", "out/pack-1.2"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(word(name), typed);
        }
    }

    #[test]
    fn a_pack_beside_another_has_a_name_that_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let pack = folder.path().join("pack").display().to_string();
        assert_eq!(beside(&format!("{pack}/"), "split"), word(&format!("{pack}-split")));
        std::fs::create_dir(format!("{pack}-split")).unwrap();
        assert_eq!(beside(&pack, "split"), word(&format!("{pack}-split-2")));
    }
}
