//! Operators that move or make elements without arithmetic, and those that read shapes.

use crate::Problem;
use crate::attributes::axis;
use crate::operators::Context;
use crate::walk::{LARGEST_RANK, check_shape};
use rockshard_graph::{Op, Resize, ValueId};
use rockshard_tensor::{DType, Tensor};

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str, opset: i64) -> Result<(), Problem> {
    match op {
        "Shape" => shape(c),
        "Size" => {
            let x = c.input(0)?;
            let count = c.walk.value(x).count() as i64;
            c.walk.bind_constant(c.output, Tensor::from_i64([], vec![count]))
        }
        "ConstantOfShape" => constant_of_shape(c),
        "Range" => range(c),
        "Trilu" => trilu(c),
        "Reshape" => reshape(c),
        "Flatten" => {
            let x = c.input(0)?;
            let dims = c.walk.shape(x).to_vec();
            let at = match c.attributes.int("axis", 1) {
                a if a == dims.len() as i64 => dims.len(),
                a => axis(a, dims.len())?,
            };
            let shape = vec![dims[..at].iter().product(), dims[at..].iter().product()];
            c.finish(Op::Reshape { shape }, &[x])
        }
        "Squeeze" => squeeze(c),
        "Unsqueeze" => unsqueeze(c),
        "Transpose" => {
            let x = c.input(0)?;
            let rank = c.rank(x);
            let perm = c.attributes.sizes("perm")?.unwrap_or_else(|| (0..rank).rev().collect());
            c.finish(Op::Transpose { perm }, &[x])
        }
        "Concat" => {
            let inputs: Vec<ValueId> = c.inputs.iter().flatten().copied().collect();
            let first = c.input(0)?;
            let axis = axis(c.attributes.int("axis", 0), c.rank(first))?;
            c.finish(Op::Concat { axis }, &inputs)
        }
        "Gather" => {
            let (x, indices) = (c.input(0)?, c.input(1)?);
            let axis = axis(c.attributes.int("axis", 0), c.rank(x))?;
            let indices = if c.walk.value(indices).dtype.is_float() {
                c.step("indices", Op::Cast(DType::I64), &[indices])?
            } else {
                indices
            };
            c.finish(Op::Gather { axis }, &[x, indices])
        }
        "Slice" => slice(c),
        "Split" => split(c, opset),
        "Expand" => expand(c),
        "Tile" => tile(c),
        "Pad" => pad(c),
        "Resize" => resize(c),
        _ => Err(Problem::Unsupported),
    }
}

fn shape(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims: Vec<i64> = c.walk.shape(x).iter().map(|&d| d as i64).collect();
    let bound = |v: i64| {
        (if v < 0 { v + dims.len() as i64 } else { v }).clamp(0, dims.len() as i64) as usize
    };
    let (start, end) =
        (bound(c.attributes.int("start", 0)), bound(c.attributes.int("end", dims.len() as i64)));
    let part = dims.get(start..end).unwrap_or(&[]).to_vec();
    c.walk.bind_constant(c.output, Tensor::from_i64([part.len()], part))
}

/// A constant of one element, to be broadcast.
fn constant_of_shape(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let target = target(c, 0, "the shape")?;
    let value = match c.attributes.tensor("value") {
        Some(proto) => {
            c.walk.model.tensor(proto)?.reshape([]).map_err(|e| Problem::Form(e.to_string()))?
        }
        None => Tensor::scalar(0.0),
    };
    let name = c.walk.fresh(c.output);
    let value = c.walk.graph.add_constant(name, value);
    c.finish(Op::Expand { shape: target }, &[value])
}

fn target(c: &Context<'_, '_>, input: usize, what: &'static str) -> Result<Vec<usize>, Problem> {
    let values = c.walk.integers(c.input(input)?, what)?;
    let negative = |_| Problem::Form(format!("{what} {values:?} has a negative extent"));
    values.iter().map(|&v| usize::try_from(v)).collect::<Result<_, _>>().map_err(negative)
}

