//! What to type when something went wrong. Libraries say what and where; only the command knows its flags.

mod converter;
mod drawing;
mod packs;

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
        let found = cause.downcast_ref().and_then(packs::pack);
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::open));
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::runtime));
        let found = found.or_else(|| cause.downcast_ref().and_then(packs::validation));
        let found = found.or_else(|| cause.downcast_ref().and_then(drawing::drawing));
        let found = found.or_else(|| cause.downcast_ref().and_then(drawing::prompt));
        found.or_else(|| cause.downcast_ref().and_then(converter::convert))
    })
}
