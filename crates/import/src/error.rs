//! Why a model cannot be imported, with node, operator and opset.

use rockshard_graph::VerifyError;
use rockshard_onnx::OnnxError;

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file, or a tensor in it.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A node.
    #[error("node {node:?} ({op}, opset {opset}): {problem}")]
    Node {
        /// Node name.
        node: String,
        /// ONNX operator type.
        op: String,
        /// Operator set of the model.
        opset: i64,
        /// What is wrong.
        problem: Problem,
    },
    /// The model's operator set is too old or too new.
    #[error("opset {0} is not supported; export the model with an opset from {old} to {new}", old = crate::OLDEST_OPSET, new = crate::NEWEST_OPSET)]
    Opset(i64),
    /// An input with a dimension nothing fixes.
    #[error(
        "input {input:?}: dimension {axis} ({dimension}) is dynamic and nothing fixes it; known dimensions: {known}"
    )]
    Dynamic {
        /// Input.
        input: String,
        /// Axis.
        axis: usize,
        /// Its symbolic name, or `?`.
        dimension: String,
        /// Names that are fixed.
        known: String,
        /// The declared extents, where they are fixed.
        shape: Vec<Option<usize>>,
    },
    /// An input without a usable type.
    #[error("input {input:?}: {problem}")]
    Input {
        /// Input.
        input: String,
        /// What is wrong.
        problem: String,
    },
    /// An output that was asked for, or that the file declares, but no node makes.
    #[error("output {0:?} is made by no node")]
    Output(String),
    /// The graph has a cycle.
    #[error("the graph is cyclic: node {0:?} needs its own output")]
    Cycle(String),
    /// A function of the model that calls itself, or is too large.
    #[error("function {0:?} calls itself, or makes more nodes than can be read")]
    Function(String),
    /// A rewrite broke the graph.
    #[error("after a rewrite: {0}")]
    Rewrite(#[from] VerifyError),
}

/// What is wrong with a node.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// An operator without a counterpart.
    #[error("operator is not supported")]
    Unsupported,
    /// An operator of another domain.
    #[error("operator domain {0:?} is not supported")]
    Domain(String),
    /// An operator that ONNX Runtime's optimiser makes and nothing else reads.
    #[error(
        "is made by ONNX Runtime's optimiser; export the model without it, or optimise it at level basic only"
    )]
    Optimised,
    /// An operator of a quantised model.
    #[error(
        "belongs to a quantised model; export the float model, since the NPU's compiler quantises by itself"
    )]
    Quantised,
    /// A supported operator with an attribute or input that is not.
    #[error("{0}")]
    Form(String),
    /// An operator whose result shape depends on data.
    #[error(
        "{0} depends on the model's inputs; it must be constant, since the NPU needs static shapes"
    )]
    DataDependent(&'static str),
    /// A value nothing makes.
    #[error("input {0:?} is made by no node, input or initializer")]
    Missing(String),
    /// A tensor in the node.
    #[error(transparent)]
    Tensor(#[from] OnnxError),
    /// Shapes that do not suit the operator.
    #[error(transparent)]
    Shape(#[from] rockshard_graph::ShapeError),
    /// Folding failed.
    #[error("constant folding: {0}")]
    Fold(String),
    /// The host's engine does not run the operator as it stands.
    #[error("the host's engine: {0}")]
    Engine(String),
}
