//! What goes wrong, from whichever library it comes.

use rockshard_converter::ConvertError;
use rockshard_cost::DescriptionError;
use rockshard_devices::OpenError;
use rockshard_diffusion::{ConfigError, TokenizerError};
use rockshard_pack::PackError;
use rockshard_runtime::RuntimeError;
use rockshard_validation::ValidationError;
use std::path::PathBuf;
use std::sync::Arc;

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The environment describes a chip that cannot be.
    #[error(transparent)]
    Chip(#[from] DescriptionError),
    /// A pack or one of its files is refused.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Models cannot be loaded or run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A picture cannot be drawn.
    #[error(transparent)]
    Drawing(#[from] rockshard_diffusion::Error),
    /// A tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A model cannot be converted.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A pack cannot be validated.
    #[error(transparent)]
    Validation(#[from] ValidationError),
    /// A pack that pictures cannot be drawn with.
    #[error("{pack}: not a pack to draw with: {problem}")]
    NotDrawable {
        /// The pack.
        pack: PathBuf,
        /// What it is or lacks.
        problem: String,
    },
    /// A pack whose networks take several items at once.
    #[error(
        "{pack}: converted for a batch of {batch}; making pictures from text needs a pack of batch 1"
    )]
    Batch {
        /// The pack.
        pack: PathBuf,
        /// Items at once.
        batch: usize,
    },
    /// No decoder of the tile that was asked for.
    #[error("the pack has no decoder of {tile}x{tile} latent values, only {known}")]
    NoTileDecoder {
        /// Latent values along each side.
        tile: u32,
        /// The decoders that there are.
        known: String,
    },
    /// A frame of a stream cannot be drawn; frames that are drawn together share the cause.
    #[error("{0}")]
    Frame(Arc<rockshard_diffusion::Error>),
    /// A thread of a stream cannot be started.
    #[error("a stream's thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// A frame for a stream that was finished.
    #[error("the stream was finished: it takes no more frames")]
    StreamOver,
    /// A stream that does not draw in SD-Turbo's way.
    #[error("the stream was not prepared with turbo")]
    NotTurbo,
    /// A pack that images cannot be described with.
    #[error("{pack}: not a pack to describe images with: {problem}")]
    NotDescribing {
        /// The pack.
        pack: PathBuf,
        /// What it is or lacks.
        problem: String,
    },
    /// How images are brought to views.
    #[error(transparent)]
    Processor(#[from] rockshard_vlm::ProcessorConfigError),
    /// A conversation that cannot be made a prompt.
    #[error(transparent)]
    Prompt(#[from] rockshard_vlm::PromptError),
    /// The language model cannot be read or run.
    #[error(transparent)]
    Language(#[from] rockshard_vlm::LanguageError),
    /// Words cannot be chosen this way.
    #[error(transparent)]
    Sampling(#[from] rockshard_vlm::SamplingError),
    /// A model's sampler that is not supported.
    #[error("{source}")]
    Sampler {
        /// Cause, with the file.
        source: ConfigError,
    },
    /// A pack's configuration that is refused.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: ConfigError,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}
