//! Tensors: an element type, a shape and shared little-endian bytes, which may lie in a mapped file.
//!
//! A [`Tensor`] is cheap to clone. Its bytes need no alignment (a weight in a mapped ONNX file may start anywhere);
//! typed access borrows when the bytes happen to be aligned and copies when they are not.

mod archive;
mod dtype;
mod file;
mod npy;
mod path;
mod tensor;

pub use archive::{
    ArchiveError, decode_safetensors, decode_safetensors_metadata, read_safetensors,
    safetensors_metadata, write_safetensors,
};
pub use dtype::DType;
pub use file::{MappedFile, map_file};
pub use npy::{NpyError, read_npy, write_npy};
pub use path::{PathError, check_relative};
pub use tensor::{Tensor, TensorError, element_count};
