//! Files of one network in several precisions, by the endings that onnx-community gives their names.

use rockshard_vlm::PRECISIONS;
use std::path::{Path, PathBuf};

/// Endings of files that are not read: their activations are in 8 bits too, or their weights in a form of their own.
const QUANTISED: [&str; 4] = ["_int8", "_uint8", "_quantized", "_bnb4"];

fn named(stem: &Path, precision: &str) -> PathBuf {
    let mut name = stem.to_owned().into_os_string();
    name.push(format!("{precision}.onnx"));
    PathBuf::from(name)
}

/// The most exact file of a name that is there and can be read.
pub(super) fn most_exact(stem: &Path) -> Option<PathBuf> {
    PRECISIONS.iter().map(|p| named(stem, p)).find(|file| file.is_file())
}

/// A file of a name that is there and cannot be read.
pub(super) fn quantised(stem: &Path) -> Option<PathBuf> {
    QUANTISED.iter().map(|p| named(stem, p)).find(|file| file.is_file())
}

/// The names of the files that can be read, the most exact first.
pub(super) fn names(stem: &str) -> Vec<String> {
    PRECISIONS.iter().map(|p| format!("{stem}{p}.onnx")).collect()
}

/// The files to take instead of one that is quantised: those beside it that can be read, or else all that could be where its name says that
/// it is one of several.
pub(crate) fn instead_of(file: &Path) -> Vec<String> {
    let Some(stem) = file.file_stem().and_then(|s| s.to_str()) else { return Vec::new() };
    let plain = QUANTISED.iter().find_map(|p| stem.strip_suffix(p));
    let mut all = names(plain.unwrap_or(stem));
    all.retain(|name| !file.ends_with(name));
    let there = |name: &&String| file.with_file_name(name.as_str()).is_file();
    let beside: Vec<String> = all.iter().filter(there).cloned().collect();
    if beside.is_empty() && plain.is_some() { all } else { beside }
}
