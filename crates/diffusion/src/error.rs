//! Why pictures cannot be made: the facts, without advice that depends on how the caller is used.

use crate::{NetworkError, PromptSyntaxError, SamplerError, TokenizerError};
use rockshard_manifest::Role;
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
    #[error("size {width}x{height} is not in this pack, which has {}", sizes(.available))]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Sizes `[width, height]` there are.
        available: Vec<[u32; 2]>,
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
    #[error("the pack has no {role}")]
    MissingNetwork {
        /// What it is for.
        role: Role,
    },
    /// A network does not have the inputs or outputs a diffusion model has.
    #[error("{role}: {detail}")]
    Interface {
        /// What the network is for.
        role: Role,
        /// What does not fit.
        detail: String,
    },
    /// A network failed.
    #[error("{role}: {source}")]
    Network {
        /// What the network is for.
        role: Role,
        /// Its error.
        source: NetworkError,
    },
    /// A network's output has the wrong type.
    #[error("{role}: {source}")]
    Tensor {
        /// What the network is for.
        role: Role,
        /// What was expected.
        source: TensorError,
    },
    /// A network gave infinite or undefined values.
    #[error("{role} gave values that are not finite for item {item}: float16 overflowed")]
    NotFinite {
        /// What the network is for.
        role: Role,
        /// Index of the item: a picture, or a row of the U-Net.
        item: usize,
    },
    /// The prompt has what is not supported.
    #[error(transparent)]
    Prompt(#[from] PromptSyntaxError),
    /// The prompt cannot be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Steps, strength or schedule out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A latent of another length than the U-Net's.
    #[error("a latent of {found} values instead of {expected}")]
    Latent {
        /// Values that the U-Net takes.
        expected: usize,
        /// Values it has.
        found: usize,
    },
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
    /// A mask of another size than its picture.
    #[error("the mask is {}x{}, its picture {}x{}; both must have the same size", mask[0], mask[1], picture[0], picture[1])]
    Mask {
        /// Width and height of the mask.
        mask: [u32; 2],
        /// Width and height of the picture.
        picture: [u32; 2],
    },
    /// Settings of a stream that cannot be.
    #[error("{0}")]
    Settings(String),
    /// The caller's progress function asked to stop.
    #[error("cancelled")]
    Cancelled,
}

fn sizes(available: &[[u32; 2]]) -> String {
    available.iter().map(|[w, h]| format!("{w}x{h}")).collect::<Vec<_>>().join(", ")
}
