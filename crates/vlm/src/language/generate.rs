//! Words, one token after the other.

use super::{LanguageError, Sampler, Session};
use std::ops::ControlFlow;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A token that ends what is said; it is not among the tokens.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The model has no more positions.
    Context,
    /// Whoever listens had enough.
    Interrupted,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub end: End,
}

/// Say on after `logits`, at most `most` tokens, until one of `stops`. `before` is what a repetition penalty counts besides. Each token is told as it comes, and
/// stays in the session.
///
/// # Errors
/// The model fails.
pub fn generate(
    session: &mut Session,
    mut logits: Vec<f32>,
    sampler: &mut Sampler,
    (before, stops): (&[u32], &[u32]),
    most: usize,
    tell: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, LanguageError> {
    let mut seen = before.to_vec();
    let mut tokens = Vec::new();
    let end = loop {
        if tokens.len() == most {
            break End::Length;
        }
        let token = sampler.choose(&logits, &seen);
        if stops.contains(&token) {
            break End::Stop;
        }
        tokens.push(token);
        seen.push(token);
        if tell(token).is_break() {
            break End::Interrupted;
        }
        if session.tokens() == session.model().context() {
            break End::Context;
        }
        let embedding = session.model().embed(&[token])?;
        logits = session.feed(&embedding)?;
    };
    Ok(Generation { tokens, end })
}
