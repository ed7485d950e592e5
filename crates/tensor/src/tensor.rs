//! Tensors over shared bytes. A tensor does not own its elements, so that a clone, a reshape and a weight of a mapped file copy nothing;
//! bytes may lie at any address, and whoever reads elements gets a copy only where they are not aligned.

use crate::DType;
use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::borrow::Cow;

/// A shape, an element type and the elements, row-major and little-endian, in shared bytes.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

/// Why bytes are not the tensor that was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TensorError {
    /// Byte length and shape disagree.
    #[error("shape {shape:?} of {dtype} takes {expected} bytes, found {found}")]
    Length {
        /// Shape asked for.
        shape: Vec<usize>,
        /// Element type asked for.
        dtype: DType,
        /// Bytes that shape takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The number of elements or bytes does not fit the address space.
    #[error("shape {0:?} has too many elements")]
    TooLarge(Vec<usize>),
    /// The element type is not the one needed.
    #[error("expected {expected} values, found {found}")]
    Type {
        /// What the caller needs.
        expected: &'static str,
        /// What the tensor holds.
        found: DType,
    },
}

/// Elements in a shape; `None` when the product overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

struct Owned<T>(Vec<T>);

impl<T: bytemuck::NoUninit> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn bytes_of<T: bytemuck::NoUninit + Send + 'static>(values: Vec<T>) -> Bytes {
    Bytes::from_owner(Owned(values))
}

fn typed<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(data: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(data) {
        Ok(slice) => Cow::Borrowed(slice),
        Err(_) => Cow::Owned(
            data.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect(),
        ),
    }
}

