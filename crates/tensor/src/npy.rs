//! numpy's `.npy` format, versions 1.0 and 2.0, C order, little-endian.

use crate::{DType, Tensor, TensorError};
use bytes::Bytes;
use std::io::{self, Write};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Why bytes are not an npy file that rockshard reads.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// The magic, the version or the header dictionary is not as numpy writes it.
    #[error("not an npy file: {0}")]
    Header(&'static str),
    /// The element type has no counterpart here.
    #[error("npy element type {0:?} is not supported (use float32, float16, int64, int32 or bool)")]
    Type(String),
    /// Data and header disagree.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Read an npy file held in `data`; the tensor shares its bytes.
///
/// # Errors
/// The header is malformed, Fortran-ordered or of an unsupported type, or the data has another length.
pub fn read_npy(data: &Bytes) -> Result<Tensor, NpyError> {
    if data.len() < 10 || &data[..6] != MAGIC {
        return Err(NpyError::Header("no npy magic"));
    }
    let (start, length) = match data[6] {
        1 => (10, u16::from_le_bytes([data[8], data[9]]) as usize),
        2 if data.len() >= 12 => {
            (12, u32::from_le_bytes([data[8], data[9], data[10], data[11]]) as usize)
        }
        _ => return Err(NpyError::Header("unknown version")),
    };
    let end = start + length;
    let header = data
        .get(start..end)
        .and_then(|h| std::str::from_utf8(h).ok())
        .ok_or(NpyError::Header("cut short"))?;
    if field(header, "fortran_order")?.starts_with("True") {
        return Err(NpyError::Header("Fortran order; save a C-ordered array"));
    }
    let descr = field(header, "descr")?.trim_start_matches(['\'', '"']);
    let descr = descr.split(['\'', '"']).next().unwrap_or_default();
    let dtype = match descr {
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        "|b1" => DType::Bool,
        other => return Err(NpyError::Type(other.to_owned())),
    };
    let shape = field(header, "shape")?;
    let shape = shape
        .strip_prefix('(')
        .and_then(|s| s.split(')').next())
        .ok_or(NpyError::Header("no shape"))?;
    let shape = shape
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().map_err(|_| NpyError::Header("bad extent")))
        .collect::<Result<Vec<usize>, _>>()?;
    Ok(Tensor::new(dtype, shape, data.slice(end..))?)
}

fn field<'a>(header: &'a str, name: &'static str) -> Result<&'a str, NpyError> {
    let at = header.find(&format!("'{name}'")).ok_or(NpyError::Header("a key is missing"))?;
    let rest = &header[at + name.len() + 2..];
    Ok(rest
        .trim_start()
        .strip_prefix(':')
        .ok_or(NpyError::Header("a key has no value"))?
        .trim_start())
}

/// Write a tensor as npy version 1.0.
///
/// # Errors
/// Writing fails.
pub fn write_npy(tensor: &Tensor, out: &mut impl Write) -> io::Result<()> {
    let descr = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::Bool => "|b1",
    };
    let extents: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        extents.trim_end()
    );
    let padding = (64 - (10 + header.len() + 1) % 64) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(tensor.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_read_back() {
        for tensor in [
            Tensor::from_f32([2, 3], vec![0.0, 1.0, -2.5, 3.0, f32::INFINITY, 5.0]),
            Tensor::from_i64([1], vec![-7]),
            Tensor::from_bool([3], vec![true, false, true]),
            Tensor::scalar(4.0),
        ] {
            let mut file = Vec::new();
            write_npy(&tensor, &mut file).unwrap();
            assert_eq!((file.len() - tensor.bytes().len()) % 64, 0);
            assert_eq!(read_npy(&Bytes::from(file)).unwrap(), tensor);
        }
    }

    #[test]
    fn every_prefix_is_an_error() {
        let mut file = Vec::new();
        write_npy(&Tensor::from_i32([2], vec![1, 2]), &mut file).unwrap();
        for n in 0..file.len() {
            assert!(read_npy(&Bytes::copy_from_slice(&file[..n])).is_err(), "prefix of {n} bytes");
        }
    }
}
