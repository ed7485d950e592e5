//! Operators that choose elements by index.

use crate::attributes::axis;
use crate::operators::Context;
use crate::{Problem, positions};
use rockshard_graph::{Binary, Op, ValueId};
use rockshard_tensor::{DType, Tensor};

/// Whether an operator of the standard domain is imported here.
pub(crate) fn is_one(op: &str) -> bool {
    matches!(op, "Gather" | "GatherND" | "OneHot" | "Trilu")
}

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "Gather" => gather(c),
        "GatherND" => gather_nd(c),
        "OneHot" => one_hot(c),
        _ => trilu(c),
    }
}

fn gather(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (x, indices) = (c.input(0)?, c.input(1)?);
    let axis = axis(c.attributes.int("axis", 0), c.rank(x))?;
    let indices = c.indices(indices)?;
    let indices = if axis == 0 { positions::repaired(c, x, indices)? } else { indices };
    if takes_all(c, x, axis, indices) {
        return c.alias(x);
    }
    c.finish(Op::Gather { axis }, &[x, indices])
}

/// Whether indices are all of an axis, in order; where looking costs too much, they need not be.
fn takes_all(c: &mut Context<'_, '_>, x: ValueId, axis: usize, indices: ValueId) -> bool {
    let extent = c.walk.shape(x)[axis];
    let constant = c.walk.constant(indices).filter(|t| t.shape() == [extent]).cloned();
    let indices = constant.filter(|_| c.walk.afford(extent as u64));
    let indices = indices.as_ref().and_then(|t| t.to_i64().ok());
    indices.is_some_and(|indices| (0..).zip(indices.iter()).all(|(at, &index)| index == at))
}

/// Places in the flattened leading axes, which a Gather takes.
fn gather_nd(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    if c.attributes.int("batch_dims", 0) != 0 {
        return Err(Problem::Unsupported);
    }
    let (x, indices) = (c.input(0)?, c.input(1)?);
    let indices = c.indices(indices)?;
    let dims = c.walk.shape(x).to_vec();
    let (form, depth) = match c.walk.shape(indices) {
        [form @ .., depth] if (1..=dims.len()).contains(depth) => (form.to_vec(), *depth),
        other => {
            return Err(Problem::Form(format!("indices of shape {other:?} into shape {dims:?}")));
        }
    };
    let last = c.rank(indices) - 1;
    let mut place: Option<ValueId> = None;
    for (i, &extent) in dims[..depth].iter().enumerate() {
        let column = c.part(indices, last, i, i + 1, 1)?;
        let column = c.reshaped(column, form.clone())?;
        let column = counted_from_start(c, column, extent)?;
        place = Some(match place {
            None => column,
            Some(place) => {
                let extent = number(c, extent as i64);
                let scaled = c.binary("scaled", Binary::Mul, place, extent)?;
                c.binary("place", Binary::Add, scaled, column)?
            }
        });
    }
    let place = place.ok_or(Problem::Unsupported)?;
    let flat = [vec![dims[..depth].iter().product()], dims[depth..].to_vec()].concat();
    let flat = c.reshaped(x, flat)?;
    if takes_all(c, flat, 0, place) {
        return c.alias(flat);
    }
    c.finish(Op::Gather { axis: 0 }, &[flat, place])
}

fn number(c: &mut Context<'_, '_>, value: i64) -> ValueId {
    c.constant("number", Tensor::from_i64([], vec![value]))
}

/// Indices without those that count from the end.
fn counted_from_start(
    c: &mut Context<'_, '_>,
    index: ValueId,
    extent: usize,
) -> Result<ValueId, Problem> {
    let (zero, extent) = (number(c, 0), number(c, extent as i64));
    let index = match c.walk.value(index).dtype {
        DType::I64 => index,
        _ => c.step("index", Op::Cast(DType::I64), &[index])?,
    };
    let behind = c.binary("behind", Binary::Less, index, zero)?;
    let moved = c.binary("moved", Binary::Add, index, extent)?;
    c.step("from_start", Op::Where, &[behind, moved, index])
}

/// One value where the index is, another elsewhere, along a new axis.
fn one_hot(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (indices, values) = (c.input(0)?, c.input(2)?);
    let depth = c.walk.number(c.input(1)?).ok_or(Problem::DataDependent("the depth"))?;
    let depth = depth.clamp(0.0, 1e7) as usize;
    c.walk.spend(depth)?;
    let mut shape = c.walk.shape(indices).to_vec();
    let at = axis(c.attributes.int("axis", -1), shape.len() + 1)?;
    let indices = c.indices(indices)?;
    let indices = counted_from_start(c, indices, depth)?;
    let along: Vec<usize> = (0..=shape.len()).map(|a| if a == at { depth } else { 1 }).collect();
    let places = c.constant("places", Tensor::from_i64(along, (0..depth as i64).collect()));
    shape.insert(at, 1);
    let column = c.reshaped(indices, shape)?;
    let here = c.binary("here", Binary::Equal, column, places)?;
    let off = c.part(values, 0, 0, 1, 1)?;
    let on = c.part(values, 0, 1, 2, 1)?;
    let (on, off) = (c.reshaped(on, vec![])?, c.reshaped(off, vec![])?);
    c.finish(Op::Where, &[here, on, off])
}

/// A triangle of a matrix: of a constant one at once, of another by a constant choice.
fn trilu(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let k = match c.optional(1) {
        Some(k) => c.walk.integers(k, "the diagonal")?.first().copied().unwrap_or(0),
        None => 0,
    };
    let upper = c.attributes.int("upper", 1) != 0;
    let &[.., rows, columns] = c.walk.shape(x) else {
        return Err(Problem::Form("needs a matrix".into()));
    };
    c.walk.spend(rows.saturating_mul(columns))?;
    let keep = |i: usize| {
        let distance = ((i % columns) as i64).saturating_sub((i / columns) as i64);
        if upper { distance >= k } else { distance <= k }
    };
    let choice = Tensor::from_bool([rows, columns], (0..rows * columns).map(keep).collect());
    let choice = c.constant("choice", choice);
    let zero = match c.walk.value(x).dtype {
        DType::I64 => Tensor::from_i64([], vec![0]),
        DType::I32 => Tensor::from_i32([], vec![0]),
        DType::Bool => Tensor::from_bool([], vec![false]),
        _ => Tensor::scalar(0.0),
    };
    let zero = c.constant("zero", zero);
    c.finish(Op::Where, &[choice, x, zero])
}