impl Tensor {
    /// A tensor over existing bytes.
    ///
    /// # Errors
    /// The byte length is not what shape and type take, or the shape overflows.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let expected = element_count(&shape)
            .and_then(|n| n.checked_mul(dtype.size()))
            .ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        if expected != data.len() {
            return Err(TensorError::Length { shape, dtype, expected, found: data.len() });
        }
        Ok(Tensor { dtype, shape, data })
    }

    fn owned<T: bytemuck::NoUninit + Send + 'static>(
        dtype: DType,
        shape: Vec<usize>,
        values: Vec<T>,
    ) -> Self {
        Self::new(dtype, shape, bytes_of(values)).expect("value count matches the shape")
    }

    /// A float32 tensor. Panics when the number of values is not the shape's.
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        Self::owned(DType::F32, shape.into(), values)
    }

    /// A float16 tensor. Panics when the number of values is not the shape's.
    pub fn from_f16(shape: impl Into<Vec<usize>>, values: Vec<f16>) -> Self {
        Self::owned(DType::F16, shape.into(), values)
    }

    /// An int64 tensor. Panics when the number of values is not the shape's.
    pub fn from_i64(shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Self {
        Self::owned(DType::I64, shape.into(), values)
    }

    /// An int32 tensor. Panics when the number of values is not the shape's.
    pub fn from_i32(shape: impl Into<Vec<usize>>, values: Vec<i32>) -> Self {
        Self::owned(DType::I32, shape.into(), values)
    }

    /// A bool tensor. Panics when the number of values is not the shape's.
    pub fn from_bool(shape: impl Into<Vec<usize>>, values: Vec<bool>) -> Self {
        Self::owned(DType::Bool, shape.into(), values.into_iter().map(u8::from).collect())
    }

    /// A float32 scalar (shape `[]`).
    pub fn scalar(value: f32) -> Self {
        Self::from_f32([], vec![value])
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements' bytes, row-major, little-endian.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// The element counts differ.
    pub fn reshape(&self, shape: impl Into<Vec<usize>>) -> Result<Self, TensorError> {
        Self::new(self.dtype, shape.into(), self.data.clone())
    }

    /// Values as f32: float16 is widened (exact), float32 borrowed where aligned.
    ///
    /// # Errors
    /// The tensor does not hold floating-point values.
    pub fn to_f32(&self) -> Result<Cow<'_, [f32]>, TensorError> {
        match self.dtype {
            DType::F32 => Ok(typed(&self.data)),
            DType::F16 => Ok(Cow::Owned(typed::<f16>(&self.data).to_f32_vec())),
            found => Err(TensorError::Type { expected: "floating-point", found }),
        }
    }

    /// Values as f16: float32 is rounded to nearest even, values beyond 65504 becoming infinite.
    ///
    /// # Errors
    /// The tensor does not hold floating-point values.
    pub fn to_f16(&self) -> Result<Cow<'_, [f16]>, TensorError> {
        match self.dtype {
            DType::F16 => Ok(typed(&self.data)),
            DType::F32 => {
                let source = self.to_f32()?;
                let mut out = vec![f16::ZERO; source.len()];
                half::slice::HalfFloatSliceExt::convert_from_f32_slice(&mut out[..], &source);
                Ok(Cow::Owned(out))
            }
            found => Err(TensorError::Type { expected: "floating-point", found }),
        }
    }

    /// Values as i64: int32 and bool are widened.
    ///
    /// # Errors
    /// The tensor holds floating-point values.
    pub fn to_i64(&self) -> Result<Cow<'_, [i64]>, TensorError> {
        match self.dtype {
            DType::I64 => Ok(typed(&self.data)),
            DType::I32 => {
                Ok(Cow::Owned(typed::<i32>(&self.data).iter().map(|&v| v.into()).collect()))
            }
            DType::Bool => Ok(Cow::Owned(self.data.iter().map(|&v| v.into()).collect())),
            found => Err(TensorError::Type { expected: "integer", found }),
        }
    }

    /// The tensor with another floating-point storage type (rounded to nearest even on the way to float16).
    ///
    /// # Errors
    /// Either type is not floating-point.
    pub fn to_float(&self, dtype: DType) -> Result<Self, TensorError> {
        match dtype {
            _ if dtype == self.dtype => Ok(self.clone()),
            DType::F32 => Ok(Self::from_f32(self.shape.clone(), self.to_f32()?.into_owned())),
            DType::F16 => Ok(Self::from_f16(self.shape.clone(), self.to_f16()?.into_owned())),
            found => Err(TensorError::Type { expected: "floating-point", found }),
        }
    }

    /// The tensor with its bytes copied into memory that nothing else holds, aligned for its type.
    pub fn detached(&self) -> Self {
        match self.dtype {
            DType::F32 => Self::from_f32(self.shape.clone(), typed::<f32>(&self.data).into_owned()),
            DType::F16 => Self::from_f16(self.shape.clone(), typed::<f16>(&self.data).into_owned()),
            DType::I64 => Self::from_i64(self.shape.clone(), typed::<i64>(&self.data).into_owned()),
            DType::I32 => Self::from_i32(self.shape.clone(), typed::<i32>(&self.data).into_owned()),
            DType::Bool => Tensor { data: Bytes::copy_from_slice(&self.data), ..self.clone() },
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_shape_must_agree() {
        let error = Tensor::new(DType::F32, vec![2, 2], Bytes::from_static(&[0; 15])).unwrap_err();
        assert_eq!(error.to_string(), "shape [2, 2] of float32 takes 16 bytes, found 15");
        assert!(Tensor::new(DType::I64, vec![usize::MAX, 2], Bytes::new()).is_err());
    }

    #[test]
    fn unaligned_bytes_read_the_same() {
        let values: Vec<f32> = (0..9).map(|v| v as f32 * 0.5).collect();
        let mut shifted = vec![7u8];
        shifted.extend_from_slice(bytemuck::cast_slice(&values));
        let t = Tensor::new(DType::F32, vec![9], Bytes::from(shifted).slice(1..)).unwrap();
        assert_eq!(&*t.to_f32().unwrap(), &values[..]);
        assert_eq!(bytemuck::try_cast_slice(t.detached().bytes()), Ok(&values[..]));
    }

    #[test]
    fn f16_rounds_to_nearest_even_and_overflows_to_infinity() {
        let t = Tensor::from_f32([4], vec![65519.0, 65520.0, 2049.0, -5.96e-8]);
        let h = t.to_float(DType::F16).unwrap();
        assert_eq!(&*h.to_f32().unwrap(), &[65504.0, f32::INFINITY, 2048.0, -5.9604645e-8]);
    }
}
