//! Operators that move elements without looking at them.

use crate::Problem;
use crate::attributes::axis;
use crate::operators::Context;
use crate::shape::target;
use crate::walk::check_shape;
use rockshard_graph::{Op, ValueId};
use rockshard_tensor::Tensor;

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "Transpose" => {
            let x = c.input(0)?;
            let rank = c.rank(x);
            let perm = c.attributes.sizes("perm")?.unwrap_or_else(|| (0..rank).rev().collect());
            c.finish(Op::Transpose { perm }, &[x])
        }
        "Concat" => concat(c),
        "Slice" => slice(c),
        "Split" => split(c),
        "Tile" => tile(c),
        "Pad" => pad(c),
        "DepthToSpace" => depth_to_space(c),
        "SpaceToDepth" => space_to_depth(c),
        _ => Err(Problem::Unsupported),
    }
}

/// Parts without elements are left out.
fn concat(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let first = c.input(0)?;
    let axis = axis(c.attributes.int("axis", 0), c.rank(first))?;
    let all: Vec<ValueId> = c.inputs.iter().flatten().copied().collect();
    let full = |v: &ValueId| c.walk.value(*v).count() > 0 || c.rank(*v) != c.rank(first);
    let inputs: Vec<ValueId> = all.iter().copied().filter(full).collect();
    match inputs[..] {
        [] => c.alias(first),
        _ => c.finish(Op::Concat { axis }, &inputs),
    }
}

/// A block of channels becomes a block of pixels.
fn depth_to_space(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let (&[n, channels, h, w], b) = (c.walk.shape(x), block(c)?) else {
        return Err(Problem::Form("needs four axes".into()));
    };
    let Some(area) = b.checked_mul(b).filter(|area| channels > 0 && channels % area == 0) else {
        return Err(Problem::Form(format!("{channels} channels in blocks of {b} by {b}")));
    };
    let deep = channels / area;
    let (split, perm) = match c.attributes.text("mode", "DCR") {
        "DCR" => (vec![n, b, b, deep, h, w], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => (vec![n, deep, b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
        other => return Err(Problem::Form(format!("mode {other} is not supported"))),
    };
    let split = c.reshaped(x, split)?;
    let moved = c.step("moved", Op::Transpose { perm }, &[split])?;
    c.finish(Op::Reshape { shape: vec![n, deep, h * b, w * b] }, &[moved])
}

/// A block of pixels becomes a block of channels.
fn space_to_depth(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let (&[n, channels, h, w], b) = (c.walk.shape(x), block(c)?) else {
        return Err(Problem::Form("needs four axes".into()));
    };
    if h % b != 0 || w % b != 0 {
        return Err(Problem::Form(format!("{h} by {w} pixels in blocks of {b} by {b}")));
    }
    let split = c.reshaped(x, vec![n, channels, h / b, b, w / b, b])?;
    let moved = c.step("moved", Op::Transpose { perm: vec![0, 3, 5, 1, 2, 4] }, &[split])?;
    let channels = channels.saturating_mul(b).saturating_mul(b);
    c.finish(Op::Reshape { shape: vec![n, channels, h / b, w / b] }, &[moved])
}

fn block(c: &Context<'_, '_>) -> Result<usize, Problem> {
    let size = c.attributes.int("blocksize", 0);
    usize::try_from(size)
        .ok()
        .filter(|&b| b > 0)
        .ok_or_else(|| Problem::Form(format!("blocksize {size} is not positive")))
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
fn split(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let a = axis(c.attributes.int("axis", 0), dims.len())?;
    let outputs = c.attributes.0.output.clone();
    let parts = match (c.optional(1), c.attributes.sizes("split")?) {
        (Some(_), _) => target(c, 1, "the split sizes")?,
        (None, Some(sizes)) => sizes,
        (None, None) => {
            let count = outputs.len();
            let wanted = c.attributes.int("num_outputs", count as i64);
            if c.opset >= 18 && wanted != count as i64 {
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

/// What a border is made of.
#[derive(Clone, Copy, PartialEq)]
enum Border {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

fn pad(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let mut x = c.input(0)?;
    let rank = c.rank(x);
    let border = match c.attributes.text("mode", "constant") {
        "constant" => Border::Constant,
        "edge" => Border::Edge,
        "reflect" => Border::Reflect,
        "wrap" => Border::Wrap,
        other => return Err(Problem::Form(format!("mode {other} is not supported"))),
    };
    let pads = c.walk.integers(c.input(1)?, "pads")?;
    let value = match c.optional(2) {
        Some(id) => c.walk.number(id).ok_or(Problem::DataDependent("the padding value"))? as f32,
        None => 0.0,
    };
    let axes = match c.optional(3) {
        Some(id) => c.walk.integers(id, "axes")?,
        None => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Problem::Form(format!("pads {pads:?} for {} axes", axes.len())));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in axes.iter().enumerate() {
        let a = axis(a, rank)?;
        let (first, last) = (pads[i], pads[i + axes.len()]);
        // Negative amounts crop.
        let size = c.walk.shape(x)[a];
        let crop =
            |amount: i64| usize::try_from(amount.min(0).unsigned_abs()).unwrap_or(usize::MAX);
        let (from, to) = (crop(first), size.checked_sub(crop(last)));
        let Some(to) = to.filter(|&to| from <= to) else {
            return Err(Problem::Form(format!("pads {pads:?} crop more than there is")));
        };
        if (from, to) != (0, size) {
            x = c.part(x, a, from, to, 1)?;
        }
        before[a] = first.max(0) as usize;
        after[a] = last.max(0) as usize;
        check_shape(&[before[a]])?;
        check_shape(&[after[a]])?;
    }
    if border == Border::Constant {
        return c.finish(Op::Pad { before, after, value }, &[x]);
    }
    for a in (0..rank).filter(|&a| before[a] + after[a] > 0) {
        x = extended(c, x, a, before[a], after[a], border)?;
    }
    c.alias(x)
}

/// An axis with a border of its own elements, taken by their places.
fn extended(
    c: &mut Context<'_, '_>,
    x: ValueId,
    axis: usize,
    before: usize,
    after: usize,
    border: Border,
) -> Result<ValueId, Problem> {
    let size = c.walk.shape(x)[axis] as i64;
    if size == 0 {
        return Err(Problem::Form("an axis to be extended has no elements".into()));
    }
    let count = before.saturating_add(size as usize).saturating_add(after);
    c.walk.spend(count)?;
    let place = |i: i64| match border {
        Border::Edge | Border::Constant => i.clamp(0, size - 1),
        Border::Wrap => i.rem_euclid(size),
        Border::Reflect if size == 1 => 0,
        Border::Reflect => {
            let turn = i.rem_euclid(2 * (size - 1));
            turn.min(2 * (size - 1) - turn)
        }
    };
    let places = (0..count as i64).map(|i| place(i - before as i64)).collect();
    let places = c.constant("places", Tensor::from_i64([count], places));
    c.step("extended", Op::Gather { axis }, &[x, places])
}
