//! Reading a model that nobody vouches for. The graph is decoded; weights stay in their mapped file and are looked at when they are asked
//! for, within the bounds of that file and below the model's directory.

use crate::schema::{ModelProto, TensorProto, tensor_proto::DataLocation, tensor_proto::DataType};
use bytes::Bytes;
use prost::Message;
use rockshard_tensor::{
    DType, MappedFile, PathError, Tensor, TensorError, check_relative, element_count,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Why an ONNX file or a tensor of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be opened or mapped.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Not a protobuf of the ONNX schema.
    #[error("{path}: not an ONNX model, or cut short ({source})")]
    Decode {
        /// File.
        path: PathBuf,
        /// Cause, with the message and field.
        source: prost::DecodeError,
    },
    /// The model has no graph.
    #[error("{path}: the model has no graph")]
    NoGraph {
        /// File.
        path: PathBuf,
    },
    /// A tensor of a type without a counterpart here.
    #[error("tensor {tensor:?}: element type {code} is not supported")]
    Type {
        /// Tensor.
        tensor: String,
        /// ONNX's number of the type.
        code: i32,
    },
    /// Extents below zero.
    #[error("tensor {tensor:?}: shape {dims:?} has a negative extent")]
    Shape {
        /// Tensor.
        tensor: String,
        /// Extents as stored.
        dims: Vec<i64>,
    },
    /// Data of another length than the shape takes.
    #[error("tensor {tensor:?}: {source}")]
    Length {
        /// Tensor.
        tensor: String,
        /// Lengths.
        source: TensorError,
    },
    /// External data in a place that is refused.
    #[error("tensor {tensor:?}: external data: {source}")]
    Escape {
        /// Tensor.
        tensor: String,
        /// The path.
        source: PathError,
    },
    /// An external data entry that is not a number.
    #[error("tensor {tensor:?}: external data has {key} {value:?}, which is no byte count")]
    Entry {
        /// Tensor.
        tensor: String,
        /// Entry.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// External data file that is not there.
    #[error("tensor {tensor:?}: external data file {path}: {source}")]
    External {
        /// Tensor.
        tensor: String,
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// External data file too short.
    #[error("tensor {tensor:?}: needs bytes {offset}..{end} of {path}, which has {size}")]
    Short {
        /// Tensor.
        tensor: String,
        /// File.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes in the file.
        size: u64,
    },
}

/// A decoded model and the directory its external data lies in.
#[derive(Clone)]
pub struct Model {
    /// The message; always has a graph.
    pub proto: ModelProto,
    path: PathBuf,
    /// Mapped files by their location in external data; the model's own under the empty name.
    files: Arc<Mutex<HashMap<String, MappedFile>>>,
}

/// Decode an ONNX file. Weights stay in the mapped file; external data is mapped when a tensor needs it.
///
/// # Errors
/// The file cannot be read, or is not a model with a graph.
pub fn load(path: &Path) -> Result<Model, OnnxError> {
    let file =
        MappedFile::open(path).map_err(|source| OnnxError::Io { path: path.to_owned(), source })?;
    let model = Model::decode(file.bytes().clone(), path)?;
    model.files().insert(String::new(), file);
    Ok(model)
}

impl Model {
    /// Decode a model held in memory; `path` is where it says it comes from, and external data is looked up beside it.
    ///
    /// # Errors
    /// As [`load`].
    pub fn decode(bytes: Bytes, path: &Path) -> Result<Self, OnnxError> {
        let proto = ModelProto::decode(bytes)
            .map_err(|source| OnnxError::Decode { path: path.to_owned(), source })?;
        if proto.graph.is_none() {
            return Err(OnnxError::NoGraph { path: path.to_owned() });
        }
        Ok(Model { proto, path: path.to_owned(), files: Arc::default() })
    }

    /// Where the model was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<String, MappedFile>> {
        self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Take the weights read so far out of memory; they are read again from their files when they are next needed.
    pub fn release_pages(&self) {
        self.files().values().for_each(MappedFile::release_pages);
    }

    /// Version of the standard operator set; 1 where the file does not say.
    pub fn opset(&self) -> i64 {
        let standard = |d: &str| d.is_empty() || d == "ai.onnx";
        let version =
            self.proto.opset_import.iter().find(|o| standard(o.domain.as_deref().unwrap_or("")));
        version.and_then(|o| o.version).unwrap_or(1)
    }

    /// A tensor of the model. float64 and bfloat16 become float32, 8- and 16-bit integers int32, unsigned 64-bit ones int64.
    ///
    /// # Errors
    /// An unsupported type, data of the wrong length, external data that is missing, short or outside the directory.
    pub fn tensor(&self, proto: &TensorProto) -> Result<Tensor, OnnxError> {
        let (kind, shape, raw) = self.stored(proto)?;
        Ok(convert(kind, shape, raw))
    }

    /// The message with all weights of its graph in it, for whoever cannot read the files beside it.
    ///
    /// # Errors
    /// As [`Model::tensor`].
    pub fn whole(&self) -> Result<ModelProto, OnnxError> {
        let mut proto = self.proto.clone();
        for tensor in proto.graph.iter_mut().flat_map(|g| &mut g.initializer) {
            if tensor.data_location == Some(DataLocation::External as i32) {
                tensor.raw_data = Some(self.stored(tensor)?.2);
                tensor.data_location = None;
                tensor.external_data.clear();
            }
        }
        Ok(proto)
    }

    /// A tensor's type, shape, and bytes of the length that both take.
    fn stored(&self, proto: &TensorProto) -> Result<(DataType, Vec<usize>, Bytes), OnnxError> {
        let name = || proto.name.clone().unwrap_or_default();
        let shape: Option<Vec<usize>> =
            proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape =
            shape.ok_or_else(|| OnnxError::Shape { tensor: name(), dims: proto.dims.clone() })?;
        let code = proto.data_type.unwrap_or_default();
        let kind =
            DataType::try_from(code).map_err(|_| OnnxError::Type { tensor: name(), code })?;
        let wide = |source| OnnxError::Length { tensor: name(), source };
        let count =
            element_count(&shape).ok_or_else(|| wide(TensorError::TooLarge(shape.clone())))?;
        let stored = match kind {
            DataType::Bool | DataType::Int8 | DataType::Uint8 => 1,
            DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 2,
            DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
            DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
            _ => return Err(OnnxError::Type { tensor: name(), code }),
        };
        let size =
            count.checked_mul(stored).ok_or_else(|| wide(TensorError::TooLarge(shape.clone())))?;
        let raw = if proto.data_location == Some(DataLocation::External as i32) {
            self.external(proto, size)?
        } else if let Some(raw) = &proto.raw_data {
            raw.clone()
        } else {
            typed_fields(proto, kind)
        };
        if raw.len() != size {
            let dtype = if stored == 2 { DType::F16 } else { DType::F32 };
            return Err(wide(TensorError::Length {
                shape,
                dtype,
                expected: size,
                found: raw.len(),
            }));
        }
        Ok((kind, shape, raw))
    }

    fn external(&self, proto: &TensorProto, size: usize) -> Result<Bytes, OnnxError> {
        let tensor = || proto.name.clone().unwrap_or_default();
        let entry = |key: &str| {
            proto
                .external_data
                .iter()
                .find(|e| e.key.as_deref() == Some(key))
                .and_then(|e| e.value.clone())
        };
        let number = |key: &'static str| match entry(key) {
            None => Ok(None),
            Some(value) => match value.parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(OnnxError::Entry { tensor: tensor(), key, value }),
            },
        };
        let location = entry("location").unwrap_or_default();
        let relative = check_relative(&location)
            .map_err(|source| OnnxError::Escape { tensor: tensor(), source })?;
        let path = self.path.parent().unwrap_or(Path::new("")).join(relative);
        let mut files = self.files();
        let file = match files.get(&location) {
            Some(file) => file.bytes().clone(),
            None => {
                let file = MappedFile::open(&path).map_err(|source| OnnxError::External {
                    tensor: tensor(),
                    path: path.clone(),
                    source,
                })?;
                files.entry(location).or_insert(file).bytes().clone()
            }
        };
        drop(files);
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(size as u64);
        let end = offset.saturating_add(length);
        if end > file.len() as u64 {
            return Err(OnnxError::Short {
                tensor: tensor(),
                path,
                offset,
                end,
                size: file.len() as u64,
            });
        }
        Ok(file.slice(offset as usize..end as usize))
    }
}

