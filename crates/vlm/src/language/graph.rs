//! A decoder as exporters lay it out, run as it is: `embed_tokens.onnx`, and `decoder_model_merged.onnx` with keys and values that come and go.

use super::LanguageError;
use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What onnx-community appends to the names of the files that can be read, the most exact first.
pub const PRECISIONS: [&str; 4] = ["", "_fp16", "_q4", "_q4f16"];
/// Tokens by which the room for keys and values grows.
const ROOM: usize = 512;

/// The files of an exported language model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Token ids to embeddings.
    pub embed: PathBuf,
    /// Embeddings to logits.
    pub decoder: PathBuf,
}

impl Export {
    /// The most exact files in a folder, by the names that onnx-community gives them; where there are none, the plain names.
    pub fn find(folder: &Path) -> Self {
        let first = |name: &str| {
            let files = PRECISIONS.iter().map(|p| folder.join(format!("{name}{p}.onnx")));
            let found = files.into_iter().find(|file| file.is_file());
            found.unwrap_or_else(|| folder.join(format!("{name}.onnx")))
        };
        Export { embed: first("embed_tokens"), decoder: first("decoder_model_merged") }
    }

    /// Whether both are there.
    pub fn exists(&self) -> bool {
        self.embed.is_file() && self.decoder.is_file()
    }

    /// Both, with those that hold their weights.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = |file: &PathBuf, end: &str| {
            let mut name = file.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        };
        let all = [&self.embed, &self.decoder].into_iter();
        let all = all.flat_map(|file| ["", "_data", ".data"].map(|end| named(file, end)));
        all.filter(|file| file.is_file()).collect()
    }
}

/// Keys or values of a layer, as the decoder takes and gives them.
#[derive(Clone, Copy)]
struct Memory {
    past: NodeId,
    present: NodeId,
    heads: usize,
    width: usize,
}

/// The exported files.
pub(super) struct GraphModel {
    /// A row a token.
    table: Vec<f32>,
    width: usize,
    decoder: Model,
    inputs: [NodeId; 3],
    logits: NodeId,
    memories: Vec<Memory>,
    threads: Arc<ThreadPool>,
}

/// Keys and values by layer, `[1, heads, tokens, width]`, with room for more tokens.
pub(super) struct GraphMemory {
    tensors: Vec<NdTensor<f32, 4>>,
    room: usize,
}

impl GraphMemory {
    /// Forget all behind so many tokens.
    pub fn truncate(&mut self, tokens: usize) {
        for memory in &mut self.tensors {
            let kept = tokens.min(memory.size(2));
            memory.clip_dim(2, 0..kept);
        }
    }

    /// Room for keys and values of so many tokens.
    fn make_room(&mut self, tokens: usize) {
        if tokens <= self.room {
            return;
        }
        self.room = tokens.next_multiple_of(ROOM);
        for memory in &mut self.tensors {
            let [one, heads, _, width] = memory.shape();
            let mut larger = NdTensor::with_capacity([one, heads, self.room, width], 2);
            // There is room for it by the line before.
            let _ = larger.append(2, &*memory);
            *memory = larger;
        }
    }
}

impl GraphModel {
    /// Read the files.
    pub fn open(export: &Export, threads: usize) -> Result<Self, LanguageError> {
        let threads = ThreadPool::with_num_threads(threads);
        let path = export.decoder.clone();
        let decoder = load(&path, true)?;
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
        let (table, width) = table(&export.embed)?;
        let threads = Arc::new(threads);
        Ok(GraphModel { table, width, decoder, inputs, logits, memories, threads })
    }

    /// Values of a token's embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens that are known.
    pub fn known(&self) -> usize {
        self.table.len() / self.width
    }

    /// Append a token's embedding; false where it is unknown.
    pub fn embed(&self, token: u32, to: &mut Vec<f32>) -> bool {
        let at = token as usize * self.width;
        let row = self.table.get(at..at + self.width);
        row.map(|row| to.extend_from_slice(row)).is_some()
    }

    /// An empty memory.
    pub fn memory(&self) -> GraphMemory {
        let tensors = self.memories.iter();
        let tensors =
            tensors.map(|m| NdTensor::with_capacity([1, m.heads, ROOM, m.width], 2)).collect();
        GraphMemory { tensors, room: ROOM }
    }

    /// Go on behind `from` tokens of a memory with embeddings; gives the logits of the token after the last. A memory that it fails on is lost.
    pub fn feed(
        &self,
        memory: &mut GraphMemory,
        from: usize,
        embeddings: &[f32],
    ) -> Result<Vec<f32>, String> {
        let count = embeddings.len() / self.width;
        let to = from + count;
        memory.make_room(to);
        let embeds = NdTensor::from_data([1, count, self.width], embeddings.to_vec());
        let mask = NdTensor::full([1, to], 1i32);
        let positions =
            NdTensor::from_data([1, count], (from as i32..to as i32).collect::<Vec<_>>());
        let [a, b, c] = self.inputs;
        let mut inputs: Vec<(_, ValueOrView)> =
            vec![(a, embeds.into()), (b, mask.into()), (c, positions.into())];
        // Given away, so that the graph appends to them in place.
        let tensors = std::mem::take(&mut memory.tensors);
        inputs
            .extend(self.memories.iter().map(|m| m.past).zip(tensors.into_iter().map(Into::into)));
        let outputs = self.memories.iter().map(|m| m.present);
        let outputs: Vec<_> = [self.logits].into_iter().chain(outputs).collect();
        let options = RunOptions::default().with_thread_pool(Some(self.threads.clone()));
        let found = self.decoder.run(inputs, &outputs, Some(options));
        let mut found = found.map_err(|e| e.to_string())?.into_iter();
        let logits: Tensor<f32> = typed(found.next())?;
        for value in found {
            let tensor: Tensor<f32> = typed(Some(value))?;
            let tensor = tensor.try_into().map_err(|_| "keys of another rank".to_owned())?;
            memory.tensors.push(tensor);
        }
        let vocabulary = *logits.shape().last().unwrap_or(&0);
        let last = logits.len() - vocabulary;
        Ok(logits.iter().skip(last).copied().collect())
    }
}

fn typed(value: Option<Value>) -> Result<Tensor<f32>, String> {
    let value = value.ok_or("an output is missing")?;
    value.try_into().map_err(|_| "an output is not float32".to_owned())
}

fn load(path: &Path, logits: bool) -> Result<Model, LanguageError> {
    let fail = |problem: String| LanguageError::Load { path: path.to_owned(), problem };
    if !path.is_file() {
        return Err(fail("no such file".into()));
    }
    let mut options = ModelOptions::with_all_ops();
    let model = options.load_file(path).map_err(|e| fail(e.to_string()))?;
    // rten's optimiser may give an output that it has folded another name.
    if model.find_node("logits").is_some() || !logits {
        return Ok(model);
    }
    options.enable_optimization(false);
    options.load_file(path).map_err(|e| fail(e.to_string()))
}

/// The rows of the embedding, asked for once, so that a token costs no run.
fn table(path: &Path) -> Result<(Vec<f32>, usize), LanguageError> {
    let fail = |problem: String| LanguageError::Load { path: path.to_owned(), problem };
    let model = load(path, false)?;
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
