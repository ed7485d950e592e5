//! Why an operator cannot be computed: one enum for all kernels, naming the operator and the input.

use rockshard_graph::ShapeError;
use rockshard_tensor::DType;

/// Why an operator cannot be run on the tensors it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Number or shapes of the inputs.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Element type of an input.
    #[error("{op}: input {input} holds {found}, expected {expected}")]
    Type {
        /// Operator.
        op: &'static str,
        /// Position of the input.
        input: usize,
        /// What it holds.
        found: DType,
        /// What the operator needs.
        expected: &'static str,
    },
    /// An index beyond the axis it selects from.
    #[error("{op}: index {index} of an axis with {extent} entries")]
    Index {
        /// Operator.
        op: &'static str,
        /// The index as given.
        index: i64,
        /// Entries along the axis.
        extent: usize,
    },
    /// Elements that the operator cannot take.
    #[error("{op}: {problem}")]
    Value {
        /// Operator.
        op: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// An operator that only the host's engine knows.
    #[error("{0}: runs on the host's engine only")]
    Host(&'static str),
    /// An output of more than 2^31 elements.
    #[error("{op}: an output of shape {shape:?} has more than 2^31 elements")]
    TooLarge {
        /// Operator.
        op: &'static str,
        /// Shape of the output.
        shape: Vec<usize>,
    },
}

impl KernelError {
    pub(crate) fn value(op: &'static str, problem: impl std::fmt::Display) -> Self {
        KernelError::Value { op, problem: problem.to_string() }
    }

    pub(crate) fn shape(op: &'static str, problem: String) -> Self {
        KernelError::Shape(ShapeError { op, problem })
    }
}
