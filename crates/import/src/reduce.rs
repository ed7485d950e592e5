//! Reductions over axes, and where their largest and smallest elements are.

use crate::Problem;
use crate::attributes::axis;
use crate::operators::Context;
use rockshard_graph::{Binary, Op, Reduce, Unary, ValueId};
use rockshard_tensor::{DType, Tensor};

/// Whether an operator of the standard domain is imported here.
pub(crate) fn is_one(op: &str) -> bool {
    op.starts_with("Reduce")
        || matches!(op, "GlobalAveragePool" | "GlobalMaxPool" | "ArgMax" | "ArgMin")
}

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "GlobalAveragePool" => global(c, Reduce::Mean),
        "GlobalMaxPool" => global(c, Reduce::Max),
        "ArgMax" => arg_max(c, false),
        "ArgMin" => arg_max(c, true),
        _ => over_axes(c, op),
    }
}

fn global(c: &mut Context<'_, '_>, kind: Reduce) -> Result<(), Problem> {
    let x = c.input(0)?;
    let axes = (2..c.rank(x)).collect();
    c.finish(Op::Reduce { kind, axes, keep: true }, &[x])
}

/// The first of equal ones; the last where that is asked for, as the first of the reversed axis.
fn arg_max(c: &mut Context<'_, '_>, smallest: bool) -> Result<(), Problem> {
    let mut x = c.input(0)?;
    let axis = axis(c.attributes.int("axis", 0), c.rank(x))?;
    let keep = c.attributes.int("keepdims", 1) != 0;
    if smallest {
        x = c.step("negative", Op::Unary(Unary::Neg), &[x])?;
    }
    if c.attributes.int("select_last_index", 0) == 0 {
        return c.finish(Op::ArgMax { axis, keep }, &[x]);
    }
    let last = c.walk.shape(x)[axis] as i64 - 1;
    c.walk.spend(c.walk.shape(x)[axis])?;
    let places =
        c.constant("places", Tensor::from_i64([last as usize + 1], (0..=last).rev().collect()));
    let reversed = c.step("reversed", Op::Gather { axis }, &[x, places])?;
    let found = c.step("found", Op::ArgMax { axis, keep }, &[reversed])?;
    let last = c.constant("last", Tensor::from_i64([], vec![last]));
    c.finish(Op::Binary(Binary::Sub), &[last, found])
}

fn over_axes(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    let x = c.input(0)?;
    let given = match c.optional(1) {
        Some(axes) => Some(c.walk.integers(axes, "axes")?),
        None => c.attributes.ints("axes").map(<[i64]>::to_vec),
    };
    let given = given.filter(|a| !a.is_empty());
    let keep = c.attributes.int("keepdims", 1) != 0;
    let nothing = given.is_none() && c.attributes.int("noop_with_empty_axes", 0) != 0;
    let rank = c.rank(x);
    let mut axes = match given {
        None => (0..rank).collect(),
        Some(axes) => axes.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?,
    };
    axes.sort_unstable();
    axes.dedup();
    let empty = axes.iter().any(|&a| c.walk.shape(x)[a] == 0);
    if empty && c.walk.value(x).dtype == DType::Bool {
        return Err(Problem::Form("a largest or smallest of no truth values".into()));
    }
    let over = |kind| match nothing {
        true => None,
        false => Some(Op::Reduce { kind, axes: axes.clone(), keep }),
    };
    let sum = over(Reduce::Sum);
    match op {
        "ReduceMean" => plain(c, over(Reduce::Mean), x),
        "ReduceSum" => plain(c, sum, x),
        "ReduceMax" => plain(c, over(Reduce::Max), x),
        "ReduceMin" => plain(c, over(Reduce::Min), x),
        "ReduceProd" => plain(c, over(Reduce::Prod), x),
        "ReduceL1" => {
            let sizes = c.step("sizes", Op::Unary(Unary::Abs), &[x])?;
            plain(c, sum, sizes)
        }
        "ReduceSumSquare" => {
            let squares = c.binary("squares", Binary::Mul, x, x)?;
            plain(c, sum, squares)
        }
        "ReduceL2" => {
            let squares = c.binary("squares", Binary::Mul, x, x)?;
            let total = stepped(c, sum, squares)?;
            c.finish(Op::Unary(Unary::Sqrt), &[total])
        }
        "ReduceLogSum" => {
            let total = stepped(c, sum, x)?;
            c.finish(Op::Unary(Unary::Log), &[total])
        }
        "ReduceLogSumExp" => log_sum_exp(c, x, &axes, keep, nothing),
        _ => Err(Problem::Unsupported),
    }
}

fn plain(c: &mut Context<'_, '_>, op: Option<Op>, x: ValueId) -> Result<(), Problem> {
    match op {
        Some(op) => c.finish(op, &[x]),
        None => c.alias(x),
    }
}

fn stepped(c: &mut Context<'_, '_>, op: Option<Op>, x: ValueId) -> Result<ValueId, Problem> {
    match op {
        Some(op) => c.step("total", op, &[x]),
        None => Ok(x),
    }
}

/// `max + log(sum(exp(x - max)))`, so that no power overflows.
fn log_sum_exp(
    c: &mut Context<'_, '_>,
    x: ValueId,
    axes: &[usize],
    keep: bool,
    nothing: bool,
) -> Result<(), Problem> {
    if nothing {
        return c.alias(x);
    }
    let over = |kind| Op::Reduce { kind, axes: axes.to_vec(), keep: true };
    let top = c.step("top", over(Reduce::Max), &[x])?;
    let below = c.binary("below", Binary::Sub, x, top)?;
    let powers = c.step("powers", Op::Unary(Unary::Exp), &[below])?;
    let total = c.step("total", over(Reduce::Sum), &[powers])?;
    let log = c.step("log", Op::Unary(Unary::Log), &[total])?;
    if keep {
        return c.finish(Op::Binary(Binary::Add), &[log, top]);
    }
    let sum = c.binary("sum", Binary::Add, log, top)?;
    let shape = (0..c.rank(x)).filter(|a| !axes.contains(a)).map(|a| c.walk.shape(x)[a]).collect();
    c.finish(Op::Reshape { shape }, &[sum])
}
