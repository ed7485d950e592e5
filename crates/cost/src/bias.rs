//! Additions that cost nothing, because the compiler makes them the bias of the operator before. One rule, so that the cost model, the
//! simulator and the converter agree on it.

use rockshard_graph::{Binary, Graph, Links, NodeId, Op, ValueId};

/// The `Add` that the compiler takes into the convolution or the product by a constant before it: its other operand is a
/// constant of one value a channel, and nothing else uses what is added to. Gives the Add and the constant.
pub fn fused_bias(graph: &Graph, links: &Links, node: NodeId) -> Option<(NodeId, ValueId)> {
    let maker = graph.node(node);
    if graph.constant(*maker.inputs.first()?).is_some()
        || graph.constant(*maker.inputs.get(1)?).is_none()
    {
        return None;
    }
    let channels = match &maker.op {
        Op::Conv { .. } if maker.inputs.len() == 2 => Some(1),
        Op::MatMul => graph.value(maker.output).shape.len().checked_sub(1),
        _ => None,
    }?;
    let &[user] = links.users(maker.output) else { return None };
    let add = graph.node(user);
    if add.op != Op::Binary(Binary::Add) || links.is_output(maker.output) {
        return None;
    }
    let constant =
        *add.inputs.iter().find(|&&v| v != maker.output && graph.constant(v).is_some())?;
    let full = &graph.value(maker.output).shape;
    let shape = &graph.value(constant).shape;
    let lead = full.len().checked_sub(shape.len())?;
    let per_channel = (0..full.len()).all(|i| {
        let extent = if i < lead { 1 } else { shape[i - lead] };
        extent == if i == channels { full[i] } else { 1 }
    });
    (per_channel && graph.value(add.output).shape == *full).then_some((user, constant))
}
