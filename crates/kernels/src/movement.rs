//! Operators that move elements without looking at them: every storage type, every bit kept.

use crate::data::{BLOCK, integers};
use crate::walk::{Walk, broadcast_strides, strides};
use crate::{KernelError, Precision};
use bytes::Bytes;
use half::f16;
use rayon::prelude::*;
use rockshard_tensor::{DType, Tensor};
use std::borrow::Cow;

/// A tensor of `shape` whose element at each position lies at the given strides from element `base` of `x`.
fn strided(
    op: &'static str,
    x: &Tensor,
    shape: Vec<usize>,
    steps: Vec<usize>,
    base: usize,
) -> Result<Tensor, KernelError> {
    let bytes = match x.dtype().size() {
        1 => copy::<1>(x.bytes(), &shape, steps, base),
        2 => copy::<2>(x.bytes(), &shape, steps, base),
        4 => copy::<4>(x.bytes(), &shape, steps, base),
        _ => copy::<8>(x.bytes(), &shape, steps, base),
    };
    finish(op, x.dtype(), shape, bytes)
}

fn finish(
    op: &'static str,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
) -> Result<Tensor, KernelError> {
    Tensor::new(dtype, shape, Bytes::from(bytes)).map_err(|e| KernelError::value(op, e))
}

fn copy<const SIZE: usize>(
    bytes: &[u8],
    shape: &[usize],
    steps: Vec<usize>,
    base: usize,
) -> Vec<u8> {
    let from = bytes.as_chunks::<SIZE>().0;
    let count: usize = shape.iter().product();
    let mut out = vec![[0u8; SIZE]; count];
    let walk = Walk::new(shape, [steps]);
    let piece = |start: usize, out: &mut [[u8; SIZE]]| {
        walk.visit(start, out.len(), |done, n, [at]| {
            let out = &mut out[done..done + n];
            let from = &from[base + at..];
            match walk.step[0] {
                0 => out.fill(from[0]),
                1 => out.copy_from_slice(&from[..n]),
                step => {
                    out.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from)
                }
            }
        });
    };
    if count <= BLOCK {
        piece(0, &mut out);
    } else {
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, out)| piece(i * BLOCK, out));
    }
    out.into_flattened()
}

/// Axis `i` of the result is axis `perm[i]` of `x`.
pub(crate) fn transpose(x: &Tensor, perm: &[usize]) -> Result<Tensor, KernelError> {
    let own = strides(x.shape());
    strided(
        "Transpose",
        x,
        perm.iter().map(|&p| x.shape()[p]).collect(),
        perm.iter().map(|&p| own[p]).collect(),
        0,
    )
}

/// Elements `begin, begin + step, ...` of every axis.
pub(crate) fn slice(
    x: &Tensor,
    begin: &[usize],
    step: &[usize],
    shape: Vec<usize>,
) -> Result<Tensor, KernelError> {
    let own = strides(x.shape());
    let base = begin.iter().zip(&own).map(|(b, s)| b * s).sum();
    strided("Slice", x, shape, step.iter().zip(&own).map(|(k, s)| k * s).collect(), base)
}

/// Repeat along axes of extent 1.
pub(crate) fn expand(op: &'static str, x: &Tensor, shape: &[usize]) -> Result<Tensor, KernelError> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    strided(op, x, shape.to_vec(), broadcast_strides(x.shape(), shape), 0)
}

/// The tensors in one storage type: their own where they agree, else the precision's for real values.
fn alike<'a>(
    op: &'static str,
    first: usize,
    inputs: &[&'a Tensor],
    precision: Precision,
) -> Result<Vec<Cow<'a, Tensor>>, KernelError> {
    let dtype = inputs[0].dtype();
    if inputs.iter().all(|t| t.dtype() == dtype) {
        return Ok(inputs.iter().map(|t| Cow::Borrowed(*t)).collect());
    }
    let expected =
        if dtype.is_float() { "real numbers, as the others" } else { "the type of the others" };
    (inputs.iter().enumerate())
        .map(|(i, t)| match t.to_float(precision.dtype()) {
            Ok(tensor) if dtype.is_float() => Ok(Cow::Owned(tensor)),
            _ if t.dtype() == dtype => Ok(Cow::Borrowed(*t)),
            _ => Err(KernelError::Type { op, input: first + i, found: t.dtype(), expected }),
        })
        .collect()
}

