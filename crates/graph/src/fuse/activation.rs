//! Activations that exporters write out as several nodes.

use super::Match;
use crate::{Binary, NodeId, Op, Patch, Unary, ValueId};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

/// `x * sigmoid(x)` and `x * sigmoid(beta * x)`.
pub(super) fn swish(m: &Match<'_>, id: NodeId, _: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    let operands = m.operands(node, Binary::Mul)?;
    let gate = |v: ValueId| m.inner(v).is_some_and(|n| n.op == Op::Unary(Unary::Sigmoid));
    let [gate, x] = m.ordered(operands, gate)?;
    let argument = m.inner(gate)?.inputs[0];
    let beta = if argument == x {
        1.0
    } else {
        let product = m.operands(m.inner(argument)?, Binary::Mul)?;
        let [factor, y] = m.ordered(product, |v| m.graph.scalar(v).is_some())?;
        (y == x).then(|| m.graph.scalar(factor))??
    };
    let mut patch = Patch::new(m.graph, id, format!("x * sigmoid({beta} x) at {}", node.name));
    let out = patch.node(m.graph, node.name.clone() + "/Swish", Op::Swish { beta }, vec![x]);
    patch.replace(node.output, out);
    Some(patch)
}

/// `0.5 x (1 + erf(x / sqrt 2))`, and the tanh form, with the factors in any order.
pub(super) fn gelu(m: &Match<'_>, id: NodeId, _: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    m.operands(node, Binary::Mul)?;
    let mut factors = m.factors(node);
    let half = factors.iter().position(|&v| m.is_scalar(v, 0.5))?;
    factors.remove(half);
    let &[a, b] = factors.as_slice() else { return None };
    let gate = |v: ValueId| {
        let sum = m.operands(m.inner(v)?, Binary::Add)?;
        let [_, inner] = m.ordered(sum, |v| m.is_scalar(v, 1.0))?;
        m.inner(inner).filter(|n| matches!(n.op, Op::Unary(Unary::Erf | Unary::Tanh)))
    };
    let [gated, x] = m.ordered([a, b], |v| gate(v).is_some())?;
    let function = gate(gated)?;
    let tanh = function.op == Op::Unary(Unary::Tanh);
    let matches = if tanh {
        is_tanh_argument(m, function.inputs[0], x)
    } else {
        is_erf_argument(m, function.inputs[0], x)
    };
    if !matches? {
        return None;
    }
    let mut patch = Patch::new(m.graph, id, format!("GELU at {}", node.name));
    let out = patch.node(m.graph, node.name.clone() + "/Gelu", Op::Gelu { tanh }, vec![x]);
    patch.replace(node.output, out);
    Some(patch)
}

fn is_erf_argument(m: &Match<'_>, argument: ValueId, x: ValueId) -> Option<bool> {
    let node = m.inner(argument)?;
    Some(match node.op {
        Op::Binary(Binary::Div) => node.inputs[0] == x && m.is_scalar(node.inputs[1], SQRT_2),
        Op::Binary(Binary::Mul) => {
            let [_, y] =
                m.ordered([node.inputs[0], node.inputs[1]], |v| m.is_scalar(v, FRAC_1_SQRT_2))?;
            y == x
        }
        _ => false,
    })
}

/// `sqrt(2/pi) * (x + 0.044715 x^3)`, the cube as a power or as products.
fn is_tanh_argument(m: &Match<'_>, argument: ValueId, x: ValueId) -> Option<bool> {
    let outer = m.operands(m.inner(argument)?, Binary::Mul)?;
    let [_, sum] = m.ordered(outer, |v| m.is_scalar(v, FRAC_2_SQRT_PI * FRAC_1_SQRT_2))?;
    let terms = m.operands(m.inner(sum)?, Binary::Add)?;
    let [_, cubic] = m.ordered(terms, |v| v == x)?;
    let mut factors = m.factors(m.inner(cubic)?);
    let coefficient = factors.iter().position(|&v| m.is_scalar(v, 0.044715))?;
    factors.remove(coefficient);
    Some(match factors[..] {
        [cube] => {
            let power = m.operands(m.inner(cube)?, Binary::Pow)?;
            power[0] == x && m.is_scalar(power[1], 3.0)
        }
        _ => factors.len() == 3 && factors.iter().all(|&v| v == x),
    })
}

/// A product with one or a quotient by one, as residual blocks with an output scale of one leave them.
pub(super) fn identity(m: &Match<'_>, id: NodeId, _: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    let one = |v: ValueId| m.graph.scalar(v) == Some(1.0);
    let x = match node.op {
        Op::Binary(Binary::Mul) => m.ordered([node.inputs[0], node.inputs[1]], one)?[1],
        Op::Binary(Binary::Div) if one(node.inputs[1]) => node.inputs[0],
        _ => return None,
    };
    // An output keeps a node of its own, and a constant one may have more axes than x.
    if m.links.is_output(node.output) || m.shape(x) != m.shape(node.output) {
        return None;
    }
    let mut patch = Patch::new(m.graph, id, format!("times one at {}", node.name));
    patch.replace(node.output, x);
    Some(patch)
}
