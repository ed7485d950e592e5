//! ONNX to static-shape graphs.
//!
//! One walk over the nodes in running order does everything: every shape is known when a node is reached, so each node is
//! either folded (all inputs constant), or turned into one or a few [`rockshard_graph::Op`]s whose output shape is inferred.
//! Element types collapse: every real-valued value is float32, and casts between real types disappear. Weights keep the
//! type they are stored in.

mod attention;
mod attributes;
mod contrib;
mod control;
mod convolution;
mod einsum;
mod elementwise;
mod error;
mod given;
mod host;
mod indexing;
mod inline;
mod movement;
mod nan;
mod norm;
mod note;
mod operators;
mod order;
mod positions;
mod reduce;
mod resize;
mod shape;
mod walk;

pub use error::{ImportError, Problem};
pub use note::Note;

use rockshard_graph::{Graph, Log, fusion_rules, rewrite};
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Oldest operator set that is read.
pub const OLDEST_OPSET: i64 = 11;
/// Newest operator set that is read. Shards are written with an older one, which the vendor's compiler takes.
pub const NEWEST_OPSET: i64 = 26;

/// Runs a small ONNX model on the host: its encoding, its inputs by name, and the outputs that are wanted. For constants and shapes of
/// operators that only the host's engine knows.
pub type Engine<'a> = &'a dyn Fn(&[u8], &[(&str, &Tensor)], &[&str]) -> Result<Vec<Tensor>, String>;

/// How open shapes are closed and what is kept.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Extents for named dynamic dimensions, e.g. `height`.
    pub dims: BTreeMap<String, usize>,
    /// Whole shapes by input name; they win over `dims` and over what the file declares.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Outputs to keep, by name; all when empty.
    pub outputs: Vec<String>,
    /// What is given about inputs, by name.
    pub given: BTreeMap<String, Given>,
}

/// What is given about an input, whatever it is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A mask that shows everything, 1 or true throughout: it is a constant, and no input of the graph.
    Ones,
    /// Pictures of three axes each, none of which is 0 throughout, as those that only fill a batch are.
    Picture,
}

impl ImportOptions {
    /// For files whose shapes are all fixed, such as shards.
    pub fn fixed() -> Self {
        Self::default()
    }
}

/// Import a file and fuse what the NPU's compiler fuses.
///
/// # Errors
/// The file cannot be read; an operator, opset, type or shape is not supported (the node is named); the graph is cyclic.
pub fn import_file(path: &Path, options: &ImportOptions) -> Result<Graph, ImportError> {
    let model = rockshard_onnx::load(path)?;
    let mut graph = import_model(&model, options, None)?;
    fuse(&mut graph, None)?;
    Ok(graph)
}

/// Import a decoded model as it stands, without fusing. Without an engine, what only the host can run needs declared shapes.
///
/// # Errors
/// As [`import_file`].
pub fn import_model(
    model: &rockshard_onnx::Model,
    options: &ImportOptions,
    engine: Option<Engine<'_>>,
) -> Result<Graph, ImportError> {
    import_noted(model, options, engine).map(|(graph, _)| graph)
}

/// Import a decoded model as [`import_model`] does, and tell what was noticed about it.
///
/// # Errors
/// As [`import_file`].
pub fn import_noted(
    model: &rockshard_onnx::Model,
    options: &ImportOptions,
    engine: Option<Engine<'_>>,
) -> Result<(Graph, Vec<Note>), ImportError> {
    walk::import(model, options, engine)
}

/// Whether an operator is one of quantised models, with activations in 8 bits or weights in a form that is not read.
pub fn is_quantised(operator: &str) -> bool {
    ["uantize", "Integer"].iter().any(|part| operator.contains(part))
        || operator.starts_with("QLinear")
        || operator.ends_with("Bnb4")
}

/// Apply the fusions of the NPU's compiler until none is left, or `stop_at` were made.
///
/// # Errors
/// A fusion broke the graph (a defect, with the node named).
pub fn fuse(graph: &mut Graph, stop_at: Option<usize>) -> Result<Log, ImportError> {
    let rules = fusion_rules();
    let rules: Vec<&dyn rockshard_graph::Rule> = rules.iter().map(AsRef::as_ref).collect();
    Ok(rewrite(graph, &rules, stop_at)?)
}
