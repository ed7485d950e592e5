//! Vision-language models of the Idefics3 kind (SmolVLM): what their processor makes of images and conversations, and the language model that answers.
//!
//! An image becomes *views* of one size: the tiles of a grid, row by row, and behind them the whole image. [`ImageProcessor`] makes them as
//! transformers' processor does with Pillow, byte for byte. [`Prompter`] makes token ids of a conversation, with places for the features of the views.
//! A [`Session`] of a [`LanguageModel`] is fed embeddings and features, and [`generate`] says on.

mod image;
mod language;
mod prompt;

pub use image::{ImageError, ImageProcessor, ProcessorConfigError, Rgb, Views};
pub use language::{
    DECODER_FILE, DecoderShape, DecoderWriter, End, Export, Generation, LanguageError,
    LanguageModel, LogitsRecord, PRECISIONS, Sampler, Sampling, SamplingError, Session, WeightBits,
    generate,
};
pub use prompt::{Message, Part, Prompt, PromptError, Prompter, Speaker};
