//! The files of a language model as exporters lay them out: `embed_tokens.onnx`, and `decoder_model_merged.onnx` with keys and values that come and go.

use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of the files.
const EMBED: &str = "embed_tokens.onnx";
const DECODER: &str = "decoder_model_merged.onnx";

/// A language model that cannot be read or run.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// A file is missing, damaged, or has operators that rten does not.
    #[error("{path}: {problem}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file has other inputs and outputs than exporters give such a model.
    #[error(
        "{path}: {problem}; expected are inputs_embeds, attention_mask, position_ids and past_key_values.N.key/value, to logits and present.N.key/value"
    )]
    Interface {
        /// The file.
        path: PathBuf,
        /// What is missing or other.
        problem: String,
    },
    /// More tokens than the model has positions for.
    #[error("{asked} tokens; the model has room for {context}")]
    Context {
        /// Tokens there would be.
        asked: usize,
        /// Most tokens.
        context: usize,
    },
    /// A token that the model does not know.
    #[error("token {token} is unknown to the language model, which has {known}")]
    Token {
        /// The token.
        token: u32,
        /// Tokens there are.
        known: usize,
    },
    /// Embeddings of another width.
    #[error("{found} values are no embeddings of width {width}")]
    Width {
        /// Values there are.
        found: usize,
        /// Values of a token.
        width: usize,
    },
    /// The model fails, or gives values that are not finite.
    #[error("the language model: {0}")]
    Run(String),
}

/// Keys or values of a layer, as the decoder takes and gives them.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub past: NodeId,
    pub present: NodeId,
    pub heads: usize,
    pub width: usize,
}

/// A language model, for any number of sessions.
pub struct LanguageModel {
    /// A row a token.
    table: Vec<f32>,
    width: usize,
    context: usize,
    pub(super) decoder: Model,
    pub(super) inputs: [NodeId; 3],
    pub(super) logits: NodeId,
    pub(super) memories: Vec<Memory>,
    threads: Arc<ThreadPool>,
}

impl LanguageModel {
    /// Read the model in a folder (`onnx/` of a model directory). `context` is the number of positions it has; `threads` those of its own pool, `None` as many
    /// as there are cores.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of another interface.
    pub fn open(
        folder: &Path,
        context: usize,
        threads: Option<usize>,
    ) -> Result<Self, LanguageError> {
        let threads = match threads {
            Some(count) => ThreadPool::with_num_threads(count.max(1)),
            None => ThreadPool::with_num_threads(
                std::thread::available_parallelism().map_or(1, usize::from),
            ),
        };
        let path = folder.join(DECODER);
        let decoder = load(&path)?;
        let wrong = |problem: String| LanguageError::Interface { path: path.clone(), problem };
        let id = |name: &str, among: &[NodeId]| {
            let found = decoder.find_node(name).filter(|id| among.contains(id));
            found.ok_or_else(|| wrong(format!("there is no {name:?}")))
        };
        let inputs = ["inputs_embeds", "attention_mask", "position_ids"];
        let [embeds, mask, positions] = inputs.map(|name| id(name, decoder.input_ids()));
        let inputs = [embeds?, mask?, positions?];
        let logits = id("logits", decoder.output_ids())?;
        let mut memories = Vec::new();
        for layer in 0.. {
            if decoder.find_node(&format!("past_key_values.{layer}.key")).is_none() {
                break;
            }
            for kind in ["key", "value"] {
                let name = format!("past_key_values.{layer}.{kind}");
                let past = id(&name, decoder.input_ids())?;
                let present = id(&format!("present.{layer}.{kind}"), decoder.output_ids())?;
                let shape = decoder.node_info(past).and_then(|i| i.shape()).unwrap_or_default();
                let [_, Dimension::Fixed(heads), _, Dimension::Fixed(width)] = shape[..] else {
                    return Err(wrong(format!("{name} does not say its heads and their width")));
                };
                memories.push(Memory { past, present, heads, width });
            }
        }
        let taken = inputs.len() + memories.len();
        if memories.is_empty() || decoder.input_ids().len() != taken {
            let found = decoder.input_ids().len();
            return Err(wrong(format!("it has {found} inputs, of which {taken} are known")));
        }
        let (table, width) = table(&folder.join(EMBED))?;
        let threads = Arc::new(threads);
        Ok(LanguageModel { table, width, context, decoder, inputs, logits, memories, threads })
    }

    /// Values of a token's embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Positions it has.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Embeddings of tokens, one after the other.
    ///
    /// # Errors
    /// A token that the model does not know.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, LanguageError> {
        let known = self.table.len() / self.width;
        let row = |&token: &u32| {
            let at = token as usize;
            let row = self.table.get(at * self.width..(at + 1) * self.width);
            row.ok_or(LanguageError::Token { token, known })
        };
        Ok(tokens.iter().map(row).collect::<Result<Vec<_>, _>>()?.concat())
    }

    pub(super) fn options(&self) -> RunOptions {
        RunOptions::default().with_thread_pool(Some(self.threads.clone()))
    }
}

fn load(path: &Path) -> Result<Model, LanguageError> {
    let fail = |problem: String| LanguageError::Load { path: path.to_owned(), problem };
    if !path.is_file() {
        return Err(fail("no such file".into()));
    }
    let mut options = ModelOptions::with_all_ops();
    let model = options.load_file(path).map_err(|e| fail(e.to_string()))?;
    // rten's optimiser may give an output that it has folded another name.
    if model.find_node("logits").is_some() || !path.ends_with(DECODER) {
        return Ok(model);
    }
    options.enable_optimization(false);
    options.load_file(path).map_err(|e| fail(e.to_string()))
}

/// The rows of the embedding, asked for once, so that a token costs no run.
fn table(path: &Path) -> Result<(Vec<f32>, usize), LanguageError> {
    let fail = |problem: String| LanguageError::Load { path: path.to_owned(), problem };
    let model = load(path)?;
    let (Some(&input), Some(&output)) = (model.input_ids().first(), model.output_ids().first())
    else {
        return Err(fail("it has no input or no output".into()));
    };
    let run = |ids: Vec<i32>| {
        let ids = NdTensor::from_data([1, ids.len()], ids);
        let found = model.run(vec![(input, ids.into())], &[output], None);
        let found: Result<Tensor<f32>, String> =
            found.map_err(|e| e.to_string()).and_then(|mut v| {
                v.remove(0).try_into().map_err(|_| "its output is not float32".into())
            });
        found
    };
    // The vocabulary's size is nowhere declared: double until an id is out of it, then halve what is between.
    let has = |token: i32| run(vec![token]).is_ok();
    let mut above = 1;
    while above < i32::MAX / 2 && has(above) {
        above *= 2;
    }
    let mut below = above / 2;
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        *(if has(middle) { &mut below } else { &mut above }) = middle;
    }
    let rows = run((0..above).collect()).map_err(fail)?;
    let width = *rows.shape().last().unwrap_or(&0);
    if width == 0 {
        return Err(fail("embeddings without values".into()));
    }
    Ok((rows.to_vec(), width))
}
