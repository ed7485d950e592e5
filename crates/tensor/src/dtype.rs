//! Element types: the few that graphs of this project have, spelled as numpy does wherever they are written.

use serde::{Deserialize, Serialize};

/// Element type of a tensor. Serialised as numpy spells it (`float16`, `int64`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    #[serde(rename = "float32")]
    F32,
    /// IEEE 754 binary16, the NPU's storage type.
    #[serde(rename = "float16")]
    F16,
    /// Signed 64-bit integer (ONNX indices and shapes).
    #[serde(rename = "int64")]
    I64,
    /// Signed 32-bit integer.
    #[serde(rename = "int32")]
    I32,
    /// One byte a value, 0 or 1.
    #[serde(rename = "bool")]
    Bool,
}

impl DType {
    /// Bytes one element takes.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool => 1,
            DType::F16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::I64 => 8,
        }
    }

    /// Whether values of this type are real numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::Bool => "bool",
        })
    }
}
