//! A single ONNX file: one network, whose shapes are its own.

use super::{Part, Piece, Source};
use crate::ConvertError;
use rockshard_manifest::{Family, Role};
use std::collections::BTreeMap;
use std::path::Path;

/// The network of a file; it is named after the file's stem.
pub(super) fn open(path: &Path, batch: usize) -> Result<Source, ConvertError> {
    if batch != 1 {
        return Err(ConvertError::OwnShapes { path: path.to_owned() });
    }
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("model");
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let part = Part {
        name: stem.chars().map(plain).collect(),
        role: Role::Network,
        path: path.to_owned(),
        shapes: Vec::new(),
        dims: BTreeMap::new(),
        given: BTreeMap::new(),
        outputs: Vec::new(),
        resolution: None,
        piece: Piece::Whole,
    };
    Ok(Source {
        family: Family::Network,
        parts: vec![part],
        companions: Vec::new(),
        language: None,
        unused: Vec::new(),
    })
}
