//! What a pack's contents depend on, as a digest: an interrupted conversion goes on only with the same.

use crate::family::Source;
use crate::{ConvertError, ConvertRequest, Toolkit};
use rockshard_manifest::{Digest, SCHEMA};
use std::path::{Path, PathBuf};

/// What is in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    Ok(std::fs::read_dir(folder)
        .map_err(ConvertError::io(folder))?
        .filter_map(|e| Some(e.ok()?.path()))
        .collect())
}

/// Stands for everything the pack's contents depend on.
pub(crate) fn recipe(request: &ConvertRequest, source: &Source) -> Result<Digest, ConvertError> {
    let mut text = format!(
        "{} {SCHEMA} {:?}",
        env!("CARGO_PKG_VERSION"),
        (
            (request.sandwich, request.tile, request.shards, request.placement, request.optimise),
            (request.wide_weights, request.language_weights)
        )
    );
    let mut files: Vec<PathBuf> = Vec::new();
    for part in &source.parts {
        text += &format!("{:?}{:?}{:?}", part.name, part.shapes, part.piece);
        // The parent of a bare file name is the empty path.
        let folder = part.path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
        files.extend(entries(folder)?);
    }
    files.extend(source.companions.iter().map(|c| c.path.clone()));
    files.extend(source.language.iter().flat_map(|language| language.export.files()));
    if let Some(toolkit) = &request.toolkit {
        text += &format!("{} {}", Toolkit::version(&toolkit.python)?, toolkit.verify);
    }
    text += &format!("{:?}{:?}", request.golden, request.chip);
    for lora in &request.loras {
        files.push(lora.path.clone());
        text += &format!("{}", lora.scale);
    }
    for (_, name, contents) in &request.companions {
        text += &format!("{name}{}", Digest::of(contents));
    }
    files.sort();
    files.dedup();
    for file in files.iter().filter(|f| f.is_file()) {
        let meta = file.metadata().map_err(ConvertError::io(file))?;
        text += &format!("{file:?} {} {:?}", meta.len(), meta.modified().ok());
    }
    let mut calibration: Vec<_> = request.calibration.iter().collect();
    calibration.sort_by_key(|(name, _)| name.as_str());
    for (name, samples) in calibration {
        let digests =
            samples.iter().flat_map(|s| s.values()).map(|t| Digest::of(t.bytes()).to_string());
        text += &format!("{name}{}", digests.collect::<String>());
    }
    Ok(Digest::of(text.as_bytes()))
}
