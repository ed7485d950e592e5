//! Which nodes the host runs, and the turns that host and NPU take.

use rockshard_graph::{Graph, Links, NodeId, Op, Unary, ValueId};
use rockshard_tensor::DType;
use std::collections::BTreeSet;

/// A run of nodes that the host or the NPU takes, before the other one's next turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Whose turn it is.
    pub host: bool,
    /// Nodes in running order.
    pub nodes: Vec<NodeId>,
}

/// Nodes for the host: those on integers or with functions the NPU has not. What such a node needs goes along where that takes no heavy
/// operator from the NPU; so do light nodes behind the host's, which are not worth another shard.
///
/// Sine and cosine are on the host for accuracy as well: a timestep near 1000 times a frequency, rounded to float16, is off by
/// up to a quarter of a radian.
pub fn host_nodes(graph: &Graph) -> BTreeSet<NodeId> {
    let links = graph.links();
    let mut host = BTreeSet::new();
    for id in graph.node_ids().filter(|&id| only_host(graph, id)) {
        let needs = needs(graph, &links, id);
        match needs.iter().any(|&n| heavy(graph, n)) {
            true => host.extend([id]),
            false => host.extend(needs),
        }
    }
    while let Some(light) = turns_of(graph, &links, &host)
        .into_iter()
        .skip_while(|turn| !turn.host)
        .find(|turn| !turn.host && !turn.nodes.iter().any(|&n| heavy(graph, n)))
    {
        host.extend(light.nodes);
    }
    host
}

/// The turns that the host and the NPU take, in order.
pub(crate) fn turns(graph: &Graph, host: &BTreeSet<NodeId>) -> Vec<Turn> {
    turns_of(graph, &graph.links(), host)
}

fn turns_of(graph: &Graph, links: &Links, host: &BTreeSet<NodeId>) -> Vec<Turn> {
    let mut turn_of = vec![0usize; graph.nodes().len()];
    for id in graph.node_ids() {
        let own = host.contains(&id);
        // The host's turns are even.
        let first = usize::from(!own);
        let makers = graph.node(id).inputs.iter().filter_map(|&v| links.producer(v));
        let after = makers.map(|p| turn_of[p.index()] + usize::from(host.contains(&p) != own));
        turn_of[id.index()] = after.max().map_or(first, |turn| turn.max(first));
    }
    let last = turn_of.iter().copied().max().unwrap_or(0);
    let nodes = |turn: usize| graph.node_ids().filter(|id| turn_of[id.index()] == turn).collect();
    (0..=last)
        .map(|turn| Turn { host: turn % 2 == 0, nodes: nodes(turn) })
        .filter(|turn| !turn.nodes.is_empty())
        .collect()
}

/// Whether the NPU cannot run a node at all.
fn only_host(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let integer = |&v: &ValueId| graph.constant(v).is_none() && graph.value(v).dtype != DType::F32;
    // Outputs made of constants need no NPU.
    let fixed = node.inputs.iter().all(|&v| graph.constant(v).is_some());
    fixed && graph.outputs.contains(&node.output)
        || matches!(node.op, Op::Unary(Unary::Sin | Unary::Cos) | Op::ArgMax { .. } | Op::Host(..))
        || node.inputs.iter().any(integer)
        || graph.value(node.output).dtype != DType::F32
}

fn heavy(graph: &Graph, id: NodeId) -> bool {
    matches!(
        graph.node(id).op,
        Op::Conv { .. } | Op::ConvTranspose { .. } | Op::MatMul | Op::Attention { .. }
    )
}

/// A node with everything before it.
fn needs(graph: &Graph, links: &Links, id: NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut open = vec![id];
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(graph.node(next).inputs.iter().filter_map(|&v| links.producer(v)));
        }
    }
    found
}
