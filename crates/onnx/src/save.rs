//! Writing a model: the graph in one file, its weights in another beside it. [`Weights`] gathers them while a graph is built, and equal
//! ones are stored once.

use crate::schema::{
    ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation,
    tensor_proto::DataType,
};
use bytes::Bytes;
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
/// (same mapped bytes, stored in the same type) once.
#[derive(Default)]
pub struct Weights {
    /// With the type that each is stored in.
    tensors: Vec<(Tensor, DType)>,
    places: HashMap<(*const u8, usize, DType), u64>,
    end: u64,
}

impl Weights {
    /// The initializer message for a tensor, in the model file `file_name`.
    pub fn initializer(&mut self, name: &str, tensor: &Tensor, file_name: &str) -> TensorProto {
        self.stored(name, tensor, tensor.dtype(), file_name)
    }

    /// The same for a float32 tensor that is rounded to float16 as it is written.
    pub fn narrow_initializer(
        &mut self,
        name: &str,
        tensor: &Tensor,
        file_name: &str,
    ) -> TensorProto {
        debug_assert_eq!(tensor.dtype(), DType::F32);
        self.stored(name, tensor, DType::F16, file_name)
    }

    fn stored(
        &mut self,
        name: &str,
        tensor: &Tensor,
        dtype: DType,
        file_name: &str,
    ) -> TensorProto {
        let data_type = match dtype {
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
        let size = tensor.len() * dtype.size();
        if size < INLINE_LIMIT {
            let narrowed = || tensor.to_float(dtype).map(|t| t.bytes().clone()).ok();
            let own = dtype == tensor.dtype();
            proto.raw_data = if own { Some(bytes.clone()) } else { narrowed() };
            return proto;
        }
        let offset =
            *self.places.entry((bytes.as_ptr(), bytes.len(), dtype)).or_insert_with(|| {
                let offset = self.end.next_multiple_of(ALIGNMENT);
                self.end = offset + size as u64;
                self.tensors.push((tensor.clone(), dtype));
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
            entry("length", size.to_string()),
        ];
        proto
    }
}

/// Bytes of weights that are read between two calls of `read`.
const READ: usize = 32 << 20;
/// Elements that are written at a time.
const BLOCK: usize = 1 << 18;
/// Bytes of small pieces that are gathered; a block is larger in any type but bool, and is written without being copied.
const GATHERED: usize = 1 << 18;

/// Write a model and, when it has large weights, its data file beside it. They are not synced to disk:
/// a pack's digests show whether a file is whole. `read` is told again and again that weights were read, so that their pages can be given
/// back.
///
/// # Errors
/// Writing fails (for example, the disk is full); the caller removes what was written.
pub fn save(proto: &ModelProto, weights: &Weights, path: &Path, read: &dyn Fn()) -> io::Result<()> {
    write_file(path, |out| out.write_all(&proto.encode_to_vec()))?;
    if weights.tensors.is_empty() {
        return Ok(());
    }
    let mut data = path.as_os_str().to_owned();
    data.push(DATA_SUFFIX);
    write_file(Path::new(&data), |out| {
        let (mut at, mut since) = (0u64, 0);
        for (tensor, dtype) in &weights.tensors {
            let start = at.next_multiple_of(ALIGNMENT);
            out.write_all(&[0; ALIGNMENT as usize][..(start - at) as usize])?;
            let block = BLOCK * tensor.dtype().size();
            for block in tensor.bytes().chunks(block) {
                if *dtype == tensor.dtype() {
                    out.write_all(block)?;
                } else {
                    out.write_all(&narrowed(tensor, block)?)?;
                }
                since += block.len();
                if since >= READ {
                    read();
                    since = 0;
                }
            }
            at = start + (tensor.len() * dtype.size()) as u64;
        }
        read();
        Ok(())
    })
}

/// Some of a float32 tensor's elements, in float16.
fn narrowed(tensor: &Tensor, block: &[u8]) -> io::Result<Bytes> {
    let part = tensor.bytes().slice_ref(block);
    let count = block.len() / tensor.dtype().size();
    Tensor::new(tensor.dtype(), vec![count], part)
        .and_then(|part| part.to_float(DType::F16))
        .map(|part| part.bytes().clone())
        .map_err(io::Error::other)
}

fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(GATHERED, File::create(path)?);
    fill(&mut out)?;
    out.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
}
