//! Convolutions, pools and products with their forms: one-dimensional ones are those of height 1.

use crate::Problem;
use crate::operators::Context;
use rockshard_graph::{Binary, Op, Pool, ValueId, Window};

/// Whether an operator of the standard domain is imported here.
pub(crate) fn is_one(op: &str) -> bool {
    matches!(op, "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool")
}

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "Conv" => conv(c),
        "ConvTranspose" => conv_transpose(c),
        "MaxPool" => pool(c, Pool::Max),
        _ => {
            let count = c.attributes.int("count_include_pad", 0) != 0;
            pool(c, Pool::Average(count))
        }
    }
}

pub(crate) fn gemm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (mut a, mut b) = (c.input(0)?, c.input(1)?);
    if c.rank(a) != 2 || c.rank(b) != 2 {
        return Err(Problem::Form(format!(
            "shapes {:?} and {:?} are not matrices",
            c.walk.shape(a),
            c.walk.shape(b)
        )));
    }
    if c.attributes.int("transA", 0) != 0 {
        a = c.step("transposed", Op::Transpose { perm: vec![1, 0] }, &[a])?;
    }
    if c.attributes.int("transB", 0) != 0 {
        b = c.step("transposed", Op::Transpose { perm: vec![1, 0] }, &[b])?;
    }
    let (alpha, beta) = (c.attributes.float("alpha", 1.0), c.attributes.float("beta", 1.0));
    let bias = c.optional(2).filter(|_| beta != 0.0);
    if alpha != 1.0 {
        let factor = c.filled(&[], alpha)?;
        a = c.step("scaled", Op::Binary(Binary::Mul), &[a, factor])?;
    }
    let Some(mut bias) = bias else { return c.finish(Op::MatMul, &[a, b]) };
    if beta != 1.0 {
        let factor = c.filled(&[], beta)?;
        bias = c.step("scaled", Op::Binary(Binary::Mul), &[bias, factor])?;
    }
    let product = c.step("product", Op::MatMul, &[a, b])?;
    c.finish(Op::Binary(Binary::Add), &[product, bias])
}

/// A product of matrices; a vector is a row on the left and a column on the right.
pub(crate) fn matmul(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let (row, column) = (c.rank(a) == 1, c.rank(b) == 1);
    if !row && !column {
        return c.apply(Op::MatMul);
    }
    let (depth, width) = (c.walk.value(a).count(), c.walk.value(b).count());
    let a = if row { c.reshaped(a, vec![1, depth])? } else { a };
    let b = if column { c.reshaped(b, vec![width, 1])? } else { b };
    let product = c.step("product", Op::MatMul, &[a, b])?;
    let mut shape = c.walk.shape(product).to_vec();
    if column {
        shape.pop();
    }
    if row {
        shape.remove(shape.len() - usize::from(!column) - 1);
    }
    c.finish(Op::Reshape { shape }, &[product])
}

/// A list of two of the node's attributes; the second one alone for one-dimensional ones.
fn pair(
    c: &Context<'_, '_>,
    name: &str,
    default: usize,
    line: bool,
) -> Result<[usize; 2], Problem> {
    match (c.attributes.sizes(name)?.as_deref(), line) {
        (None | Some([]), _) => {
            Ok([if line && name != "output_padding" { 1 } else { default }, default])
        }
        (Some(&[a, b]), false) => Ok([a, b]),
        (Some(&[b]), true) => Ok([if name == "output_padding" { 0 } else { 1 }, b]),
        (Some(other), _) => {
            Err(Problem::Form(format!("{name} {other:?} does not have an entry for each axis")))
        }
    }
}

/// Zero padding as given, where it is given.
fn given_pads(c: &Context<'_, '_>, line: bool) -> Result<[usize; 4], Problem> {
    match (c.attributes.sizes("pads")?.as_deref(), line) {
        (None | Some([]), _) => Ok([0; 4]),
        (Some(&[t, l, b, r]), false) => Ok([t, l, b, r]),
        (Some(&[l, r]), true) => Ok([0, l, 0, r]),
        (Some(other), _) => Err(Problem::Form(format!("pads {other:?} are not two an axis"))),
    }
}

