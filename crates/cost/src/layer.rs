//! Which nodes the compiler makes one operator: a convolution or a product by a constant takes in its bias, then an activation or a
//! residual. What one costs alone, and under the vendor's multi-core mask.

use crate::{OpCost, Rk3588, fused_bias};
use rockshard_graph::{Binary, Graph, Links, Node, NodeId, Op, Unary, ValueId};
use std::collections::HashSet;

/// One operator of the compiled graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The operator's node.
    pub node: NodeId,
    /// The Add of a constant by channel that it takes in.
    pub bias: Option<NodeId>,
    /// The activation that it takes in (`ConvExGelu`, `ConvExSwish`, `ConvRelu`).
    pub activation: Option<NodeId>,
    /// The Add of another value that it takes in (`ConvAdd`), and that value.
    pub residual: Option<(NodeId, ValueId)>,
}

/// The operators of the compiled graph, in running order.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    let links = graph.links();
    let mut taken = HashSet::new();
    let mut made = HashSet::new();
    let mut out = Vec::new();
    for id in graph.node_ids() {
        if taken.contains(&id) {
            continue;
        }
        let layer = layer(graph, &links, id, &taken, &made);
        let parts = [Some(id), layer.bias, layer.activation, layer.residual.map(|r| r.0)];
        for part in parts.into_iter().flatten() {
            taken.insert(part);
            made.insert(graph.node(part).output);
        }
        out.push(layer);
    }
    out
}

fn layer(
    graph: &Graph,
    links: &Links,
    id: NodeId,
    taken: &HashSet<NodeId>,
    made: &HashSet<ValueId>,
) -> Layer {
    let node = graph.node(id);
    let mut layer = Layer { node: id, bias: None, activation: None, residual: None };
    if !weighted(graph, node) {
        return layer;
    }
    layer.bias = fused_bias(graph, links, id).map(|b| b.0);
    let last = graph.node(layer.bias.unwrap_or(id)).output;
    let &[user] = links.users(last) else { return layer };
    if links.is_output(last) || taken.contains(&user) {
        return layer;
    }
    let next = graph.node(user);
    match next.op {
        Op::Swish { .. } | Op::Gelu { .. } | Op::Unary(Unary::Relu) => {
            layer.activation = Some(user)
        }
        Op::Binary(Binary::Add) => {
            let other = next.inputs.iter().copied().find(|&v| v != last);
            // The other value exists by then; of two convolutions that meet in a sum, the later one takes it.
            let ready = |&v: &ValueId| {
                graph.constant(v).is_none() && (links.producer(v).is_none() || made.contains(&v))
            };
            let same = |&v: &ValueId| graph.value(v).shape == graph.value(last).shape;
            layer.residual = other.filter(ready).filter(same).map(|v| (user, v));
        }
        _ => {}
    }
    layer
}

/// A convolution or a product by a constant.
pub(crate) fn weighted(graph: &Graph, node: &Node) -> bool {
    let constant = node.inputs.get(1).is_some_and(|&w| graph.constant(w).is_some());
    constant && matches!(node.op, Op::Conv { .. } | Op::MatMul)
}

impl Rk3588 {
    /// Cost of one operator of the compiled graph on one core. A bias is free; an activation costs as one that stands alone (2.4: its
    /// look-up table sets the rate of output); a residual adds the reading of it.
    pub fn layer(&self, graph: &Graph, layer: &Layer) -> OpCost {
        let mut cost = self.node(graph, graph.node(layer.node));
        if let Some(id) = layer.activation {
            cost.micros += self.node(graph, graph.node(id)).micros;
        }
        if let Some((_, value)) = layer.residual {
            let bytes = graph.value(value).npu_bytes();
            cost.micros += bytes as f64 / self.elementwise_bytes_per_second * 1e6;
            cost.dram_bytes += bytes;
        }
        cost
    }

    /// Microseconds of an operator under the vendor's mask of several cores.
    ///
    /// Convolutions, Adds and Concats run on all of them, with every third of the positions on a core; everything else, and a
    /// convolution with any activation but ReLU in it, runs on core 0 (1.1: the operator list, and measured loads). A convolution's
    /// arithmetic is divided, its traffic is not: 512 to 1536 channels 2333 to 1097 us, 2048 to 512 12.11 to 4.35 ms, 512 to 512 841
    /// to 490 us on three cores. What only streams gains what the memory gives (measured 1.56 to 1.76).
    pub fn masked_micros(&self, graph: &Graph, layer: &Layer, cores: u8) -> f64 {
        let cost = self.layer(graph, layer);
        let node = graph.node(layer.node);
        let n = f64::from(cores.max(1));
        if cores < 2 || self.fallback(graph, node).is_some() {
            return cost.micros;
        }
        let relu = layer.activation.is_none_or(|id| graph.node(id).op == Op::Unary(Unary::Relu));
        if weighted(graph, node) && relu {
            return cost.micros.min(
                cost.micros / n + cost.dram_bytes as f64 / self.shared_bytes_per_second * 1e6,
            );
        }
        // 1.1: a product by a scalar stays on core 0 although the list has Mul.
        let tensors = |i: usize| node.inputs.get(i).is_some_and(|&v| graph.constant(v).is_none());
        let streams = match node.op {
            Op::Binary(Binary::Add) | Op::Concat { .. } => true,
            Op::Binary(Binary::Mul) => tensors(0) && tensors(1),
            _ => false,
        };
        if streams {
            cost.micros / n.min(self.shared_bytes_per_second / self.core_bytes_per_second)
        } else {
            cost.micros
        }
    }

    /// Microseconds of an operator's time in which it could not but stream: its bytes at the rate that one core reaches alone.
    pub fn streaming_micros(&self, cost: &OpCost) -> f64 {
        (cost.dram_bytes as f64 / self.core_bytes_per_second * 1e6).min(cost.micros)
    }
}