fn range(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    const LARGEST: f64 = 1e7;
    let number = |i: usize| -> Result<f64, Problem> {
        let tensor = c.walk.constant(c.input(i)?).ok_or(Problem::DataDependent("a bound"))?;
        let value = if tensor.dtype().is_float() {
            tensor.to_f32().map(|v| v.first().map(|&v| f64::from(v)))
        } else {
            tensor.to_i64().map(|v| v.first().map(|&v| v as f64))
        };
        value.ok().flatten().ok_or_else(|| Problem::Form(format!("bound {i} is no number")))
    };
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    if count > LARGEST {
        return Err(Problem::Form(format!(
            "from {start} to {limit} by {delta} is not a finite range below {LARGEST}"
        )));
    }
    c.walk.spend(count as usize)?;
    let values = (0..count as usize).map(|i| start + i as f64 * delta);
    let tensor = match c.walk.value(c.input(0)?).dtype {
        DType::F32 => Tensor::from_f32([count as usize], values.map(|v| v as f32).collect()),
        DType::I32 => Tensor::from_i32([count as usize], values.map(|v| v as i32).collect()),
        _ => Tensor::from_i64([count as usize], values.map(|v| v as i64).collect()),
    };
    c.walk.bind_constant(c.output, tensor)
}

/// A triangle of a constant matrix (causal masks).
fn trilu(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let tensor = c.walk.constant(c.input(0)?).ok_or(Problem::DataDependent("the matrix"))?.clone();
    let k = match c.optional(1) {
        Some(k) => c.walk.integers(k, "the diagonal")?.first().copied().unwrap_or(0),
        None => 0,
    };
    c.walk.spend(tensor.len())?;
    let upper = c.attributes.int("upper", 1) != 0;
    let &[.., rows, columns] = tensor.shape() else {
        return Err(Problem::Form("needs a matrix".into()));
    };
    let keep = |i: usize| {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        if upper { column - row >= k } else { column - row <= k }
    };
    let result = if tensor.dtype().is_float() {
        let values = tensor.to_f32().map_err(|e| Problem::Form(e.to_string()))?;
        Tensor::from_f32(
            tensor.shape(),
            values.iter().enumerate().map(|(i, &v)| if keep(i) { v } else { 0.0 }).collect(),
        )
    } else {
        let values = tensor.to_i64().map_err(|e| Problem::Form(e.to_string()))?;
        let kept = values.iter().enumerate().map(|(i, &v)| if keep(i) { v } else { 0 });
        match tensor.dtype() {
            DType::Bool => Tensor::from_bool(tensor.shape(), kept.map(|v| v != 0).collect()),
            DType::I32 => Tensor::from_i32(tensor.shape(), kept.map(|v| v as i32).collect()),
            _ => Tensor::from_i64(tensor.shape(), kept.collect()),
        }
    };
    c.walk.bind_constant(c.output, result)
}

fn reshape(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let wanted = c.walk.integers(c.input(1)?, "the target shape")?;
    let keep_zero = c.attributes.int("allowzero", 0) != 0;
    let bad = || Problem::Form(format!("{dims:?} to {wanted:?}"));
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &w) in wanted.iter().enumerate() {
        shape.push(match w {
            -1 if open.replace(i).is_none() => 1,
            0 if !keep_zero => *dims.get(i).ok_or_else(bad)?,
            _ => usize::try_from(w).map_err(|_| bad())?,
        });
    }
    check_shape(&shape)?;
    if let Some(i) = open {
        let rest: usize = shape.iter().product();
        shape[i] = dims.iter().product::<usize>().checked_div(rest).ok_or_else(bad)?;
    }
    c.finish(Op::Reshape { shape }, &[x])
}

fn axes(c: &Context<'_, '_>, rank: usize) -> Result<Option<Vec<usize>>, Problem> {
    let given = match c.optional(1) {
        Some(id) => Some(c.walk.integers(id, "axes")?),
        None => c.attributes.ints("axes").map(<[i64]>::to_vec),
    };
    given.map(|list| list.into_iter().map(|a| axis(a, rank)).collect()).transpose()
}

fn squeeze(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let axes = axes(c, dims.len())?;
    let gone = |i: usize| axes.as_ref().map_or(dims[i] == 1, |a| a.contains(&i));
    let shape = (0..dims.len()).filter(|&i| !gone(i)).map(|i| dims[i]).collect();
    c.finish(Op::Reshape { shape }, &[x])
}

