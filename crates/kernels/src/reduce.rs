//! Reductions over axes.

use crate::data::{Source, fill, integer_tensor, integers};
use crate::movement::transpose;
use crate::{KernelError, Precision};
use rockshard_graph::Reduce;
use rockshard_tensor::Tensor;
use std::borrow::Cow;

/// `x` with the reduced axes last, and the number of elements that become one.
fn rows<'a>(x: &'a Tensor, axes: &[usize]) -> Result<(Cow<'a, Tensor>, usize), KernelError> {
    let rank = x.shape().len();
    let row = (0..rank).filter(|i| axes.contains(i)).map(|i| x.shape()[i]).product();
    let perm: Vec<usize> = (0..rank)
        .filter(|i| !axes.contains(i))
        .chain((0..rank).filter(|i| axes.contains(i)))
        .collect();
    let moved = if perm.is_sorted() { Cow::Borrowed(x) } else { Cow::Owned(transpose(x, &perm)?) };
    Ok((moved, row))
}

/// Reduce to `shape`. Real sums and products are taken in f64 and rounded once.
pub(crate) fn reduce(
    op: &'static str,
    x: &Tensor,
    kind: Reduce,
    axes: &[usize],
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let (moved, row) = rows(x, axes)?;
    if !x.dtype().is_float() {
        let values = integers(op, 0, &moved)?;
        let out = (0..shape.iter().product())
            .map(|i| whole(kind, &values[i * row..(i + 1) * row]))
            .collect();
        return Ok(integer_tensor(x.dtype(), shape, out));
    }
    let source = Source::new(op, 0, &moved, precision)?;
    let block = (1 << 14) / row.max(1);
    Ok(fill(precision, shape, block.max(1), |start, out| {
        let mut values = vec![0.0; row];
        for (i, out) in out.iter_mut().enumerate() {
            source.read((start + i) * row, &mut values);
            *out = real(kind, &values);
        }
    }))
}

fn real(kind: Reduce, values: &[f32]) -> f32 {
    let sum = || values.iter().map(|&v| f64::from(v)).sum::<f64>();
    match kind {
        Reduce::Sum => sum() as f32,
        Reduce::Mean => (sum() / values.len() as f64) as f32,
        Reduce::Prod => values.iter().map(|&v| f64::from(v)).product::<f64>() as f32,
        Reduce::Max => {
            values.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m || v.is_nan() { v } else { m })
        }
        Reduce::Min => {
            values.iter().fold(f32::INFINITY, |m, &v| if v < m || v.is_nan() { v } else { m })
        }
    }
}

fn whole(kind: Reduce, values: &[i64]) -> i64 {
    let sum = || values.iter().fold(0i64, |sum, &v| sum.wrapping_add(v));
    match kind {
        Reduce::Sum => sum(),
        Reduce::Mean => sum().checked_div(values.len() as i64).unwrap_or(0),
        Reduce::Prod => values.iter().fold(1i64, |product, &v| product.wrapping_mul(v)),
        Reduce::Max => values.iter().copied().max().unwrap_or(i64::MIN),
        Reduce::Min => values.iter().copied().min().unwrap_or(i64::MAX),
    }
}

/// Index of the first largest element along `axis`.
pub(crate) fn arg_max(x: &Tensor, axis: usize, shape: Vec<usize>) -> Result<Tensor, KernelError> {
    let (moved, row) = rows(x, &[axis])?;
    let count = shape.iter().product();
    fn first<T: PartialOrd + Copy>(row: &[T]) -> i64 {
        let mut best = 0;
        for (i, &v) in row.iter().enumerate() {
            if v > row[best] {
                best = i;
            }
        }
        best as i64
    }
    let out = if x.dtype().is_float() {
        let values = moved.to_f32().map_err(|e| KernelError::value("ArgMax", e))?;
        (0..count).map(|i| first(&values[i * row..(i + 1) * row])).collect()
    } else {
        let values = integers("ArgMax", 0, &moved)?;
        (0..count).map(|i| first(&values[i * row..(i + 1) * row])).collect()
    };
    Ok(Tensor::from_i64(shape, out))
}
