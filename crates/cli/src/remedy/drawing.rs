//! Remedies for drawings.

use rockshard_diffusion::{Error, SamplerError};

pub fn drawing(error: &Error) -> Option<String> {
    match error {
        Error::Size { width, height, .. } => {
            Some(format!("convert with --resolution {width}x{height} to add it"))
        }
        Error::NegativePrompt => Some("leave --negative out".into()),
        Error::NegativePromptUnused(_) => Some("leave --negative out, or raise --guidance".into()),
        Error::NotFinite { .. } => {
            Some("convert with --sandwich auto, or validate the pack to find the layer".into())
        }
        Error::Sampler(SamplerError::Unknown { .. }) => {
            Some("choose one of these with --sampler".into())
        }
        Error::Network { source, .. } => source.downcast_ref().and_then(super::packs::runtime),
        _ => None,
    }
}
