//! Which nodes the host runs.

use rockshard_graph::{Graph, Links, NodeId, Op, Unary};
use rockshard_tensor::DType;
use std::collections::BTreeSet;

/// Nodes for the host: those on integers or with functions the NPU has not, and everything they need. On failure, a host-only
/// node and the heavy node it needs.
///
/// Sine and cosine are on the host for accuracy as well: a timestep near 1000 times a frequency, rounded to float16, is off by
/// up to a quarter of a radian.
pub(super) fn host_nodes(
    graph: &Graph,
    links: &Links,
) -> Result<BTreeSet<NodeId>, (NodeId, NodeId)> {
    let mut host = BTreeSet::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let integer = |&v: &rockshard_graph::ValueId| {
            graph.constant(v).is_none() && graph.value(v).dtype != DType::F32
        };
        let only_host = matches!(node.op, Op::Unary(Unary::Sin | Unary::Cos) | Op::ArgMax { .. });
        if !only_host
            && !node.inputs.iter().any(integer)
            && graph.value(node.output).dtype == DType::F32
        {
            continue;
        }
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            if matches!(graph.node(next).op, Op::Conv { .. } | Op::MatMul | Op::Attention { .. }) {
                return Err((id, next));
            }
            if host.insert(next) {
                open.extend(graph.node(next).inputs.iter().filter_map(|&v| links.producer(v)));
            }
        }
    }
    Ok(host)
}
