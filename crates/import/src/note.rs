//! What was noticed about a file, or done to it, while it was read.

use crate::given::ones;
use rockshard_tensor::{DType, Tensor};
use std::fmt;

/// Something about a file that its user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Indices that are real numbers, which ONNX does not allow: they are read as whole ones. TorchScript's exporter writes them for the
    /// position ids of SmolVLM's vision encoder.
    RealIndices {
        /// The node that reads them.
        node: String,
        /// Its output.
        output: String,
        /// Which of its inputs they are.
        input: usize,
    },
    /// Position ids of a whole picture in which every row and column but the first is one too low, as they come of a division that was
    /// rounded down: they are read as 0, 1, 2, ....
    PositionIds {
        /// The node that looks positions up.
        node: String,
        /// Its output.
        output: String,
        /// Shape of the ids.
        shape: Vec<usize>,
    },
    /// Position ids of a whole picture that are not 0, 1, 2, ... and not wrong in a way that is known: they are read as they are.
    OtherPositionIds {
        /// The node that looks positions up.
        node: String,
    },
    /// A mask that was given to show everything, which is a constant.
    Ones {
        /// The input of the file.
        input: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Nodes that leave empty pictures out, of pictures that were given to be none.
    Pictures {
        /// The node that asks whether a picture is empty.
        node: String,
    },
    /// Products whose weights are stored in a few bits: they are read as float32.
    Dequantised {
        /// Bits of a weight.
        bits: usize,
        /// Weights that share a scale.
        block: usize,
        /// Products.
        products: usize,
    },
}

impl Note {
    /// Whether what was read is not what the file says, since that is wrong.
    pub fn is_repair(&self) -> bool {
        matches!(self, Note::RealIndices { .. } | Note::PositionIds { .. })
    }

    /// An input that the graph no longer has, with what an engine that runs the file itself is to be fed for it.
    pub fn fed(&self) -> Option<(&str, Tensor)> {
        match self {
            Note::Ones { input, dtype, shape } => Some((input, ones(*dtype, shape)?)),
            _ => None,
        }
    }
}

/// What kind of note it is, and the note.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::RealIndices { node, .. } => write!(
                f,
                "repaired: node {node:?} has real numbers as indices, which ONNX does not allow and other engines refuse; they are read as \
                 whole numbers"
            ),
            Note::PositionIds { node, .. } => write!(
                f,
                "repaired: node {node:?} has position ids of which every row and column but the first is one too low, by a rounding error \
                 of transformers 4.55.1 and some later releases; they are read as 0, 1, 2, ..."
            ),
            Note::OtherPositionIds { node } => write!(
                f,
                "unusual: node {node:?} has position ids that are not 0, 1, 2, ..., nor wrong in a way that is known; they are read as they \
                 are"
            ),
            Note::Ones { input, .. } => write!(
                f,
                "constant: input {input:?} is 1 throughout, since pictures fill their views, and no input of the pack"
            ),
            Note::Pictures { node } => write!(
                f,
                "constant: node {node:?} asks for pictures that are 0 throughout, of which there are none, so that none is left out"
            ),
            Note::Dequantised { bits, block, products } => write!(
                f,
                "dequantised: the weights of {products} products, {bits} bits each in blocks of {block}, are read as real numbers"
            ),
        }
    }
}
