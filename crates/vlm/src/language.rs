//! The language model: embeddings in, words out, on rten with threads of its own.

mod decoder;
mod generate;
mod graph;
mod model;
mod record;
mod sampling;
mod session;

pub use decoder::{DecoderShape, DecoderWriter, WeightBits};
pub use generate::{End, Generation, generate};
pub use graph::{Export, PRECISIONS};
pub use model::{DECODER_FILE, LanguageError, LanguageModel};
pub use record::LogitsRecord;
pub use sampling::{Sampler, Sampling, SamplingError};
pub use session::Session;
