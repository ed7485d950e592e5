//! Softmax and normalisations. Means and variances are taken in two passes, with f64 sums.

use crate::attention::exponentials;
use crate::data::{Source, fill};
use crate::exp::exp_below_zero;
use crate::round::{ROUNDED, round};
use crate::{KernelError, Precision};
use rockshard_tensor::Tensor;

/// Elements that a task of whole rows should have at least.
const TASK: usize = 1 << 13;

/// Softmax along `axis`. A row of nothing but negative infinity becomes NaN.
pub(crate) fn softmax(
    x: &Tensor,
    axis: usize,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let source = Source::new("Softmax", 0, x, precision)?;
    let (count, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let block = count * inner;
    Ok(fill(precision, x.shape().to_vec(), rows_of(block), |start, out| {
        source.read(start, out);
        for block in out.chunks_mut(block.max(1)) {
            if inner == 1 {
                softmax_row(block);
            } else {
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || softmax_columns(block, inner),
                );
            }
        }
    }))
}

/// A number of elements that is a multiple of `row` and makes a task worth its while.
fn rows_of(row: usize) -> usize {
    row.max(1) * (TASK / row.max(1)).max(1)
}

fn softmax_row(row: &mut [f32]) {
    let total = exponentials(row);
    row.iter_mut().for_each(|v| *v /= total);
}

/// Softmax along the first axis of `[count, inner]`, in place.
#[inline(always)]
fn softmax_columns(values: &mut [f32], inner: usize) {
    let mut top = vec![f32::NEG_INFINITY; inner];
    for row in values.chunks(inner) {
        top.iter_mut().zip(row).for_each(|(top, &v)| *top = if v > *top { v } else { *top });
    }
    let mut total = vec![0.0; inner];
    for row in values.chunks_mut(inner) {
        for ((v, top), total) in row.iter_mut().zip(&top).zip(&mut total) {
            *v = exp_below_zero(*v - top);
            *total += *v;
        }
    }
    for row in values.chunks_mut(inner) {
        row.iter_mut().zip(&total).for_each(|(v, total)| *v /= total);
    }
}

/// `x, gamma, beta`: normalise each row of the trailing axes that gamma has.
pub(crate) fn layer(
    inputs: &[&Tensor],
    epsilon: f32,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let op = "LayerNormalization";
    let x = Source::new(op, 0, inputs[0], precision)?;
    let row = inputs[1].len();
    let gamma = Source::new(op, 1, inputs[1], precision)?.vec(0, row);
    let beta = Source::new(op, 2, inputs[2], precision)?.vec(0, row);
    Ok(fill(precision, inputs[0].shape().to_vec(), rows_of(row), |start, out| {
        x.read(start, out);
        for row in out.chunks_mut(row.max(1)) {
            let (mean, factor) = moments(row, epsilon);
            for ((v, gamma), beta) in row.iter_mut().zip(&gamma).zip(&beta) {
                *v = (*v - mean) * factor * gamma + beta;
            }
        }
    }))
}

/// `x [N,C,...], gamma [C], beta [C]`: normalise each channel of each item. The NPU rounds the normalised value, its product
/// with gamma and the sum with beta.
pub(crate) fn instance(
    inputs: &[&Tensor],
    epsilon: f32,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let channels = inputs[0].shape()[1];
    grouped("InstanceNormalization", inputs, channels, epsilon, precision, precision)
}

/// `x [N,C,...], gamma [C], beta [C]`: normalise each of `groups` groups of channels. The NPU rounds the normalised value. On four
/// axes one operator more scales and shifts it by unrounded gamma and beta; else two do, as for [`instance`].
pub(crate) fn group(
    inputs: &[&Tensor],
    groups: usize,
    epsilon: f32,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let affine = if inputs[0].shape().len() == 4 { Precision::F32 } else { precision };
    grouped("GroupNormalization", inputs, groups, epsilon, precision, affine)
}

/// Normalise groups of channels, then scale and shift, in `affine` precision, by channel.
fn grouped(
    op: &'static str,
    inputs: &[&Tensor],
    groups: usize,
    epsilon: f32,
    precision: Precision,
    affine: Precision,
) -> Result<Tensor, KernelError> {
    let x = Source::new(op, 0, inputs[0], precision)?;
    let shape = inputs[0].shape();
    let (channels, plane) = (shape[1], shape[2..].iter().product::<usize>().max(1));
    let gamma = Source::new(op, 1, inputs[1], affine)?.vec(0, channels);
    let beta = Source::new(op, 2, inputs[2], affine)?.vec(0, channels);
    let members = channels / groups.max(1);
    Ok(fill(precision, shape.to_vec(), members * plane, |start, out| {
        x.read(start, out);
        let Some(first) = (start / plane).checked_rem(channels) else { return };
        let (mean, factor) = moments(out, epsilon);
        for (channel, values) in out.chunks_mut(plane).enumerate() {
            let (gamma, beta) = (gamma[first + channel], beta[first + channel]);
            for values in values.chunks_mut(ROUNDED) {
                values.iter_mut().for_each(|v| *v = (*v - mean) * factor);
                round(values, precision);
                values.iter_mut().for_each(|v| *v *= gamma);
                round(values, affine);
                values.iter_mut().for_each(|v| *v += beta);
            }
        }
    }))
}

/// Mean, and `1 / sqrt(variance + epsilon)`.
fn moments(values: &[f32], epsilon: f32) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let mean = sum(values, f64::from) / count;
    let variance = sum(values, |v| (f64::from(v) - mean) * (f64::from(v) - mean)) / count;
    (mean as f32, (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32)
}

/// Sum of a function of the values, in eight interleaved f64 sums.
fn sum(values: &[f32], f: impl Fn(f32) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let (whole, rest) = values.as_chunks::<8>();
    for chunk in whole {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += f(v);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&v| f(v)).sum::<f64>()
}