/// The bytes of a tensor stored in the typed fields instead of `raw_data`.
fn typed_fields(proto: &TensorProto, kind: DataType) -> Bytes {
    let bytes: Vec<u8> = match kind {
        DataType::Float => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Double => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Uint64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Uint32 => {
            proto.uint64_data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect()
        }
        DataType::Int32 => proto.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => {
            proto.int32_data.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()
        }
        _ => proto.int32_data.iter().map(|&v| v as u8).collect(),
    };
    Bytes::from(bytes)
}

/// A tensor of a supported type; `raw` has the length that `kind` and `shape` take.
fn convert(kind: DataType, shape: Vec<usize>, raw: Bytes) -> Tensor {
    let dtype = match kind {
        DataType::Float => DType::F32,
        DataType::Float16 => DType::F16,
        DataType::Int64 | DataType::Uint64 => DType::I64,
        DataType::Int32 | DataType::Uint32 => DType::I32,
        DataType::Bool => DType::Bool,
        DataType::Double => {
            let values =
                raw.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect();
            return Tensor::from_f32(shape, values);
        }
        DataType::Bfloat16 => {
            let values = raw
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes([0, 0, b[0], b[1]]))
                .collect();
            return Tensor::from_f32(shape, values);
        }
        DataType::Int16 => {
            let values =
                raw.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b).into()).collect();
            return Tensor::from_i32(shape, values);
        }
        DataType::Uint16 => {
            let values =
                raw.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b).into()).collect();
            return Tensor::from_i32(shape, values);
        }
        DataType::Int8 => {
            return Tensor::from_i32(shape, raw.iter().map(|&b| (b as i8).into()).collect());
        }
        _ => return Tensor::from_i32(shape, raw.iter().map(|&b| b.into()).collect()),
    };
    Tensor::new(dtype, shape, raw).expect("length was checked")
}
