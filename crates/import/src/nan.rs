//! `IsNaN`. Exporters put it behind the softmax of a masked attention, where a row that the mask hides whole would be a mean of nothing,
//! which no other arithmetic on finite numbers makes. With a constant mask that leaves something of every row, the answer is known.

use crate::Problem;
use crate::operators::Context;
use rockshard_graph::{Binary, Op, ValueId};
use rockshard_tensor::Tensor;

pub(crate) fn is_nan(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let shape = c.walk.shape(x).to_vec();
    let count = shape.iter().product();
    c.walk.spend(count)?;
    let answer = match c.walk.constant(x).cloned() {
        Some(tensor) => {
            let values =
                tensor.to_f32().map_err(|_| Problem::Form("input 0 is not real".into()))?;
            values.iter().map(|v| v.is_nan()).collect()
        }
        None if is_softmax_of_seen_rows(c, x)? => vec![false; count],
        None => return Err(Problem::Unsupported),
    };
    c.walk.bind_constant(c.output, Tensor::from_bool(shape, answer))
}

fn is_softmax_of_seen_rows(c: &mut Context<'_, '_>, value: ValueId) -> Result<bool, Problem> {
    // What looking for the makers may take.
    c.walk.spend(c.walk.graph.nodes().len())?;
    let maker = |v: ValueId| c.walk.graph.nodes().iter().rev().find(|n| n.output == v);
    let Some((scores, axis)) = maker(value).and_then(|n| {
        if let Op::Softmax { axis } = n.op { Some((n.inputs[0], axis)) } else { None }
    }) else {
        return Ok(false);
    };
    let mask = match maker(scores) {
        Some(n) if n.op == Op::Binary(Binary::Add) => {
            n.inputs.iter().copied().find(|&v| c.walk.constant(v).is_some())
        }
        // Products of finite numbers.
        Some(n) => return Ok(matches!(n.op, Op::MatMul | Op::Binary(Binary::Mul | Binary::Div))),
        None => return Ok(false),
    };
    let Some(mask) = mask else { return Ok(false) };
    let rank = c.walk.shape(scores).len();
    let tensor = c.walk.constant(mask).expect("found as a constant").clone();
    c.walk.spend(tensor.len())?;
    let Ok(values) = tensor.to_f32() else { return Ok(false) };
    // A mask without the axis, or with one element on it, hides all of a row or nothing.
    let row = if axis + 1 == rank { tensor.shape().last().copied().unwrap_or(1).max(1) } else { 1 };
    let not_hidden = |v: &f32| v.is_finite();
    Ok(!values.is_empty()
        && values.iter().all(|v| *v < f32::INFINITY)
        && values.chunks(row).all(|r| r.iter().any(not_hidden)))
}

/// `Where`; with a constant condition that is the same throughout, the operand it chooses.
pub(crate) fn choose(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (condition, a, b) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let chosen = c.walk.constant(condition).and_then(|t| t.to_i64().ok()).and_then(|v| {
        let first = *v.first()?;
        v.iter().all(|&x| x == first).then_some(if first == 0 { b } else { a })
    });
    let shape = |v: ValueId| c.walk.shape(v).to_vec();
    let widest = [condition, a, b]
        .map(shape)
        .into_iter()
        .try_fold(Vec::new(), |s, t| rockshard_graph::broadcast(&s, &t));
    match chosen {
        Some(v) if c.walk.value(a).dtype == c.walk.value(b).dtype && Some(shape(v)) == widest => {
            c.walk.bind(c.output, v);
            Ok(())
        }
        _ => c.finish(Op::Where, &[condition, a, b]),
    }
}
