//! Relative paths that come from outside, in manifests and ONNX files. They are checked as text, before any file system sees them.

use std::path::{Component, Path};

/// A path that may lead out of the directory it is resolved in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("path {0:?} is not made of plain relative components (no '..', no leading '/', no '\\')")]
pub struct PathError(pub String);

/// Accept a path only when it is made of plain relative components, so that it stays inside its directory.
///
/// # Errors
/// The path is empty, absolute, has a `.` or `..` component, a drive prefix, a backslash or a NUL.
pub fn check_relative(path: &str) -> Result<&Path, PathError> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    let odd = path.is_empty()
        || path.contains(['\\', '\0', ':'])
        || path.starts_with("./")
        || path.contains("/./")
        || path.ends_with("/.");
    if plain && !odd { Ok(Path::new(path)) } else { Err(PathError(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::check_relative;

    #[test]
    fn only_plain_components_pass() {
        for good in ["a", "shards/unet-00.onnx", "tokenizer/vocab.json", "a..b"] {
            assert!(check_relative(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/etc/passwd", "../x", "a/../b", "./a", "a/./b", "a\\b", "C:/x", "a\0b", ".."]
        {
            assert!(check_relative(bad).is_err(), "{bad:?}");
        }
    }
}