fn unsqueeze(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let count = match c.optional(1) {
        Some(id) => c.walk.value(id).count(),
        None => c.attributes.ints("axes").map_or(0, <[i64]>::len),
    };
    let rank = dims.len() + count;
    check_shape(&vec![1; rank.min(LARGEST_RANK + 1)])?;
    let axes = axes(c, rank)?.unwrap_or_default();
    let mut rest = dims.into_iter();
    let shape =
        (0..rank).map(|i| if axes.contains(&i) { 1 } else { rest.next().unwrap_or(1) }).collect();
    c.finish(Op::Reshape { shape }, &[x])
}

fn slice(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let starts = c.walk.integers(c.input(1)?, "starts")?;
    let ends = c.walk.integers(c.input(2)?, "ends")?;
    let axes = match c.optional(3) {
        Some(id) => c.walk.integers(id, "axes")?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match c.optional(4) {
        Some(id) => c.walk.integers(id, "steps")?,
        None => vec![1; starts.len()],
    };
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(Problem::Form("starts, ends, axes and steps differ in number".into()));
    }
    let mut x = x;
    let (mut begin, mut end, mut step) = (vec![0; dims.len()], dims.clone(), vec![1; dims.len()]);
    for i in 0..starts.len() {
        let a = axis(axes[i], dims.len())?;
        let size = dims[a] as i64;
        let from_front = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
        if steps[i] < 0 {
            // Backwards from `start` down to just above `end`: a gather.
            let (first, stop) = (from_front(starts[i]).min(size - 1), from_front(ends[i]).max(-1));
            let back = usize::try_from(steps[i].unsigned_abs()).unwrap_or(usize::MAX);
            let count = if first >= 0 && first > stop {
                ((first - stop) as usize).div_ceil(back)
            } else {
                0
            };
            c.walk.spend(count)?;
            let indices: Vec<i64> = (0..count).map(|k| first - (k * back) as i64).collect();
            let name = c.walk.fresh(c.output);
            end[a] = indices.len();
            let indices =
                c.walk.graph.add_constant(name, Tensor::from_i64([indices.len()], indices));
            x = c.step("reversed", Op::Gather { axis: a }, &[x, indices])?;
            continue;
        }
        begin[a] = from_front(starts[i]).clamp(0, size) as usize;
        end[a] = (from_front(ends[i]).clamp(0, size) as usize).max(begin[a]);
        let positive = usize::try_from(steps[i])
            .ok()
            .filter(|&s| s > 0)
            .ok_or_else(|| Problem::Form("step is zero".into()))?;
        // A step beyond the axis takes its first element, as a step of its whole length does.
        step[a] = positive.min(dims[a].max(1));
    }
    c.finish(Op::Slice { begin, end, step }, &[x])
}

/// One slice an output.
fn split(c: &mut Context<'_, '_>, opset: i64) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let a = axis(c.attributes.int("axis", 0), dims.len())?;
    let outputs = c.attributes.0.output.clone();
    let parts = match c.optional(1) {
        Some(_) => target(c, 1, "the split sizes")?,
        None => {
            let count = outputs.len();
            let wanted = c.attributes.int("num_outputs", count as i64);
            if opset >= 18 && wanted != count as i64 {
                return Err(Problem::Form(format!(
                    "num_outputs is {wanted}, but {count} are named"
                )));
            }
            let part = dims[a].div_ceil(count);
            (0..count).map(|i| part.min(dims[a].saturating_sub(i * part))).collect()
        }
    };
    let total = parts.iter().try_fold(0usize, |n, &part| n.checked_add(part));
    if parts.len() < outputs.len() || total != Some(dims[a]) {
        return Err(Problem::Form(format!("axis of {} into {parts:?}", dims[a])));
    }
    let mut at = 0;
    for (i, (output, part)) in outputs.iter().zip(parts).enumerate() {
        let (mut begin, mut end) = (vec![0; dims.len()], dims.clone());
        (begin[a], end[a]) = (at, at + part);
        at += part;
        if !output.is_empty() {
            let op = Op::Slice { begin, end, step: vec![1; dims.len()] };
            let id = c.walk.emit(&format!("{}_{i}", c.name), op, &[x], output)?;
            c.walk.bind(output, id);
        }
    }
    Ok(())
}

fn expand(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let target = target(c, 1, "the target shape")?;
    let shape = rockshard_graph::broadcast(c.walk.shape(x), &target)
        .ok_or_else(|| Problem::Form(format!("{:?} to {target:?}", c.walk.shape(x))))?;
    if shape == c.walk.shape(x) {
        c.walk.bind(c.output, x);
        return Ok(());
    }
    c.finish(Op::Expand { shape }, &[x])
}

