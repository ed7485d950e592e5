//! Text to image: what happens around the networks of a latent consistency model (or of any Stable Diffusion with an LCM sampler).
//!
//! A [`Request`] goes through [`Pipeline::generate`]: the [`ClipTokenizer`] turns the prompt into ids, [`noise`] starts the latent, the
//! U-Net and the [`LcmSampler`] alternate, the decoder gives a [`Picture`]. The networks are reached only through [`Models`];
//! everything here is float32, single-threaded arithmetic, so that equal requests give equal pictures.
//!
//! [`check`] judges pictures of the bundled tiny model against the scene that was asked for.

pub mod check;
mod config;
mod error;
mod generate;
mod guidance;
mod models;
mod networks;
pub mod noise;
mod picture;
mod request;
mod sampler;
mod schedule;
mod tiles;
mod tokenizer;

pub use config::{ConfigError, PipelineConfig};
pub use error::Error;
pub use generate::Pipeline;
pub use guidance::guidance_embedding;
pub use models::{ModelError, Models, TensorMap};
pub use picture::{Parameters, Picture, PictureError};
pub use request::{Generated, InitialPicture, MAX_COUNT, Progress, Request};
pub use sampler::{LcmSampler, Step};
pub use schedule::{SamplerConfig, SamplerError};
pub use tokenizer::{ClipTokenizer, TokenizerError, Tokens};
