//! Logits that an engine gave for some tokens: what a language model is judged by.

use super::{LanguageError, LanguageModel, Sampler, Session};
use rockshard_tensor::{Tensor, read_safetensors, write_safetensors};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Tokens that are fed before the first logits, and those that follow, each the likeliest.
const PROMPT: usize = 32;
const SAID: usize = 32;
/// Key of the tokens in a file.
const IDS: &str = "ids";
/// What the key of the logits begins with; the engine follows.
const LOGITS: &str = "logits/";

/// Logits behind a prompt and behind each of the tokens that follow it. A file has the tokens as `ids` (int64) and the logits as `logits/ENGINE`
/// (float32), a row behind each of the last tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitsRecord {
    /// Which engine gave them.
    pub engine: String,
    /// Prompt and what follows it.
    pub ids: Vec<u32>,
    /// A row behind each of the last tokens.
    pub logits: Vec<Vec<f32>>,
}

impl LogitsRecord {
    /// Let a model go on behind a prompt of fixed tokens, choosing the likeliest.
    ///
    /// # Errors
    /// The model fails.
    pub fn new(model: Arc<LanguageModel>, engine: &str) -> Result<Self, LanguageError> {
        let known = model.known();
        let mut ids: Vec<u32> = (0..PROMPT).map(|at| ((at * 7919 + 13) % known) as u32).collect();
        let mut session = Session::new(model);
        let mut logits = vec![session.feed(&session.model().embed(&ids)?)?];
        for row in 0..SAID {
            let token = Sampler::greedy().choose(&logits[row], &[]);
            ids.push(token);
            logits.push(session.feed(&session.model().embed(&[token])?)?);
        }
        Ok(LogitsRecord { engine: engine.to_owned(), ids, logits })
    }

    /// The logits of another model behind the same tokens.
    ///
    /// # Errors
    /// A token that the model does not know, too many for it, or a model that fails.
    pub fn repeat(&self, model: Arc<LanguageModel>) -> Result<Vec<Vec<f32>>, LanguageError> {
        let mut session = Session::new(model);
        let prompt = self.ids.len() - self.logits.len() + 1;
        let mut fed = 0;
        let mut feed = |to: usize| {
            let embeddings = session.model().embed(&self.ids[fed..to])?;
            fed = to;
            session.feed(&embeddings)
        };
        (prompt..=self.ids.len()).map(&mut feed).collect()
    }

    /// Read a file.
    ///
    /// # Errors
    /// A file that is missing, damaged, or holds something else.
    pub fn read(path: &Path) -> Result<Self, LanguageError> {
        let fail = |problem: String| LanguageError::Load { path: path.to_owned(), problem };
        let tensors = read_safetensors(path).map_err(|e| fail(e.to_string()))?;
        let ids = tensors.get(IDS).and_then(|t| t.to_i64().ok());
        let ids = ids.ok_or_else(|| fail(format!("it has no int64 {IDS:?}")))?;
        let ids = ids.iter().map(|&id| u32::try_from(id)).collect::<Result<Vec<u32>, _>>();
        let ids = ids.map_err(|_| fail("it has tokens below zero".into()))?;
        let found = tensors.iter().find_map(|(key, t)| Some((key.strip_prefix(LOGITS)?, t)));
        let (engine, logits) = found.ok_or_else(|| fail(format!("it has no {LOGITS:?}ENGINE")))?;
        let values = logits.to_f32().map_err(|e| fail(e.to_string()))?;
        match *logits.shape() {
            [rows, known] if (1..=ids.len()).contains(&rows) && known > 0 => Ok(LogitsRecord {
                engine: engine.to_owned(),
                ids,
                logits: values.chunks_exact(known).map(<[f32]>::to_vec).collect(),
            }),
            ref shape => Err(fail(format!("its logits of {} tokens are {shape:?}", ids.len()))),
        }
    }

    /// Write a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let ids: Vec<i64> = self.ids.iter().map(|&id| id.into()).collect();
        let known = self.logits.first().map_or(0, Vec::len);
        let tensors = BTreeMap::from([
            (IDS.to_owned(), Tensor::from_i64([ids.len()], ids)),
            (
                format!("{LOGITS}{}", self.engine),
                Tensor::from_f32([self.logits.len(), known], self.logits.concat()),
            ),
        ]);
        write_safetensors(tensors, path)
    }
}