/// Repetition as a concatenation of the input with itself, an axis at a time.
fn tile(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    const LARGEST: usize = 4096;
    let mut x = c.input(0)?;
    let repeats = target(c, 1, "the repeats")?;
    if repeats.len() != c.rank(x) || repeats.iter().any(|&r| r == 0 || r > LARGEST) {
        return Err(Problem::Form(format!("repeats {repeats:?} of shape {:?}", c.walk.shape(x))));
    }
    for (axis, &count) in repeats.iter().enumerate().filter(|&(_, &r)| r > 1) {
        x = c.step("tile", Op::Concat { axis }, &vec![x; count])?;
    }
    c.walk.bind(c.output, x);
    Ok(())
}

fn pad(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let rank = c.rank(x);
    if c.attributes.text("mode", "constant") != "constant" {
        return Err(Problem::Form(format!(
            "mode {} is not supported",
            c.attributes.text("mode", "")
        )));
    }
    let pads = c.walk.integers(c.input(1)?, "pads")?;
    let value = match c.optional(2) {
        Some(id) => c.walk.graph.scalar(id).ok_or(Problem::DataDependent("the padding value"))?,
        None => 0.0,
    };
    let axes = match c.optional(3) {
        Some(id) => c.walk.integers(id, "axes")?,
        None => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|&p| p < 0) {
        return Err(Problem::Form(format!(
            "pads {pads:?} (cropping by negative pads is not supported)"
        )));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in axes.iter().enumerate() {
        let a = axis(a, rank)?;
        check_shape(&[pads[i] as usize])?;
        check_shape(&[pads[i + axes.len()] as usize])?;
        before[a] = pads[i] as usize;
        after[a] = pads[i + axes.len()] as usize;
    }
    c.finish(Op::Pad { before, after, value }, &[x])
}

fn resize(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let &[n, channels, height, width] = c.walk.shape(x) else {
        return Err(Problem::Form(format!("shape {:?} has not 4 axes", c.walk.shape(x))));
    };
    let dims = [n, channels, height, width];
    if height == 0 || width == 0 {
        return Err(Problem::Form(format!("shape {dims:?} has no pixels")));
    }
    let some = |i: usize| c.optional(i).filter(|&id| c.walk.value(id).count() > 0);
    let full: Vec<usize> = if some(3).is_some() {
        target(c, 3, "the sizes")?
    } else {
        let id = some(2).ok_or_else(|| Problem::Form("has neither sizes nor scales".into()))?;
        let scales = c.walk.constant(id).ok_or(Problem::DataDependent("the scales"))?;
        let scales = scales.to_f32().map_err(|e| Problem::Form(e.to_string()))?;
        scales.iter().zip(dims).map(|(&s, d)| (d as f32 * s).floor() as usize).collect()
    };
    let (n2, c2, h, w) = match full[..] {
        [n, c, h, w] => (n, c, h, w),
        _ => return Err(Problem::Form(format!("size {full:?} has not 4 axes"))),
    };
    if (n2, c2) != (n, channels) || h == 0 || w == 0 {
        return Err(Problem::Form(format!(
            "{dims:?} to {full:?}; only height and width can change"
        )));
    }
    let coordinates = c.attributes.text("coordinate_transformation_mode", "half_pixel");
    let whole = h % height == 0 && w % width == 0;
    let mode = match (c.attributes.text("mode", "nearest"), coordinates) {
        // For whole-number factors, these conventions all take pixel floor(i / factor).
        ("nearest", "asymmetric")
            if c.attributes.text("nearest_mode", "round_prefer_floor") == "floor"
                || (h, w) == (height, width) =>
        {
            Resize::Nearest
        }
        ("nearest", "half_pixel") if whole => Resize::Nearest,
        ("linear", "half_pixel" | "pytorch_half_pixel") if h > 1 && w > 1 => Resize::Linear,
        (mode, coordinates) => {
            return Err(Problem::Form(format!(
                "mode {mode} with {coordinates} coordinates is not supported"
            )));
        }
    };
    c.finish(Op::Resize { mode, size: [h, w] }, &[x])
}
