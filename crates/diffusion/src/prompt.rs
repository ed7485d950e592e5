//! Weights of a prompt's words, as AUTOMATIC1111's web UI and compel have them written. `docs/prompts.md` is the reference for users.
//!
//! The web UI's reading comes first: its brackets, `:1.3)` and escapes mean what they mean there, an unbalanced bracket too. Compel's
//! signs and numbers behind a word or a group are read where the web UI would see plain text. What the web UI would do something else
//! with than weighting (`BREAK`, `AND`, scheduling, extra networks) is refused, since reading it as words would be a silent mistake.

mod error;
mod parser;
mod suffix;

pub use error::PromptSyntaxError;

/// Largest magnitude of a weight: far above what gives pictures, far below what float16 overflows at.
pub const LARGEST_WEIGHT: f64 = 100.0;

/// Some of a prompt's text and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Text without brackets and escapes.
    pub text: String,
    /// Factor on what the text encoder gives for it; 1 is none.
    pub weight: f64,
}

/// A prompt without its brackets: pieces in their order, neighbours of different weights. There is at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedPrompt {
    pieces: Vec<Piece>,
}

impl WeightedPrompt {
    /// Read a prompt.
    ///
    /// # Errors
    /// Syntax that is not supported, and weights that are no number or too large.
    pub fn parse(prompt: &str) -> Result<Self, PromptSyntaxError> {
        error::refuse_foreign(prompt)?;
        let pieces = merged(parser::pieces(prompt)?);
        let bounds = -LARGEST_WEIGHT..=LARGEST_WEIGHT;
        match pieces.iter().find(|p| !bounds.contains(&p.weight)) {
            Some(p) => {
                Err(PromptSyntaxError::Large { text: p.text.trim().to_owned(), weight: p.weight })
            }
            None => Ok(WeightedPrompt { pieces }),
        }
    }

    /// Its pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Neighbours of equal weight made one piece, so that a bracket without effect does not cut a word.
fn merged(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in pieces {
        match merged.last_mut() {
            Some(last) if last.weight == piece.weight => last.text += &piece.text,
            _ => merged.push(piece),
        }
    }
    if merged.is_empty() {
        merged.push(Piece { text: String::new(), weight: 1.0 });
    }
    merged
}
