//! Pooling and resizing of `[N,C,H,W]`, a plane at a time.

use crate::data::{Source, fill};
use crate::{KernelError, Precision};
use rockshard_graph::{Pool, Resize, Window};
use rockshard_tensor::Tensor;

/// Pool to `shape`, which is the inferred one.
pub(crate) fn pool(
    op: &'static str,
    x: &Tensor,
    kind: Pool,
    window: &Window,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let source = Source::new(op, 0, x, precision)?;
    let (height, width, out_width) = (x.shape()[2], x.shape()[3], shape[3]);
    let plane = shape[2] * shape[3];
    Ok(fill(precision, shape, plane, |start, out| {
        let values = source.vec(start / plane.max(1) * height * width, height * width);
        for (i, out) in out.iter_mut().enumerate() {
            let tap = |at: usize, step: usize, axis: usize, extent: usize| {
                (at * window.strides[axis].max(1) + step * window.dilations[axis])
                    .checked_sub(window.pads[axis])
                    .filter(|&v| v < extent)
            };
            let (mut sum, mut max, mut count) = (0.0f32, f32::NEG_INFINITY, 0);
            for down in 0..window.kernel[0] {
                let Some(y) = tap(i / out_width, down, 0, height) else { continue };
                for right in 0..window.kernel[1] {
                    let Some(x) = tap(i % out_width, right, 1, width) else { continue };
                    let v = values[y * width + x];
                    sum += v;
                    count += 1;
                    max = if v > max || v.is_nan() { v } else { max };
                }
            }
            *out = match kind {
                Pool::Max => max,
                Pool::Average(true) => sum / (window.kernel[0] * window.kernel[1]) as f32,
                Pool::Average(false) => sum / count as f32,
            };
        }
    }))
}

/// The two inputs an output lies between and the weight of the second.
type Blend = (usize, usize, f32);

fn blends(mode: Resize, from: usize, to: usize) -> Vec<Blend> {
    (0..to)
        .map(|i| match mode {
            Resize::Nearest => {
                let at = (i as u128 * from as u128 / to as u128) as usize;
                (at, at, 0.0)
            }
            Resize::Linear => {
                let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5)
                    .clamp(0.0, from as f64 - 1.0);
                let low = at.floor() as usize;
                (low, (low + 1).min(from - 1), (at - at.floor()) as f32)
            }
        })
        .collect()
}

/// Resize to `shape`. Nearest keeps values as they are.
pub(crate) fn resize(
    x: &Tensor,
    mode: Resize,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let source = Source::new("Resize", 0, x, precision)?;
    let (height, width) = (x.shape()[2], x.shape()[3]);
    if height == 0 || width == 0 {
        return Err(KernelError::shape("Resize", format!("shape {:?} has no pixels", x.shape())));
    }
    let (rows, columns) = (blends(mode, height, shape[2]), blends(mode, width, shape[3]));
    let plane = shape[2] * shape[3];
    Ok(fill(precision, shape, plane, |start, out| {
        let values = source.vec(start / plane * height * width, height * width);
        for (out, &(top, bottom, down)) in out.chunks_mut(columns.len()).zip(&rows) {
            let line = |y: usize| &values[y * width..][..width];
            let (top, bottom) = (line(top), line(bottom));
            for (out, &(left, right, across)) in out.iter_mut().zip(&columns) {
                if mode == Resize::Nearest {
                    *out = top[left];
                } else {
                    let above = top[left] + (top[right] - top[left]) * across;
                    let below = bottom[left] + (bottom[right] - bottom[left]) * across;
                    *out = above + (below - above) * down;
                }
            }
        }
    }))
}
