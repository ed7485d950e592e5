//! Named tensors in one file, in the safetensors format.

use crate::{DType, MappedFile, Tensor};
use bytes::Bytes;
use half::bf16;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Why a safetensors file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be opened or mapped.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Not a safetensors file, or cut short.
    #[error("{path}: not a safetensors file, or cut short ({source})")]
    Format {
        /// File.
        path: PathBuf,
        /// Cause.
        source: SafeTensorError,
    },
    /// A tensor of a type without a counterpart here.
    #[error(
        "{path}: tensor {tensor:?} has element type {found}; float64, float32, float16, bfloat16, int64, int32 and bool are read"
    )]
    Type {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Type as the format names it.
        found: String,
    },
}

/// Read all tensors of a safetensors file. They share its mapped bytes, but for bfloat16 and float64, which become float32.
///
/// # Errors
/// The file cannot be read, is malformed, or holds an element type that is not supported.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Tensor>, ArchiveError> {
    decode_safetensors(&mapped(path)?, path)
}

/// Read all tensors of a safetensors file's bytes, as [`read_safetensors`]; errors name it by `path`.
///
/// # Errors
/// They are malformed, or hold an element type that is not supported.
pub fn decode_safetensors(
    bytes: &Bytes,
    path: &Path,
) -> Result<BTreeMap<String, Tensor>, ArchiveError> {
    let archive = SafeTensors::deserialize(bytes)
        .map_err(|source| ArchiveError::Format { path: path.to_owned(), source })?;
    archive
        .iter()
        .map(|(name, view)| Ok((name.to_owned(), tensor(bytes, name, &view, path)?)))
        .collect()
}

/// The free-form metadata of a safetensors file; empty when it has none.
///
/// # Errors
/// The file cannot be read or is malformed.
pub fn safetensors_metadata(path: &Path) -> Result<HashMap<String, String>, ArchiveError> {
    decode_safetensors_metadata(&mapped(path)?, path)
}

/// The free-form metadata of a safetensors file's bytes; errors name it by `path`.
///
/// # Errors
/// They are malformed.
pub fn decode_safetensors_metadata(
    bytes: &Bytes,
    path: &Path,
) -> Result<HashMap<String, String>, ArchiveError> {
    let read = SafeTensors::read_metadata(bytes)
        .map_err(|source| ArchiveError::Format { path: path.to_owned(), source })?;
    Ok(read.1.metadata().clone().unwrap_or_default())
}

fn mapped(path: &Path) -> Result<Bytes, ArchiveError> {
    let file = MappedFile::open(path);
    let file = file.map_err(|source| ArchiveError::Io { path: path.to_owned(), source })?;
    Ok(file.bytes().clone())
}

fn tensor(
    file: &Bytes,
    name: &str,
    view: &TensorView<'_>,
    path: &Path,
) -> Result<Tensor, ArchiveError> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::BOOL => DType::Bool,
        Dtype::BF16 => {
            let values = view.data().as_chunks::<2>().0.iter();
            let values = values.map(|b| bf16::from_le_bytes(*b).to_f32()).collect();
            return Ok(Tensor::from_f32(view.shape(), values));
        }
        Dtype::F64 => {
            let values = view.data().as_chunks::<8>().0.iter();
            let values = values.map(|b| f64::from_le_bytes(*b) as f32).collect();
            return Ok(Tensor::from_f32(view.shape(), values));
        }
        other => {
            return Err(ArchiveError::Type {
                path: path.to_owned(),
                tensor: name.to_owned(),
                found: format!("{other:?}"),
            });
        }
    };
    Ok(Tensor::new(dtype, view.shape().to_vec(), file.slice_ref(view.data()))
        .expect("the format checks lengths"))
}

/// A tensor as the format's writer wants it.
struct Entry(Tensor);

impl View for Entry {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::I64 => Dtype::I64,
            DType::I32 => Dtype::I32,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }

    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

/// Write tensors to a safetensors file.
///
/// # Errors
/// Writing fails.
pub fn write_safetensors(tensors: BTreeMap<String, Tensor>, path: &Path) -> std::io::Result<()> {
    let entries = tensors.into_iter().map(|(name, tensor)| (name, Entry(tensor)));
    safetensors::serialize_to_file(entries, None, path).map_err(|error| match error {
        SafeTensorError::IoError(source) => source,
        other => std::io::Error::other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let tensors: BTreeMap<String, Tensor> = [
            ("a".to_owned(), Tensor::from_f32([2, 2], vec![1.0, -2.5, 3e-7, 4e7])),
            (
                "b".to_owned(),
                Tensor::from_f32([3], vec![1.0, 2.0, 3.0]).to_float(DType::F16).unwrap(),
            ),
            ("c".to_owned(), Tensor::from_i64([1], vec![999])),
            ("d".to_owned(), Tensor::from_bool([2], vec![true, false])),
            ("e".to_owned(), Tensor::from_i32([0, 2], vec![])),
        ]
        .into();
        write_safetensors(tensors.clone(), &path).unwrap();
        let read = read_safetensors(&path).unwrap();
        assert_eq!(read.len(), tensors.len());
        for (name, tensor) in &tensors {
            assert_eq!(
                (read[name].dtype(), read[name].shape(), read[name].bytes()),
                (tensor.dtype(), tensor.shape(), tensor.bytes()),
                "{name}"
            );
        }
        let whole = std::fs::read(&path).unwrap();
        for end in [0, 4, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(matches!(read_safetensors(&path), Err(ArchiveError::Format { .. })), "{end}");
        }
    }
}
