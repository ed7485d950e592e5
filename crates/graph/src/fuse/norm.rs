//! Norms that exporters write out as several nodes.

use super::Match;
use crate::{Binary, NodeId, Op, Patch, Reduce, Unary, ValueId};

/// Mean, difference, variance, root, quotient, scale and shift over the last axis.
pub(super) fn layer_norm(m: &Match<'_>, id: NodeId, _: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    let sum = m.operands(node, Binary::Add)?;
    let [beta, scaled] = m.ordered(sum, |v| m.graph.constant(v).is_some())?;
    let product = m.operands(m.inner(scaled)?, Binary::Mul)?;
    let [gamma, quotient] = m.ordered(product, |v| m.graph.constant(v).is_some())?;
    let [difference, deviation] = m.operands(m.inner(quotient)?, Binary::Div)?;
    let root = m.inner(deviation).filter(|n| n.op == Op::Unary(Unary::Sqrt))?;
    let variance = m.operands(m.inner(root.inputs[0])?, Binary::Add)?;
    let [epsilon, mean_square] = m.ordered(variance, |v| m.graph.scalar(v).is_some())?;
    let last = m.shape(difference).len().checked_sub(1)?;
    let over_last = |op: &Op| matches!(op, Op::Reduce { kind: Reduce::Mean, axes, keep: true } if *axes == [last]);
    let mean_square = m.inner(mean_square).filter(|n| over_last(&n.op))?;
    let square = m.inner(mean_square.inputs[0])?;
    let squared = match square.op {
        Op::Binary(Binary::Pow) => {
            square.inputs[0] == difference && m.is_scalar(square.inputs[1], 2.0)
        }
        Op::Binary(Binary::Mul) => square.inputs == [difference, difference],
        _ => false,
    };
    let [x, mean] = m.operands(m.maker(difference)?, Binary::Sub)?;
    let mean = m.maker(mean).filter(|n| over_last(&n.op))?;
    let tail = m.shape(x).get(last..)?;
    if !squared || mean.inputs[0] != x || m.shape(gamma) != tail || m.shape(beta) != tail {
        return None;
    }
    let mut patch = Patch::new(m.graph, id, format!("layer norm at {}", node.name));
    let op = Op::LayerNorm { axis: last, epsilon: m.graph.scalar(epsilon)? };
    let out =
        patch.node(m.graph, node.name.clone() + "/LayerNormalization", op, vec![x, gamma, beta]);
    patch.replace(node.output, out);
    Some(patch)
}

/// Reshape to groups, instance norm without scale, reshape back, scale and shift by channel.
pub(super) fn group_norm(m: &Match<'_>, id: NodeId, declined: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    let sum = m.operands(node, Binary::Add)?;
    let [beta, scaled] = m.ordered(sum, |v| m.graph.constant(v).is_some())?;
    let product = m.operands(m.inner(scaled)?, Binary::Mul)?;
    let [gamma, normal] = m.ordered(product, |v| m.graph.constant(v).is_some())?;
    let back = m.inner(normal).filter(|n| matches!(n.op, Op::Reshape { .. }))?;
    let norm = m.inner(back.inputs[0])?;
    let Op::InstanceNorm { epsilon } = norm.op else { return None };
    let groups = m.inner(norm.inputs[0]).filter(|n| matches!(n.op, Op::Reshape { .. }))?;
    let x = groups.inputs[0];
    let (whole, grouped) = (m.shape(x), m.shape(groups.output));
    if whole != m.shape(back.output)
        || whole.len() < 2
        || grouped.len() < 2
        || whole[0] != grouped[0]
        || grouped[1] == 0
        || whole[1] % grouped[1] != 0
    {
        return None;
    }
    let plain = |v: ValueId, expected: f32| {
        m.graph
            .constant(v)
            .and_then(|t| t.to_f32().ok())
            .is_some_and(|t| t.iter().all(|&v| v == expected))
    };
    if !plain(norm.inputs[1], 1.0) || !plain(norm.inputs[2], 0.0) {
        declined
            .push(format!("{}: the instance norm inside has its own scale and bias", node.name));
        return None;
    }
    let channels = whole[1];
    // By channel: [C, 1, ...] or [1, C, 1, ...] against [N, C, ...].
    let by_channel = |v: ValueId| {
        let shape = m.shape(v);
        let axis = (shape.len() + 1).checked_sub(whole.len());
        let fits = axis.is_some_and(|a| {
            shape.iter().enumerate().all(|(i, &d)| d == if i == a { channels } else { 1 })
        });
        fits.then(|| m.graph.constant(v)?.reshape([channels]).ok())?
    };
    let (gamma_values, beta_values) = (by_channel(gamma)?, by_channel(beta)?);
    let mut patch = Patch::new(m.graph, id, format!("group norm at {}", node.name));
    let gamma = patch.constant(format!("{}_by_channel", m.graph.value(gamma).name), gamma_values);
    let beta = patch.constant(format!("{}_by_channel", m.graph.value(beta).name), beta_values);
    let op = Op::GroupNorm { groups: grouped[1], epsilon };
    let out =
        patch.node(m.graph, node.name.clone() + "/GroupNormalization", op, vec![x, gamma, beta]);
    patch.replace(node.output, out);
    Some(patch)
}
