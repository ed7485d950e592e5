//! Reading inputs as f32 a piece at a time, and making outputs in parallel with one rounding.

use crate::convert::{narrow, widen};
use crate::{KernelError, Precision, reuse};
use bytemuck::zeroed_vec;
use half::f16;
use rayon::prelude::*;
use rockshard_tensor::{DType, Tensor};
use std::borrow::Cow;

/// Elements that one thread makes at a time in element-wise work.
pub(crate) const BLOCK: usize = 1 << 14;

/// Real values of an input, widened to f32 as they are read.
pub(crate) enum Source<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
}

impl<'a> Source<'a> {
    /// The values of input number `input`; in [`Precision::F16`] float32 values are rounded to f16.
    pub(crate) fn new(
        op: &'static str,
        input: usize,
        tensor: &'a Tensor,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let wide = tensor.dtype() == DType::F32 && precision == Precision::F32;
        let values =
            if wide { tensor.to_f32().map(Source::F32) } else { tensor.to_f16().map(Source::F16) };
        values.map_err(|_| KernelError::Type {
            op,
            input,
            found: tensor.dtype(),
            expected: "real numbers",
        })
    }

    /// Fill `out` with the values from position `start`.
    pub(crate) fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Source::F32(values) => out.copy_from_slice(&values[start..start + out.len()]),
            Source::F16(values) => widen(&values[start..start + out.len()], out),
        }
    }

    /// One value.
    pub(crate) fn get(&self, at: usize) -> f32 {
        match self {
            Source::F32(values) => values[at],
            Source::F16(values) => values[at].to_f32(),
        }
    }

    /// `count` values from position `start`.
    pub(crate) fn vec(&self, start: usize, count: usize) -> Vec<f32> {
        let mut out = vec![0.0; count];
        self.read(start, &mut out);
        out
    }
}

/// A storage type of real values.
pub(crate) trait Float: Copy + Send + Sync {
    /// A vector of `count` elements of any value, to be overwritten.
    fn buffer(count: usize) -> Vec<Self>;
    /// Convert; to f16 with rounding to nearest even and overflow to infinity.
    fn store(from: &[f32], to: &mut [Self]);
    /// Convert, and add to what is there, rounding as [`Float::store`] both times; spoils `from`.
    fn add(from: &mut [f32], to: &mut [Self]);
    /// A tensor of these values.
    fn tensor(shape: Vec<usize>, values: Vec<Self>) -> Tensor;
}

impl Float for f32 {
    fn buffer(count: usize) -> Vec<Self> {
        zeroed_vec(count)
    }
    fn store(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    fn add(from: &mut [f32], to: &mut [Self]) {
        to.iter_mut().zip(from).for_each(|(sum, v)| *sum += *v);
    }
    fn tensor(shape: Vec<usize>, values: Vec<Self>) -> Tensor {
        Tensor::from_f32(shape, values)
    }
}

impl Float for f16 {
    fn buffer(count: usize) -> Vec<Self> {
        reuse::buffer(count)
    }
    fn store(from: &[f32], to: &mut [Self]) {
        narrow(from, to);
    }
    fn add(from: &mut [f32], to: &mut [Self]) {
        const BLOCK: usize = 256;
        let (mut stored, mut wide) = ([f16::ZERO; BLOCK], [0.0; BLOCK]);
        for (from, to) in from.chunks_mut(BLOCK).zip(to.chunks_mut(BLOCK)) {
            let (stored, wide) = (&mut stored[..from.len()], &mut wide[..from.len()]);
            narrow(from, stored);
            widen(stored, from);
            widen(to, wide);
            from.iter_mut().zip(wide).for_each(|(sum, v)| *sum += *v);
            narrow(from, to);
        }
    }
    fn tensor(shape: Vec<usize>, values: Vec<Self>) -> Tensor {
        Tensor::new(DType::F16, shape, reuse::shared(values))
            .expect("a value for each element of the shape")
    }
}

/// Make a tensor of real values in blocks of `block` elements: `make(start, out)` overwrites all of `out`, which holds
/// the elements from position `start`.
pub(crate) fn fill(
    precision: Precision,
    shape: Vec<usize>,
    block: usize,
    make: impl Fn(usize, &mut [f32]) + Sync,
) -> Tensor {
    let count = shape.iter().product();
    let block = block.max(1);
    match precision {
        Precision::F32 => {
            let mut out = f32::buffer(count);
            if count <= block {
                make(0, &mut out);
            } else {
                out.par_chunks_mut(block).enumerate().for_each(|(i, out)| make(i * block, out));
            }
            f32::tensor(shape, out)
        }
        Precision::F16 => {
            let mut out = f16::buffer(count);
            let piece = |scratch: &mut Vec<f32>, start: usize, out: &mut [f16]| {
                scratch.resize(out.len(), 0.0);
                make(start, scratch);
                f16::store(scratch, out);
            };
            if count <= block {
                piece(&mut Vec::new(), 0, &mut out);
            } else {
                out.par_chunks_mut(block)
                    .enumerate()
                    .for_each_init(Vec::new, |scratch, (i, out)| piece(scratch, i * block, out));
            }
            f16::tensor(shape, out)
        }
    }
}

/// Integers of input number `input`.
pub(crate) fn integers<'a>(
    op: &'static str,
    input: usize,
    tensor: &'a Tensor,
) -> Result<Cow<'a, [i64]>, KernelError> {
    tensor.to_i64().map_err(|_| KernelError::Type {
        op,
        input,
        found: tensor.dtype(),
        expected: "integers",
    })
}

/// A tensor of an integer or bool type; int32 keeps the low 32 bits, bool whether a value is not zero.
pub(crate) fn integer_tensor(dtype: DType, shape: Vec<usize>, values: Vec<i64>) -> Tensor {
    match dtype {
        DType::I32 => Tensor::from_i32(shape, values.into_iter().map(|v| v as i32).collect()),
        DType::Bool => Tensor::from_bool(shape, values.into_iter().map(|v| v != 0).collect()),
        _ => Tensor::from_i64(shape, values),
    }
}
