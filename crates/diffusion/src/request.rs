//! What is asked of a pipeline, and what it tells and gives.

use crate::{Mask, Picture, SamplerName};

/// Most pictures one request may ask for.
pub const MAX_COUNT: u32 = 256;

/// Pictures to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to draw.
    pub prompt: String,
    /// What to keep away from; only for models with classifier-free guidance. Empty counts as absent.
    pub negative_prompt: Option<String>,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale, 1 being none.
    pub guidance: f64,
    /// Seed of the first picture; the next ones count up.
    pub seed: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Number of pictures, generated together.
    pub count: u32,
    /// Picture to start from.
    pub initial: Option<InitialPicture>,
    /// Sampler; `None` is the one that the model's scheduler names.
    pub sampler: Option<SamplerName>,
    /// How often unfinished pictures are shown on the way: decoded as the model guesses them then. Each time costs a decoding.
    pub previews: u32,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            prompt: String::new(),
            negative_prompt: None,
            steps: 4,
            guidance: 2.0,
            seed: 0,
            width: 512,
            height: 512,
            count: 1,
            initial: None,
            sampler: None,
            previews: 0,
        }
    }
}

/// A picture to start from.
#[derive(Clone, Debug, PartialEq)]
pub struct InitialPicture {
    /// The picture; it is resized to the requested size.
    pub picture: Picture,
    /// How much may change: above 0, and 1 leaves least of the picture.
    pub strength: f64,
    /// Where it may change; `None` is everywhere.
    pub mask: Option<Mask>,
}

/// How far a request has come.
#[derive(Clone, Debug, PartialEq)]
pub enum DrawProgress {
    /// The prompt is encoded.
    Prompt {
        /// Ids at its end that the text encoder has no room for.
        dropped_tokens: usize,
    },
    /// Sampling steps are done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
    },
    /// Unfinished pictures, as many as were asked for.
    Preview {
        /// How often they were shown before.
        index: u32,
        /// By ascending seed.
        pictures: Vec<Picture>,
    },
    /// The pictures are decoded.
    Decoded,
}

/// What a request gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The pictures, by ascending seed.
    pub pictures: Vec<Picture>,
    /// Ids at the end of the prompt (or of the negative prompt, whichever lost more) that the text encoder has no room for.
    pub dropped_tokens: usize,
}
