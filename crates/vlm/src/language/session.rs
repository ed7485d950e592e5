//! A conversation with the language model: keys and values of all that was said stay, so that what is added costs its own tokens only.

use super::model::{LanguageError, LanguageModel};
use rten::{Value, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use std::sync::Arc;

/// Tokens that are fed at once: logits of all of them exist for a moment.
const CHUNK: usize = 256;
/// Tokens by which the room for keys and values grows.
const ROOM: usize = 512;

/// What was said, as a language model keeps it.
pub struct Session {
    model: Arc<LanguageModel>,
    /// Keys and values by layer, `[1, heads, tokens, width]`, with room for more tokens.
    memories: Vec<NdTensor<f32, 4>>,
    tokens: usize,
    room: usize,
}

impl Session {
    /// An empty one.
    pub fn new(model: Arc<LanguageModel>) -> Self {
        let memories = model.memories.iter();
        let memories =
            memories.map(|m| NdTensor::with_capacity([1, m.heads, ROOM, m.width], 2)).collect();
        Session { model, memories, tokens: 0, room: ROOM }
    }

    /// The language model.
    pub fn model(&self) -> &Arc<LanguageModel> {
        &self.model
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Go on with embeddings, one after the other; gives the logits of the token after the last. Where it fails, the session is as it was.
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
        let before = self.tokens;
        let mut logits = Vec::new();
        for chunk in embeddings.chunks(CHUNK * width) {
            match self.step(chunk) {
                Ok(found) => logits = found,
                Err(error) => {
                    self.forget(before);
                    return Err(error);
                }
            }
        }
        Ok(logits)
    }

    /// Forget all behind so many tokens.
    pub fn forget(&mut self, tokens: usize) {
        for memory in &mut self.memories {
            let kept = tokens.min(memory.size(2));
            memory.clip_dim(2, 0..kept);
        }
        self.tokens = self.tokens.min(tokens);
    }

    fn step(&mut self, embeddings: &[f32]) -> Result<Vec<f32>, LanguageError> {
        let fail = |error: String| LanguageError::Run(error);
        let count = embeddings.len() / self.model.width();
        let (from, to) = (self.tokens, self.tokens + count);
        self.make_room(to);
        let embeds = NdTensor::from_data([1, count, self.model.width()], embeddings.to_vec());
        let mask = NdTensor::full([1, to], 1i32);
        let positions =
            NdTensor::from_data([1, count], (from as i32..to as i32).collect::<Vec<_>>());
        let [a, b, c] = self.model.inputs;
        let mut inputs: Vec<(_, ValueOrView)> =
            vec![(a, embeds.into()), (b, mask.into()), (c, positions.into())];
        // Given away, so that the graph appends to them in place.
        let memories = std::mem::take(&mut self.memories);
        let kept = memories.iter().map(|m| m.size(2)).min().unwrap_or(0);
        debug_assert_eq!(kept, from);
        inputs.extend(
            self.model.memories.iter().map(|m| m.past).zip(memories.into_iter().map(Into::into)),
        );
        let outputs = self.model.memories.iter().map(|m| m.present);
        let outputs: Vec<_> = [self.model.logits].into_iter().chain(outputs).collect();
        let found = self.model.decoder.run(inputs, &outputs, Some(self.model.options()));
        let mut found = match found {
            Ok(found) => found.into_iter(),
            Err(error) => {
                *self = Session::new(self.model.clone());
                return Err(fail(format!("{error}; what was said so far is lost")));
            }
        };
        let logits: Tensor<f32> = typed(found.next())?;
        for value in found {
            let memory: Tensor<f32> = typed(Some(value))?;
            let memory = memory.try_into().map_err(|_| fail("keys of another rank".into()))?;
            self.memories.push(memory);
        }
        self.tokens = to;
        let vocabulary = *logits.shape().last().unwrap_or(&0);
        let last = logits.len() - vocabulary;
        let last: Vec<f32> = logits.iter().skip(last).copied().collect();
        if last.is_empty() || !last.iter().all(|v| v.is_finite()) {
            return Err(fail("its logits are not finite".into()));
        }
        Ok(last)
    }

    /// Room for keys and values of so many tokens.
    fn make_room(&mut self, tokens: usize) {
        if tokens <= self.room {
            return;
        }
        self.room = tokens.next_multiple_of(ROOM).min(self.model.context().max(tokens));
        for memory in &mut self.memories {
            let [one, heads, _, width] = memory.shape();
            let mut larger = NdTensor::with_capacity([one, heads, self.room, width], 2);
            // There is room for it by the line before.
            let _ = larger.append(2, &*memory);
            *memory = larger;
        }
    }
}

fn typed(value: Option<Value>) -> Result<Tensor<f32>, LanguageError> {
    let value = value.ok_or_else(|| LanguageError::Run("an output is missing".into()))?;
    value.try_into().map_err(|_| LanguageError::Run("an output is not float32".into()))
}
