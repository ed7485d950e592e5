//! Convolution as matrix products over panels of unfolded input (im2col); a 1x1 convolution reads its input directly.

use crate::data::Source;
use crate::matmul::read_columns;
use crate::product::{Factors, Size, product};
use crate::{KernelError, Precision};
use rockshard_graph::Window;
use rockshard_tensor::Tensor;
use std::ops::Range;

/// `x [N,C,H,W], weight [O,C/group,kh,kw], bias [O]?` to `shape`, which is the inferred one.
pub(crate) fn conv(
    inputs: &[&Tensor],
    window: &Window,
    group: usize,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let x = Source::new("Conv", 0, inputs[0], precision)?;
    let weight = Source::new("Conv", 1, inputs[1], precision)?;
    let bias = match inputs.get(2) {
        Some(bias) => Source::new("Conv", 2, bias, Precision::F32)?.vec(0, shape[1]),
        None => vec![0.0; shape[1]],
    };
    let [channels, height, width] = [inputs[1].shape()[1], inputs[0].shape()[2], inputs[0].shape()[3]];
    let rows = shape[1] / group;
    let depth = channels * window.kernel[0] * window.kernel[1];
    let size = Size { batch: shape[0] * group, rows, depth, columns: shape[2] * shape[3] };
    let geometry = Geometry { window, height, width, out_width: shape[3] };
    let direct = window.kernel == [1, 1] && window.strides == [1, 1] && window.pads == [0; 4];
    Ok(product(
        precision,
        shape,
        &size,
        &Factors {
            left: &|index, range: Range<usize>, panel: &mut [f32]| weight.read((index % group * rows + range.start) * depth, panel),
            right: &|index, columns: Range<usize>, panel: &mut [f32]| {
                if direct {
                    read_columns(&x, index * channels, height * width, &columns, panel);
                } else {
                    geometry.unfold(&x, index * channels, &columns, panel);
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

impl Geometry<'_> {
    /// Rows of the panel are (channel, tap down, tap right); columns are output positions, row-major.
    fn unfold(&self, x: &Source<'_>, first_channel: usize, columns: &Range<usize>, panel: &mut [f32]) {
        let Window { kernel, strides, pads, dilations } = self.window;
        let stride = [strides[0].max(1), strides[1].max(1)];
        if columns.is_empty() || panel.is_empty() || self.height * self.width == 0 {
            return panel.fill(0.0);
        }
        let (top, bottom) = (columns.start / self.out_width, (columns.end - 1) / self.out_width);
        // Input rows that these outputs can touch.
        let from = (top * stride[0]).saturating_sub(pads[0]).min(self.height);
        let to = (bottom * stride[0] + (kernel[0] - 1) * dilations[0] + 1).saturating_sub(pads[0]).clamp(from, self.height);
        let mut lines = vec![0.0; (to - from) * self.width];
        let taps = kernel[0] * kernel[1];
        for (channel, panel) in panel.chunks_mut(taps * columns.len()).enumerate() {
            x.read(((first_channel + channel) * self.height + from) * self.width, &mut lines);
            for (tap, out) in panel.chunks_mut(columns.len()).enumerate() {
                let (down, right) = (tap / kernel[1] * dilations[0], tap % kernel[1] * dilations[1]);
                let mut done = 0;
                while done < out.len() {
                    let at = columns.start + done;
                    let (row, column) = (at / self.out_width, at % self.out_width);
                    let n = (self.out_width - column).min(out.len() - done);
                    let piece = &mut out[done..done + n];
                    match (row * stride[0] + down).checked_sub(pads[0]).filter(|&y| y < self.height) {
                        Some(y) => spread(&lines[(y - from) * self.width..][..self.width], column, right, pads[1], stride[1], piece),
                        None => piece.fill(0.0),
                    }
                    done += n;
                }
            }
        }
    }
}

/// `out[i] = line[(column + i) * stride + shift - pad]`, 0 outside the line.
fn spread(line: &[f32], column: usize, shift: usize, pad: usize, stride: usize, out: &mut [f32]) {
    // Outputs below `lead` lie before the line, those from `tail` on behind it.
    let lead = pad.saturating_sub(shift).div_ceil(stride).saturating_sub(column).min(out.len());
    let tail = (line.len() + pad).saturating_sub(shift).div_ceil(stride).saturating_sub(column).clamp(lead, out.len());
    out[..lead].fill(0.0);
    out[tail..].fill(0.0);
    if lead == tail {
        return;
    }
    let first = (column + lead) * stride + shift - pad;
    let out = &mut out[lead..tail];
    if stride == 1 {
        out.copy_from_slice(&line[first..first + out.len()]);
    } else {
        for (value, from) in out.iter_mut().zip(line[first..].iter().step_by(stride)) {
            *value = *from;
        }
    }
}
