//! Text to image: what happens around the networks of a latent consistency model (or of any Stable Diffusion with an LCM sampler).
//!
//! Three parts, which own what they need and may be used from any thread: [`Conditioner`] turns prompts into hidden states,
//! [`Rows`] is the U-Net with a timestep for each row, [`PictureCodec`] goes between pictures and latents. Guidance, [`noise`] and the
//! [`LcmSampler`] are plain functions of numbers. [`TextToImage`] is a driver over them. Networks are reached by role, only through
//! [`Networks`]; everything here is float32, single-threaded arithmetic, so that equal requests give equal pictures.

mod call;
mod conditioning;
mod config;
mod error;
mod guidance;
mod mask;
mod networks;
pub mod noise;
mod picture;
mod pictures;
mod prompt;
mod request;
mod rows;
mod sampler;
mod schedule;
pub mod stream;
mod text_to_image;
mod tiles;
mod tokenizer;
mod weighting;

pub use call::Pending;
pub use conditioning::{Conditioner, Conditioning, mix};
pub use config::{ConfigError, PipelineConfig};
pub use error::Error;
pub use guidance::{classifier_free, guidance_embedding};
pub use mask::Mask;
pub use networks::{NetworkError, NetworkSpec, Networks, PendingRun, TensorMap, finished};
pub use picture::{Parameters, Picture, PictureError};
pub use pictures::PictureCodec;
pub use prompt::{LARGEST_WEIGHT, Piece, PromptSyntaxError, WeightedPrompt};
pub use request::{DrawProgress, Generated, InitialPicture, MAX_COUNT, Request};
pub use rockshard_image_file::ImageFileError;
pub use rows::{Row, Rows};
pub use sampler::{History, LcmSampler, Run, Sampler, SamplerName, Step};
pub use schedule::{SamplerConfig, SamplerError};
pub use text_to_image::TextToImage;
pub use tokenizer::{ClipTokenizer, TokenizerError, Tokens};
