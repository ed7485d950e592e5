//! Remedies for drawings.

use super::word;
use rockshard_diffusion::{Error, PromptSyntaxError, SamplerError};

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
        Error::Prompt(error) => prompt(error),
        Error::Network { source, .. } => source.downcast_ref().and_then(super::packs::runtime),
        _ => None,
    }
}

pub fn prompt(error: &PromptSyntaxError) -> Option<String> {
    let PromptSyntaxError::Lora { name, scale, .. } = error else { return None };
    let scale = scale.as_ref().map(|scale| format!(":{scale}")).unwrap_or_default();
    let file = word(&format!("{name}.safetensors{scale}"));
    Some(format!(
        "convert the model with it (`rockshard convert MODEL --out PACK --lora {file}`), draw with that pack, and leave it out of the prompt"
    ))
}
