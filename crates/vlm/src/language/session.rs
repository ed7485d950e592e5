//! A conversation with the language model: keys and values of all that was said stay, so that what is added costs its own tokens only.

use super::model::{LanguageError, LanguageModel, Memory};
use std::sync::Arc;

/// Tokens that are fed at once, which bounds what exists of them for a moment.
const CHUNK: usize = 1024;

/// What was said, as a language model keeps it.
pub struct Session {
    model: Arc<LanguageModel>,
    memory: Memory,
    tokens: usize,
}

impl Session {
    /// An empty one.
    pub fn new(model: Arc<LanguageModel>) -> Self {
        let memory = model.memory();
        Session { model, memory, tokens: 0 }
    }

    /// The language model.
    pub fn model(&self) -> &Arc<LanguageModel> {
        &self.model
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Go on with embeddings, one after the other; gives the logits of the token after the last. Where that is not possible, the session is as it was; where the
    /// model fails, it is empty.
    ///
    /// # Errors
    /// Nothing to go on with, embeddings of another width, more tokens than the model has positions for, or a model that fails.
    pub fn feed(&mut self, embeddings: &[f32]) -> Result<Vec<f32>, LanguageError> {
        let (width, context) = (self.model.width(), self.model.context());
        let found = embeddings.len();
        if found == 0 || !found.is_multiple_of(width) {
            return Err(LanguageError::Width { found, width });
        }
        let asked = self.tokens + found / width;
        if asked > context {
            return Err(LanguageError::Context { asked, context });
        }
        let mut logits = Vec::new();
        for chunk in embeddings.chunks(CHUNK * width) {
            match self.model.feed(&mut self.memory, self.tokens, chunk) {
                Ok(found) => logits = found,
                Err(error) => {
                    *self = Session::new(self.model.clone());
                    return Err(error);
                }
            }
            self.tokens += chunk.len() / width;
        }
        Ok(logits)
    }

    /// Forget all behind so many tokens.
    pub fn forget(&mut self, tokens: usize) {
        self.model.truncate(&mut self.memory, tokens);
        self.tokens = self.tokens.min(tokens);
    }
}
