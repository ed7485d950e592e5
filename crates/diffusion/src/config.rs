//! What generation must know about a model besides its networks: the content of a pack's `sampler.json`.

use crate::{Sampler, SamplerConfig, SamplerError, SamplerName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};

/// Settings of a text-to-image model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PipelineConfig {
    /// Model name, written into pictures.
    pub model: String,
    /// The sampler's noise schedule and prediction type.
    pub sampler: SamplerConfig,
    /// Latents are the VAE's times this factor.
    pub scaling_factor: f32,
    /// Pixels a latent value covers in each direction.
    pub vae_scale: u32,
    /// Size of the guidance embedding; absent for a model without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_cond_proj_dim: Option<usize>,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        PipelineConfig {
            model: String::new(),
            sampler: SamplerConfig::default(),
            scaling_factor: 0.18215,
            vae_scale: 8,
            time_cond_proj_dim: None,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        source: serde_json::Error,
    },
    /// `sampler.json` is not the JSON it should be.
    #[error("sampler.json: {0}")]
    Text(#[from] serde_json::Error),
    /// The sampler's settings are not supported.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A value out of range.
    #[error("{field} is {value}; {expected}")]
    Value {
        /// Field name.
        field: &'static str,
        /// Value found.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

#[derive(Default, Deserialize)]
struct UnetFile {
    time_cond_proj_dim: Option<usize>,
}

#[derive(Default, Deserialize)]
struct VaeFile {
    scaling_factor: Option<f32>,
    block_out_channels: Option<Vec<u32>>,
}

impl PipelineConfig {
    /// Read `scheduler/scheduler_config.json`, and `unet/config.json` and `vae_decoder/config.json` (or `vae/config.json`) where
    /// they exist, from a diffusers-style model directory. Fields that are absent get diffusers' defaults.
    ///
    /// # Errors
    /// Files that are missing or malformed, and settings that are not supported.
    pub fn from_model_directory(folder: &Path) -> Result<Self, ConfigError> {
        let scheduler = folder.join("scheduler").join("scheduler_config.json");
        let text = std::fs::read_to_string(&scheduler)
            .map_err(|source| ConfigError::Read { path: scheduler.clone(), source })?;
        let sampler = SamplerConfig::from_scheduler(&text)
            .map_err(|source| ConfigError::Json { path: scheduler, source })?;
        let unet: UnetFile =
            read_if_there(&folder.join("unet").join("config.json"))?.unwrap_or_default();
        let vae: Option<VaeFile> = read_if_there(&folder.join("vae_decoder").join("config.json"))?;
        let vae = match vae {
            Some(vae) => vae,
            None => read_if_there(&folder.join("vae").join("config.json"))?.unwrap_or_default(),
        };
        let default = PipelineConfig::default();
        let halvings = vae.block_out_channels.map(|blocks| blocks.len().saturating_sub(1) as u32);
        let config = PipelineConfig {
            model: folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            sampler,
            scaling_factor: vae.scaling_factor.unwrap_or(default.scaling_factor),
            vae_scale: halvings.map_or(default.vae_scale, |n| 1u32.checked_shl(n).unwrap_or(0)),
            time_cond_proj_dim: unet.time_cond_proj_dim,
        };
        config.check()?;
        Ok(config)
    }

    /// Parse `sampler.json`.
    ///
    /// # Errors
    /// Malformed JSON, and settings that are not supported.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let config: PipelineConfig = serde_json::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as `sampler.json`: indented, with a final newline.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<String, ConfigError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn check(&self) -> Result<(), ConfigError> {
        // A scheduler that is not there may be replaced by another one when a picture is drawn.
        let name = SamplerName::of(&self.sampler).unwrap_or(SamplerName::Ddim);
        Sampler::new(&self.sampler, Some(name))?;
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            let value = self.scaling_factor.to_string();
            return Err(ConfigError::Value {
                field: "scaling_factor",
                value,
                expected: "it must be a positive number",
            });
        }
        if !(1..=64).contains(&self.vae_scale) {
            let value = self.vae_scale.to_string();
            return Err(ConfigError::Value {
                field: "vae_scale",
                value,
                expected: "it must be between 1 and 64 (2 to the halvings of the VAE)",
            });
        }
        match self.time_cond_proj_dim {
            Some(size @ ..4) => Err(SamplerError::EmbeddingSize(size).into()),
            _ => Ok(()),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|source| ConfigError::Json { path: path.to_owned(), source })
}

fn read_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConfigError> {
    if path.is_file() { read(path).map(Some) } else { Ok(None) }
}