fn window(
    c: &Context<'_, '_>,
    x: &[usize],
    kernel: [usize; 2],
    line: bool,
) -> Result<Window, Problem> {
    let (strides, dilations) = (pair(c, "strides", 1, line)?, pair(c, "dilations", 1, line)?);
    if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
        return Err(Problem::Form("a stride, dilation or kernel extent is zero".into()));
    }
    let pads = match c.attributes.text("auto_pad", "NOTSET") {
        "NOTSET" => given_pads(c, line)?,
        "VALID" => [0; 4],
        same @ ("SAME_UPPER" | "SAME_LOWER") => {
            let total = |axis: usize| {
                let size = x.get(axis + 2).copied().unwrap_or(1);
                let last =
                    (size.div_ceil(strides[axis]).saturating_sub(1)).saturating_mul(strides[axis]);
                let reach = (kernel[axis] - 1)
                    .saturating_mul(dilations[axis])
                    .saturating_add(last)
                    .saturating_add(1);
                reach.saturating_sub(size)
            };
            halves([total(0), total(1)], same == "SAME_UPPER")
        }
        other => return Err(Problem::Form(format!("auto_pad {other} is not supported"))),
    };
    Ok(Window { kernel, strides, pads, dilations })
}

/// Padding of both ends; the odd one goes to the upper end or the lower.
fn halves(total: [usize; 2], upper: bool) -> [usize; 4] {
    let first = total.map(|t| if upper { t / 2 } else { t.div_ceil(2) });
    [first[0], first[1], total[0] - first[0], total[1] - first[1]]
}

/// A value of three axes as a picture of height 1; others as they are, with whether it was one.
fn picture(c: &mut Context<'_, '_>, x: ValueId) -> Result<(ValueId, bool), Problem> {
    match *c.walk.shape(x) {
        [n, channels, length] => Ok((c.reshaped(x, vec![n, channels, 1, length])?, true)),
        [_, _, _, _] => Ok((x, false)),
        ref other => {
            Err(Problem::Form(format!("shape {other:?} is not one- or two-dimensional data's")))
        }
    }
}

/// Emit the result, of a picture or of a line.
fn finish(c: &mut Context<'_, '_>, op: Op, inputs: &[ValueId], line: bool) -> Result<(), Problem> {
    if !line {
        return c.finish(op, inputs);
    }
    let full = c.step("picture", op, inputs)?;
    let &[n, channels, _, length] = c.walk.shape(full) else {
        return Err(Problem::Form("lost its axes".into()));
    };
    c.finish(Op::Reshape { shape: vec![n, channels, length] }, &[full])
}

/// The picture, the weight and the bias, and whether they are a line's.
fn weighted(c: &mut Context<'_, '_>) -> Result<(Vec<ValueId>, bool), Problem> {
    let (x, weight) = (c.input(0)?, c.input(1)?);
    let (x, line) = picture(c, x)?;
    let (weight, flat) = picture(c, weight)?;
    if line != flat {
        return Err(Problem::Form(format!(
            "weight shape {:?} for data of shape {:?}",
            c.walk.shape(weight),
            c.walk.shape(x)
        )));
    }
    let mut inputs = vec![x, weight];
    inputs.extend(c.optional(2));
    Ok((inputs, line))
}

fn conv(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (inputs, line) = weighted(c)?;
    let (shape, weight) = (c.walk.shape(inputs[0]).to_vec(), c.walk.shape(inputs[1]).to_vec());
    let window = window(c, &shape, [weight[2], weight[3]], line)?;
    let group = group(c)?;
    if group > weight[0].max(1) {
        return Err(Problem::Form(format!("{group} groups of {} filters", weight[0])));
    }
    finish(c, Op::Conv { window, group }, &inputs, line)
}

fn group(c: &Context<'_, '_>) -> Result<usize, Problem> {
    usize::try_from(c.attributes.int("group", 1))
        .map_err(|_| Problem::Form("negative group".into()))
}