/// Join along `axis`.
pub(crate) fn concat(
    inputs: &[&Tensor],
    axis: usize,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let parts = alike("Concat", 0, inputs, precision)?;
    let dtype = parts[0].dtype();
    let row = |shape: &[usize]| shape[axis..].iter().product::<usize>() * dtype.size();
    let mut out = Vec::with_capacity(shape.iter().product::<usize>() * dtype.size());
    for i in 0..shape[..axis].iter().product() {
        for part in &parts {
            let n = row(part.shape());
            out.extend_from_slice(&part.bytes()[i * n..(i + 1) * n]);
        }
    }
    finish("Concat", dtype, shape, out)
}

/// Entries of `x` along `axis` in the order of `indices`; negative ones count from the end.
pub(crate) fn gather(
    x: &Tensor,
    indices: &Tensor,
    axis: usize,
    shape: Vec<usize>,
) -> Result<Tensor, KernelError> {
    let extent = x.shape()[axis];
    let chosen = (integers("Gather", 1, indices)?.iter())
        .map(|&index| {
            let from_start =
                if index < 0 { index.saturating_add_unsigned(extent as u64) } else { index };
            let valid = usize::try_from(from_start).ok().filter(|&i| i < extent);
            valid.ok_or(KernelError::Index { op: "Gather", index, extent })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let entry = x.shape()[axis + 1..].iter().product::<usize>() * x.dtype().size();
    let mut out = Vec::with_capacity(shape.iter().product::<usize>() * x.dtype().size());
    for i in 0..x.shape()[..axis].iter().product() {
        for &index in &chosen {
            let at = (i * extent + index) * entry;
            out.extend_from_slice(&x.bytes()[at..at + entry]);
        }
    }
    finish("Gather", x.dtype(), shape, out)
}

/// `condition, a, b`: a where true.
pub(crate) fn select(
    inputs: &[&Tensor],
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    if inputs[0].dtype() != DType::Bool {
        return Err(KernelError::Type {
            op: "Where",
            input: 0,
            found: inputs[0].dtype(),
            expected: "bool",
        });
    }
    let condition = expand("Where", inputs[0], &shape)?;
    let choices = alike("Where", 1, &inputs[1..], precision)?;
    let (a, b) = (expand("Where", &choices[0], &shape)?, expand("Where", &choices[1], &shape)?);
    let size = a.dtype().size();
    let mut out = b.bytes().to_vec();
    for ((out, a), &chosen) in
        out.chunks_exact_mut(size).zip(a.bytes().chunks_exact(size)).zip(condition.bytes())
    {
        if chosen != 0 {
            out.copy_from_slice(a);
        }
    }
    finish("Where", a.dtype(), shape, out)
}

/// `x` within a constant border.
pub(crate) fn pad(
    x: &Tensor,
    before: &[usize],
    value: f32,
    shape: Vec<usize>,
) -> Result<Tensor, KernelError> {
    let element = match x.dtype() {
        DType::F32 => value.to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        DType::I64 => (value as i64).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0.0)],
    };
    let size = element.len();
    let mut out = element.repeat(shape.iter().product());
    let steps = strides(&shape);
    let walk = Walk::new(x.shape(), [steps.clone()]);
    let base: usize = before.iter().zip(&steps).map(|(b, s)| b * s).sum();
    walk.visit(0, x.len(), |done, n, [at]| {
        if walk.step[0] == 1 {
            out[(base + at) * size..][..n * size]
                .copy_from_slice(&x.bytes()[done * size..][..n * size]);
        } else {
            for k in 0..n {
                let to = (base + at + k * walk.step[0]) * size;
                out[to..to + size].copy_from_slice(&x.bytes()[(done + k) * size..][..size]);
            }
        }
    });
    finish("Pad", x.dtype(), shape, out)
}
