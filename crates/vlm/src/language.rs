//! The language model: embeddings in, words out, on rten with threads of its own.

mod generate;
mod model;
mod sampling;
mod session;

pub use generate::{End, Generation, generate};
pub use model::{LanguageError, LanguageModel};
pub use sampling::{Sampler, Sampling, SamplingError};
pub use session::Session;
