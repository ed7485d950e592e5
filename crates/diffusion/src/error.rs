use crate::{ModelError, SamplerError, TokenizerError};
use rockshard_tensor::TensorError;

/// Why pictures could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The number of pictures is out of range.
    #[error("{count} pictures were asked for; ask for 1 to {} at once", crate::MAX_COUNT)]
    Count {
        /// Pictures asked for.
        count: u32,
    },
    /// The guidance scale is infinite or not a number.
    #[error("guidance {0} is not a finite number")]
    Guidance(f64),
    /// A size that is not a whole number of latent values.
    #[error(
        "size {width}x{height} is not possible: width and height must be positive multiples of {multiple}"
    )]
    Multiple {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Pixels of a latent value.
        multiple: u32,
    },
    /// The pack was not converted for this size.
    #[error(
        "size {width}x{height} is not in this pack, which has {available}; convert with --resolution {width}x{height} to add it"
    )]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Sizes there are.
        available: String,
    },
    /// A negative prompt for a model whose guidance is an input.
    #[error(
        "this model takes guidance as an input (LCM guidance embedding) and has no negative prompt; leave it out"
    )]
    NegativePrompt,
    /// A negative prompt without guidance.
    #[error(
        "a negative prompt has no effect at guidance {0}; use a guidance above 1 or leave it out"
    )]
    NegativePromptUnused(f64),
    /// The pack lacks a network.
    #[error("the pack has no {model}; {hint}")]
    MissingModel {
        /// Network name.
        model: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A network does not have the inputs or outputs a diffusion model has.
    #[error("{model}: {detail}")]
    Interface {
        /// Network name.
        model: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// A network failed.
    #[error("{model}: {source}")]
    Model {
        /// Network name.
        model: &'static str,
        /// Its error.
        source: ModelError,
    },
    /// A network's output has the wrong type.
    #[error("{model}: {source}")]
    Tensor {
        /// Network name.
        model: &'static str,
        /// What was expected.
        source: TensorError,
    },
    /// A network gave infinite or undefined values.
    #[error(
        "{model} gave values that are not finite for picture {item}: float16 overflowed; convert with --sandwich auto, or validate the pack to find the layer"
    )]
    NotFinite {
        /// Network name.
        model: &'static str,
        /// Index of the picture.
        item: usize,
    },
    /// The prompt cannot be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Steps, strength or schedule out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The initial picture has another number of bytes than its size takes.
    #[error("the initial picture of {width}x{height} has {found} bytes instead of {expected}")]
    InitialPicture {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// Bytes that size takes.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// The caller's progress function asked to stop.
    #[error("cancelled")]
    Cancelled,
}
