//! A language model in one of the two forms that it is found in.

use super::decoder::{Decoder, Memories};
use super::graph::{Export, GraphMemory, GraphModel};
use std::path::{Path, PathBuf};

/// The converter's form of a decoder; where it is absent, the exported files are run as they are.
pub const DECODER_FILE: &str = "decoder.safetensors";

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

enum Form {
    Decoder(Box<Decoder>, rayon::ThreadPool),
    Graph(Box<GraphModel>),
}

/// What a session keeps of what was said.
pub(super) enum Memory {
    Decoder(Memories),
    Graph(GraphMemory),
}

/// A language model, for any number of sessions.
pub struct LanguageModel {
    form: Form,
    width: usize,
    known: usize,
    context: usize,
}

impl LanguageModel {
    /// Read the model in a folder: `decoder.safetensors`, or the files of an export. `context` is the number of positions it has; `threads` those of its own
    /// pool, `None` as many as there are cores.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of another interface.
    pub fn open(
        folder: &Path,
        context: usize,
        threads: Option<usize>,
    ) -> Result<Self, LanguageError> {
        let path = folder.join(DECODER_FILE);
        if !path.is_file() {
            return Self::open_export(&Export::find(folder), context, threads);
        }
        let threads = threads.unwrap_or_else(usual_threads).max(1);
        let fail = |problem: String| LanguageError::Load { path: path.clone(), problem };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.thread_name(|n| format!("language-{n}")).build();
        let pool = pool.map_err(|e| LanguageError::Run(e.to_string()))?;
        let decoder = pool.install(|| Decoder::open(&path)).map_err(fail)?;
        let (width, known) = (decoder.shape.width, decoder.shape.vocabulary);
        Ok(LanguageModel { form: Form::Decoder(Box::new(decoder), pool), width, known, context })
    }

    /// Run the files of an export as they are.
    ///
    /// # Errors
    /// As [`LanguageModel::open`].
    pub fn open_export(
        export: &Export,
        context: usize,
        threads: Option<usize>,
    ) -> Result<Self, LanguageError> {
        let threads = threads.unwrap_or_else(usual_threads).max(1);
        let graph = GraphModel::open(export, threads)?;
        let (width, known) = (graph.width(), graph.known());
        Ok(LanguageModel { form: Form::Graph(Box::new(graph)), width, known, context })
    }

    /// Values of a token's embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens it knows.
    pub fn known(&self) -> usize {
        self.known
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
        let mut rows = Vec::with_capacity(tokens.len() * self.width);
        for &token in tokens {
            let known = match &self.form {
                Form::Decoder(decoder, _) => decoder.embed(token, &mut rows),
                Form::Graph(graph) => graph.embed(token, &mut rows),
            };
            if !known {
                return Err(LanguageError::Token { token, known: self.known });
            }
        }
        Ok(rows)
    }

    /// An empty memory.
    pub(super) fn memory(&self) -> Memory {
        match &self.form {
            Form::Decoder(decoder, _) => Memory::Decoder(decoder.memories()),
            Form::Graph(graph) => Memory::Graph(graph.memory()),
        }
    }

    /// Forget all of a memory behind so many tokens.
    pub(super) fn truncate(&self, memory: &mut Memory, tokens: usize) {
        match (&self.form, memory) {
            (Form::Decoder(decoder, _), Memory::Decoder(kept)) => {
                kept.truncate(tokens, &decoder.shape);
            }
            (_, Memory::Graph(kept)) => kept.truncate(tokens),
            (Form::Graph(_), Memory::Decoder(_)) => {}
        }
    }

    /// Go on behind `tokens` of a memory with embeddings; gives the logits of the token after the last.
    pub(super) fn feed(
        &self,
        memory: &mut Memory,
        tokens: usize,
        embeddings: &[f32],
    ) -> Result<Vec<f32>, LanguageError> {
        let logits = match (&self.form, &mut *memory) {
            (Form::Decoder(decoder, pool), Memory::Decoder(kept)) => {
                pool.install(|| decoder.feed(kept, tokens, embeddings))
            }
            (Form::Graph(graph), Memory::Graph(kept)) => graph.feed(kept, tokens, embeddings),
            _ => Err("a memory of another model".into()),
        };
        match logits {
            Ok(logits) if logits.is_empty() || !logits.iter().all(|v| v.is_finite()) => {
                Err(LanguageError::Run("its logits are not finite".into()))
            }
            Ok(logits) => Ok(logits),
            Err(problem) => Err(LanguageError::Run(problem)),
        }
    }
}

/// One a core of this machine.
fn usual_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
