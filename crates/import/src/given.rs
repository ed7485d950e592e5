//! What is given about inputs: masks that show everything, and pictures that are there.

use crate::operators::Context;
use crate::{Given, Note, Problem};
use rockshard_graph::{Binary, Node, Op, Reduce, ValueId};
use rockshard_tensor::{DType, Tensor};

/// Changes of type or shape in a row that are looked through, and nodes whose makers are looked for.
const MOST_CHANGES: usize = 4;
const MOST_MAKERS: usize = 2 * MOST_CHANGES + 4;

/// A constant of ones; `None` of a type that masks do not have.
pub(crate) fn ones(dtype: DType, shape: &[usize]) -> Option<Tensor> {
    let count = shape.iter().product();
    Some(match dtype {
        DType::Bool => Tensor::from_bool(shape, vec![true; count]),
        DType::I32 => Tensor::from_i32(shape, vec![1; count]),
        DType::I64 => Tensor::from_i64(shape, vec![1; count]),
        DType::F32 | DType::F16 => return None,
    })
}

/// Whether `Equal` asks if all of a picture's values are 0, of a picture that has others: `ReduceSum(Cast(picture == 0)) == count`. The
/// answer is bound then.
pub(crate) fn is_empty_picture(c: &mut Context<'_, '_>) -> Result<bool, Problem> {
    if !c.walk.given.values().any(|&given| given == Given::Picture) {
        return Ok(false);
    }
    let (a, b) = (c.input(0)?, c.input(1)?);
    let (sum, count) = if c.walk.constant(b).is_some() { (a, b) } else { (b, a) };
    let Some(count) = c.walk.number(count) else { return Ok(false) };
    let shape = c.walk.shape(sum).to_vec();
    let answers: usize = shape.iter().product();
    // What looking for the makers may take.
    c.walk.spend(answers.saturating_add(c.walk.graph.nodes().len() * MOST_MAKERS))?;
    if counted(c, sum) != Some(count) {
        return Ok(false);
    }
    let node = c.name.clone();
    c.walk.notes.push(Note::Pictures { node });
    c.walk.bind_constant(c.output, Tensor::from_bool(shape, vec![false; answers]))?;
    Ok(true)
}

/// How many values of a picture a sum counts the zeros of; `None` where it is no such sum over whole pictures.
fn counted(c: &Context<'_, '_>, sum: ValueId) -> Option<f64> {
    let maker = |v: ValueId| c.walk.graph.nodes().iter().rev().find(|n| n.output == v);
    let through = |mut v: ValueId, same: fn(&Node) -> bool| {
        for _ in 0..MOST_CHANGES {
            let Some(node) = maker(v).filter(|n| same(n)) else { break };
            v = node.inputs[0];
        }
        v
    };
    let sum = maker(sum)?;
    let Op::Reduce { kind: Reduce::Sum, axes, .. } = &sum.op else { return None };
    let zeros = maker(through(sum.inputs[0], |n| matches!(n.op, Op::Cast(_))))?;
    let is_zero = |&v: &ValueId| c.walk.number(v) == Some(0.0);
    if zeros.op != Op::Binary(Binary::Equal) || !zeros.inputs.iter().any(is_zero) {
        return None;
    }
    let values = *zeros.inputs.iter().find(|v| !is_zero(v))?;
    let picture = through(values, |n| matches!(n.op, Op::Cast(_) | Op::Reshape { .. }));
    let given = c.walk.given.get(&c.walk.value(picture).name);
    if !c.walk.graph.inputs.contains(&picture) || given != Some(&Given::Picture) {
        return None;
    }
    let shape = c.walk.shape(values);
    let count: usize = axes.iter().map(|&axis| shape[axis]).product();
    // Planes, rows and columns, whatever shape the pictures of an item were brought in.
    let whole: usize = c.walk.shape(picture).iter().rev().take(3).product();
    (count == whole && axes.len() == 3).then_some(count as f64)
}
