//! Convolution as matrix products over panels of unfolded input (im2col); a 1x1 convolution reads its input directly, a large
//! 3x3 one is transformed first.

use crate::data::{Float, Source};
use crate::matmul::read_columns;
use crate::product::{Factors, Size, product};
use crate::tile::{COLUMNS, Line};
use crate::{KernelError, Precision, winograd};
use half::f16;
use rockshard_graph::Window;
use rockshard_tensor::Tensor;
use std::ops::Range;

/// `x [N,C,H,W], weight [O,C/group,kh,kw], bias [O]?` to `shape`, which is the inferred one. Sums are rounded at each of the
/// `cuts` of the channels and at the end.
pub(crate) fn conv(
    inputs: &[&Tensor],
    window: &Window,
    group: usize,
    cuts: &[usize],
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let x = Source::new("Conv", 0, inputs[0], precision)?;
    let weight = Source::new("Conv", 1, inputs[1], precision)?;
    let bias = match inputs.get(2) {
        Some(bias) => Source::new("Conv", 2, bias, Precision::F32)?.vec(0, shape[1]),
        None => vec![0.0; shape[1]],
    };
    let [channels, height, width] =
        [inputs[1].shape()[1], inputs[0].shape()[2], inputs[0].shape()[3]];
    let rows = shape[1] / group;
    let extents =
        winograd::Extents { batch: shape[0], channels, rows, height: shape[2], width: shape[3] };
    if precision == Precision::F16
        && winograd::suits(window, group, &extents)
        && let Some(values) = winograd::conv(&x, &weight, &bias, &extents, cuts)
    {
        return Ok(f16::tensor(shape, values));
    }
    let taps = window.kernel[0] * window.kernel[1];
    let depth = channels * taps;
    let cuts: Vec<usize> = cuts.iter().map(|cut| cut * taps).collect();
    let size = Size { batch: shape[0] * group, rows, depth, columns: shape[2] * shape[3] };
    let geometry = Geometry { window, height, width, out_width: shape[3] };
    let direct = window.kernel == [1, 1] && window.strides == [1, 1] && window.pads == [0; 4];
    Ok(product(
        precision,
        shape,
        &size,
        &Factors {
            cuts: &cuts,
            left: &|index, row, depths: Range<usize>, out: &mut [f32]| {
                weight.read((index % group * rows + row) * depth + depths.start, out)
            },
            right: &|index, depths: Range<usize>, columns: Range<usize>, panels: &mut [Line]| {
                if direct {
                    return read_columns(
                        &x,
                        index * channels,
                        depths,
                        height * width,
                        &columns,
                        panels,
                    );
                }
                for (panel, first) in
                    panels.chunks_mut(depths.len()).zip(columns.clone().step_by(COLUMNS))
                {
                    geometry.unfold(
                        &x,
                        index * channels,
                        depths.clone(),
                        &(first..(first + COLUMNS).min(columns.end)),
                        panel,
                    );
                }
            },
            finish: &|index, row, _, sums: &mut [f32]| {
                let bias = bias[index % group * rows + row];
                if bias != 0.0 {
                    sums.iter_mut().for_each(|sum| *sum += bias);
                }
            },
        },
    ))
}

struct Geometry<'a> {
    window: &'a Window,
    height: usize,
    width: usize,
    out_width: usize,
}

/// Outputs of a panel that lie in one output row: their place in a line, the row and the first column.
struct Run {
    at: usize,
    len: usize,
    row: usize,
    column: usize,
}

impl Geometry<'_> {
    /// Depths are (channel, tap down, tap right); columns are output positions, row-major.
    ///
    /// The part of the padded input that the panel can touch is widened a channel at a time; every tap is then a copy of runs.
    fn unfold(
        &self,
        x: &Source<'_>,
        first_channel: usize,
        depths: Range<usize>,
        columns: &Range<usize>,
        panel: &mut [Line],
    ) {
        let Window { kernel, pads, dilations, .. } = self.window;
        let strides = self.window.strides.map(|step| step.max(1));
        if columns.is_empty() {
            return;
        }
        let runs = self.runs(columns);
        // Rows and columns of the padded input.
        let (top, bottom) = (
            runs[0].row * strides[0],
            runs[runs.len() - 1].row * strides[0] + (kernel[0] - 1) * dilations[0],
        );
        let left = runs.iter().map(|r| r.column).min().unwrap_or(0) * strides[1];
        let right = runs.iter().map(|r| r.column + r.len - 1).max().unwrap_or(0) * strides[1]
            + (kernel[1] - 1) * dilations[1];
        let breadth = right - left + 1;
        let mut patch = vec![0.0; (bottom - top + 1) * breadth];
        // The part of a row that lies in the input, from `inside` on in the patch.
        let inside = pads[1].saturating_sub(left).min(breadth);
        let from = (left + inside).saturating_sub(pads[1]).min(self.width);
        let count = (right + 1).saturating_sub(pads[1]).clamp(from, self.width) - from;
        let rows: Vec<(usize, usize)> = (top..=bottom)
            .filter_map(|row| {
                Some((
                    (row - top) * breadth + inside,
                    row.checked_sub(pads[0]).filter(|&y| y < self.height)?,
                ))
            })
            .collect();
        let taps = kernel[0] * kernel[1];
        let starts: Vec<usize> = (0..taps)
            .flat_map(|tap| runs.iter().map(move |run| (tap, run)))
            .map(|(tap, run)| {
                let (down, across) =
                    (tap / kernel[1] * dilations[0], tap % kernel[1] * dilations[1]);
                (run.row * strides[0] + down - top) * breadth + run.column * strides[1] + across
                    - left
            })
            .collect();
        let mut patched = None;
        for (depth, line) in depths.zip(panel) {
            let (channel, tap) = (depth / taps, depth % taps);
            if patched != Some(channel) {
                patched = Some(channel);
                for &(at, row) in &rows {
                    x.read(
                        ((first_channel + channel) * self.height + row) * self.width + from,
                        &mut patch[at..at + count],
                    );
                }
            }
            for (run, &start) in runs.iter().zip(&starts[tap * runs.len()..]) {
                copy(&patch[start..], strides[1], &mut line[run.at..run.at + run.len]);
            }
        }
    }

    fn runs(&self, columns: &Range<usize>) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = columns.start;
        while at < columns.end {
            let (row, column) = (at / self.out_width, at % self.out_width);
            let len = (self.out_width - column).min(columns.end - at);
            runs.push(Run { at: at - columns.start, len, row, column });
            at += len;
        }
        runs
    }
}

/// `out[i] = from[i * step]`.
fn copy(from: &[f32], step: usize, out: &mut [f32]) {
    if step != 1 {
        out.iter_mut().zip(from.iter().step_by(step)).for_each(|(out, &v)| *out = v);
    } else if out.len() == COLUMNS {
        // A known length is a few vector moves instead of a call.
        out.copy_from_slice(&from[..COLUMNS]);
    } else {
        out.copy_from_slice(&from[..out.len()]);
    }
}
