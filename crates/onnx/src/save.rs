//! Writing a model: the graph in one file, its weights in another beside it. [`Weights`] gathers them while a graph is built, and equal
//! ones are stored once.

use crate::schema::{
    ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation,
    tensor_proto::DataType,
};
use prost::Message;
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Ending of a model's external data file: `NAME.onnx` has its weights in `NAME.onnx_data`.
pub const DATA_SUFFIX: &str = "_data";

/// Bytes from which a tensor goes to the data file.
const INLINE_LIMIT: usize = 256;
const ALIGNMENT: u64 = 64;

/// Collects initializers for a model that is being written: small ones inline, large ones for the data file, equal ones
/// (same mapped bytes) once.
#[derive(Default)]
pub struct Weights {
    tensors: Vec<Tensor>,
    places: HashMap<(*const u8, usize), u64>,
    end: u64,
}

impl Weights {
    /// The initializer message for a tensor, in the model file `file_name`.
    pub fn initializer(&mut self, name: &str, tensor: &Tensor, file_name: &str) -> TensorProto {
        let data_type = match tensor.dtype() {
            DType::F32 => DataType::Float,
            DType::F16 => DataType::Float16,
            DType::I64 => DataType::Int64,
            DType::I32 => DataType::Int32,
            DType::Bool => DataType::Bool,
        };
        let mut proto = TensorProto {
            name: Some(name.to_owned()),
            dims: tensor.shape().iter().map(|&d| d as i64).collect(),
            data_type: Some(data_type as i32),
            ..TensorProto::default()
        };
        let bytes = tensor.bytes();
        if bytes.len() < INLINE_LIMIT {
            proto.raw_data = Some(bytes.clone());
            return proto;
        }
        let offset = *self.places.entry((bytes.as_ptr(), bytes.len())).or_insert_with(|| {
            let offset = self.end.next_multiple_of(ALIGNMENT);
            self.end = offset + bytes.len() as u64;
            self.tensors.push(tensor.clone());
            offset
        });
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        proto.data_location = Some(DataLocation::External as i32);
        proto.external_data = vec![
            entry("location", format!("{file_name}{DATA_SUFFIX}")),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ];
        proto
    }
}

/// Write a model and, when it has large weights, its data file beside it. They are not synced to disk:
/// a pack's digests show whether a file is whole.
///
/// # Errors
/// Writing fails (for example, the disk is full); the caller removes what was written.
pub fn save(proto: &ModelProto, weights: &Weights, path: &Path) -> io::Result<()> {
    write_file(path, |out| out.write_all(&proto.encode_to_vec()))?;
    if weights.tensors.is_empty() {
        return Ok(());
    }
    let mut data = path.as_os_str().to_owned();
    data.push(DATA_SUFFIX);
    write_file(Path::new(&data), |out| {
        let mut at = 0u64;
        for tensor in &weights.tensors {
            let start = at.next_multiple_of(ALIGNMENT);
            out.write_all(&[0; ALIGNMENT as usize][..(start - at) as usize])?;
            out.write_all(tensor.bytes())?;
            at = start + tensor.bytes().len() as u64;
        }
        Ok(())
    })
}

fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    fill(&mut out)?;
    out.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
}
