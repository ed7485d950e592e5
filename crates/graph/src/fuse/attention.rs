//! Attention in the forms that exporters write it.

use super::Match;
use crate::{Binary, NodeId, Op, Patch, ValueId};

/// `softmax(q k * scale + mask) v`; the scale may stand on the scores, on q, on k, or as its root on both.
pub(super) fn attention(m: &Match<'_>, id: NodeId, declined: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    if node.op != Op::MatMul {
        return None;
    }
    let softmax = m.maker(node.inputs[0])?;
    let Op::Softmax { axis } = softmax.op else { return None };
    let mut decline = |why: &str| {
        declined.push(format!("{}: {why}", node.name));
        None
    };
    let rank = m.shape(softmax.output).len();
    if axis + 1 != rank {
        return decline("softmax is not over the keys");
    }
    if !m.links.used_once(softmax.output) {
        return decline("the attention probabilities are used elsewhere");
    }
    let mut scores = softmax.inputs[0];
    let mut mask = None;
    if let Some([a, b]) = m.inner(scores).and_then(|n| m.operands(n, Binary::Add)) {
        let is_scores = |v: ValueId| m.shape(v) == m.shape(scores) && has_product(m, v);
        match m.ordered([a, b], is_scores) {
            Some([product, other]) => {
                mask = (!is_zero(m, other)).then_some(other);
                scores = product;
            }
            None => return decline("the softmax's input is a sum without a product of q and k"),
        }
    }
    let (product, mut scale) = unscaled(m, scores);
    let Some(product) = m.inner(product).filter(|n| n.op == Op::MatMul) else {
        return decline("the softmax's input is not a product of q and k");
    };
    let mut operands = [product.inputs[0], product.inputs[1]];
    for operand in &mut operands {
        let (bare, factor) = unscaled(m, *operand);
        *operand = bare;
        scale *= factor;
    }
    let mut inputs = vec![operands[0], operands[1], node.inputs[1]];
    if inputs.iter().any(|&v| m.shape(v).len() < 2) {
        return decline("q, k or v is a vector");
    }
    inputs.extend(mask);
    let mut patch = Patch::new(m.graph, id, format!("attention at {}", node.name));
    let out =
        patch.node(m.graph, node.name.clone() + "/Attention", Op::Attention { scale }, inputs);
    patch.replace(node.output, out);
    Some(patch)
}

/// A value without a factor by a scalar constant, and the factor.
fn unscaled(m: &Match<'_>, value: ValueId) -> (ValueId, f32) {
    let Some(node) = m.inner(value) else { return (value, 1.0) };
    // A factor with more axes gives the product more axes than it had.
    let same_shape = |x: ValueId| m.shape(x) == m.shape(value);
    if let Some([x, divisor]) = m.operands(node, Binary::Div)
        && let Some(divisor) = m.graph.scalar(divisor)
        && same_shape(x)
    {
        return (x, divisor.recip());
    }
    if let Some(operands) = m.operands(node, Binary::Mul)
        && let Some([factor, x]) = m.ordered(operands, |v| m.graph.scalar(v).is_some())
        && let Some(factor) = m.graph.scalar(factor)
        && same_shape(x)
    {
        return (x, factor);
    }
    (value, 1.0)
}

fn has_product(m: &Match<'_>, value: ValueId) -> bool {
    m.inner(unscaled(m, value).0).is_some_and(|n| n.op == Op::MatMul)
}

/// The zero matrix that `baddbmm` adds in plain attention processors: stored zeros, or one zero broadcast.
fn is_zero(m: &Match<'_>, value: ValueId) -> bool {
    let source = match m.maker(value) {
        Some(node) if matches!(node.op, Op::Expand { .. }) => node.inputs[0],
        Some(node) if node.op == Op::Binary(Binary::Mul) => {
            // beta * zeros, with beta = 0 as baddbmm is called.
            return node.inputs.iter().any(|&v| m.graph.scalar(v) == Some(0.0));
        }
        _ => value,
    };
    m.graph.constant(source).is_some_and(|t| t.bytes().iter().all(|&b| b == 0))
}