/// Padding that gives a stated output is computed from it.
fn conv_transpose(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (inputs, line) = weighted(c)?;
    let (shape, weight) = (c.walk.shape(inputs[0]).to_vec(), c.walk.shape(inputs[1]).to_vec());
    let kernel = [weight[2], weight[3]];
    let (strides, dilations) = (pair(c, "strides", 1, line)?, pair(c, "dilations", 1, line)?);
    let more = pair(c, "output_padding", 0, line)?;
    if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
        return Err(Problem::Form("a stride, dilation or kernel extent is zero".into()));
    }
    if more.iter().zip(strides.iter().zip(&dilations)).any(|(m, (s, d))| m >= s.max(d)) {
        return Err(Problem::Form(format!("output_padding {more:?} is not below the strides")));
    }
    let whole = |axis: usize| {
        let reach = (kernel[axis] - 1).saturating_mul(dilations[axis]).saturating_add(1);
        strides[axis]
            .saturating_mul(shape[axis + 2].saturating_sub(1))
            .saturating_add(reach)
            .saturating_add(more[axis])
    };
    let auto = c.attributes.text("auto_pad", "NOTSET");
    let wanted = match (c.attributes.has("output_shape"), auto) {
        (true, _) => Some(pair(c, "output_shape", 1, line)?),
        (false, "SAME_UPPER" | "SAME_LOWER") => {
            Some([0, 1].map(|a: usize| shape[a + 2].saturating_mul(strides[a])))
        }
        (false, "NOTSET" | "VALID") => None,
        (false, other) => {
            return Err(Problem::Form(format!("auto_pad {other} is not supported")));
        }
    };
    let mut more = more;
    let pads = match wanted {
        None if auto == "VALID" => [0; 4],
        None => given_pads(c, line)?,
        Some(wanted) => {
            // Where more is wanted than there is, it is added at the end.
            let total = [0, 1].map(|a| whole(a).saturating_sub(wanted[a]));
            for axis in 0..2 {
                more[axis] = more[axis].saturating_add(wanted[axis].saturating_sub(whole(axis)));
            }
            halves(total, auto == "SAME_UPPER")
        }
    };
    let window = Window { kernel, strides, pads, dilations };
    let group = group(c)?;
    finish(c, Op::ConvTranspose { window, group, more }, &inputs, line)
}

fn pool(c: &mut Context<'_, '_>, kind: Pool) -> Result<(), Problem> {
    let x = c.input(0)?;
    if c.has_output(1) {
        return Err(Problem::Form("its second output, the indices, is not supported".into()));
    }
    let (x, line) = picture(c, x)?;
    let kernel = pair(c, "kernel_shape", 1, line)?;
    let shape = c.walk.shape(x).to_vec();
    let mut window = window(c, &shape, kernel, line)?;
    if window.dilations != [1, 1] {
        return Err(Problem::Form("pooling with dilations is not supported".into()));
    }
    if c.attributes.int("ceil_mode", 0) != 0 {
        round_up(&mut window, &shape);
        if kind == Pool::Average(true) && window.pads != given_pads(c, line)? {
            return Err(Problem::Form(
                "ceil_mode with count_include_pad is not supported where the last window is cut off".into(),
            ));
        }
    }
    finish(c, Op::Pool { kind, window }, &[x], line)
}

/// Padding at the end for a last window that the data do not fill, unless it would begin in that padding.
fn round_up(window: &mut Window, shape: &[usize]) {
    for axis in 0..2 {
        let (stride, first) = (window.strides[axis], window.pads[axis]);
        let reach =
            (window.kernel[axis] - 1).saturating_mul(window.dilations[axis]).saturating_add(1);
        let before = shape[axis + 2].saturating_add(first);
        let padded = before.saturating_add(window.pads[axis + 2]);
        let Some(rest) = padded.checked_sub(reach) else { continue };
        let mut count = rest.div_ceil(stride);
        if count.saturating_mul(stride) >= before {
            count = count.saturating_sub(1);
        }
        let last = count.saturating_mul(stride).saturating_add(reach);
        window.pads[axis + 2] = last.saturating_sub(before).max(window.pads[axis + 2]);
    }
}
