//! A LoRA file: the option that names it, and what is in it.

use super::LoraError;
use super::keys::Alphas;
use crate::ConvertError;
use crate::family::foreign;
use crate::options::OptionError;
use bytes::Bytes;
use rockshard_tensor::{Tensor, decode_safetensors, decode_safetensors_metadata, map_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Names of LoRA files in directories that PEFT and diffusers write.
const USUAL: [&str; 2] = ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"];
const ENDING: &str = "safetensors";

/// A LoRA file and how much of it to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraFile {
    /// safetensors file.
    pub path: PathBuf,
    /// Factor on the update; 1 is the update as trained.
    pub scale: f32,
}

impl FromStr for LoraFile {
    type Err = OptionError;

    /// `FILE` or `FILE:SCALE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = || LoraFile { path: text.into(), scale: 1.0 };
        let Some((path, scale)) = text.rsplit_once(':') else { return Ok(whole()) };
        let wrong = |expected| OptionError { value: text.into(), expected };
        if has_decimal_comma(scale) {
            return Err(wrong("FILE:SCALE with a point in the scale, as in 0.8"));
        }
        match scale.parse::<f32>() {
            Ok(scale) if scale.is_finite() && !path.is_empty() => {
                Ok(LoraFile { path: path.into(), scale })
            }
            Ok(_) => Err(wrong("FILE or FILE:SCALE with a finite scale")),
            Err(_) => Ok(whole()),
        }
    }
}

/// Whether text is a number but for a comma that should be a point.
fn has_decimal_comma(text: &str) -> bool {
    text.matches(',').count() == 1 && text.replace(',', ".").parse::<f32>().is_ok()
}

/// What is in a LoRA file.
pub(super) struct Contents {
    pub tensors: BTreeMap<String, Tensor>,
    pub alphas: Alphas,
}

impl Contents {
    /// Read a file, and PEFT's configuration beside it.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        if path.is_dir() {
            return Err(not_lora(path, directory(path)));
        }
        let bytes = map_file(path).map_err(ConvertError::io(path))?;
        let beside = std::fs::read(path.with_file_name("adapter_config.json")).ok();
        Self::decode(&bytes, beside, path)
    }

    /// Read the bytes of a file, with the bytes of the configuration beside it; `path` names it in errors.
    pub fn decode(
        bytes: &Bytes,
        beside: Option<Vec<u8>>,
        path: &Path,
    ) -> Result<Self, ConvertError> {
        if let Some(problem) = foreign::weights(bytes, path) {
            return Err(not_lora(path, problem));
        }
        let mut metadata = decode_safetensors_metadata(bytes, path)?;
        let inside = metadata.remove("lora_adapter_metadata").map(String::into_bytes);
        let alphas = Alphas::read(inside.or(beside))
            .map_err(|problem| ConvertError::Lora { path: path.to_owned(), problem })?;
        Ok(Contents { tensors: decode_safetensors(bytes, path)?, alphas })
    }
}

fn not_lora(path: &Path, problem: String) -> ConvertError {
    ConvertError::Lora { path: path.to_owned(), problem: LoraError::NotLora(problem) }
}

/// What to say of a directory.
fn directory(path: &Path) -> String {
    let files = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == ENDING));
    files.sort();
    let usual = USUAL.map(|name| path.join(name)).into_iter().find(|file| file.is_file());
    match usual.or_else(|| files.into_iter().next()) {
        Some(file) => format!("is a directory; name the file in it: {}", file.display()),
        None => format!("is a directory without a .{ENDING} file; name a LoRA's file"),
    }
}
