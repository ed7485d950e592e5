//! Transposed convolution: a convolution of the input with zeros between its values, by the kernel turned round.

use crate::data::{Source, fill};
use crate::{KernelError, Precision, conv};
use rockshard_graph::Window;
use rockshard_tensor::Tensor;

const OP: &str = "ConvTranspose";

/// `x [N,C,H,W], weight [C,O/group,kh,kw], bias [O]?` to `shape`, which is the inferred one.
pub(crate) fn conv_transpose(
    inputs: &[&Tensor],
    window: &Window,
    group: usize,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let spread = spread(inputs[0], window, &shape, precision)?;
    let weight = turned(inputs[1], group, precision)?;
    let plain = Window { strides: [1, 1], pads: [0; 4], ..window.clone() };
    let mut all = vec![&spread, &weight];
    all.extend(inputs.get(2));
    conv::conv(&all, &plain, group, &[], shape, precision)
}

/// The input as a convolution without padding reads it to give `shape`: its values `stride` apart, zeros between and around them.
fn spread(
    x: &Tensor,
    window: &Window,
    shape: &[usize],
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let source = Source::new(OP, 0, x, precision)?;
    let reach = |axis: usize| (window.kernel[axis] - 1) * window.dilations[axis];
    let (height, width) = (x.shape()[2], x.shape()[3]);
    let extents = [shape[2] + reach(0), shape[3] + reach(1)];
    // Where the input's first row and column go; before the beginning, where more is cut off than the kernel reaches.
    let place = |at: usize, axis: usize| {
        (at * window.strides[axis] + reach(axis))
            .checked_sub(window.pads[axis])
            .filter(|&to| to < extents[axis])
    };
    let full = vec![x.shape()[0], x.shape()[1], extents[0], extents[1]];
    let plane = extents[0] * extents[1];
    Ok(fill(precision, full, plane, |start, out| {
        out.fill(0.0);
        let values = source.vec(start / plane.max(1) * height * width, height * width);
        for (row, values) in values.chunks(width.max(1)).enumerate() {
            let Some(row) = place(row, 0) else { continue };
            for (column, &value) in values.iter().enumerate() {
                if let Some(column) = place(column, 1) {
                    out[row * extents[1] + column] = value;
                }
            }
        }
    }))
}

/// `[C,O/group,kh,kw]` as `[O,C/group,kh,kw]`, each kernel turned by half a turn.
fn turned(weight: &Tensor, group: usize, precision: Precision) -> Result<Tensor, KernelError> {
    let source = Source::new(OP, 1, weight, precision)?;
    let &[channels, filters, height, width] = weight.shape() else {
        return Err(KernelError::shape(OP, format!("weight shape {:?}", weight.shape())));
    };
    let (taps, members) = (height * width, channels / group.max(1));
    let full = vec![filters * group, members, height, width];
    Ok(fill(precision, full, taps, |start, out| {
        let index = start / taps.max(1);
        let (filter, member) = (index / members, index % members);
        let channel = filter / filters * members + member;
        source.read((channel * filters + filter % filters) * taps, out);
        out.reverse();
    }))
}
