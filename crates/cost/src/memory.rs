//! Time and memory of a whole graph.

use crate::{Rk3588, fused_bias, layers};
use rockshard_graph::{Graph, Links, Node, NodeId, Op};
use std::collections::HashSet;

/// Modelled cost of one run of a graph on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GraphCost {
    /// Microseconds of the whole run, overhead included; inputs come from the host, and outputs go there.
    pub micros: f64,
    /// Microseconds of it that a run costs whatever it computes: the call, and inputs and outputs changing their layout.
    pub overhead_micros: f64,
    /// Microseconds of the whole run in which it waits for the memory.
    pub streaming_micros: f64,
    /// Peak bytes of float16 activations that exist at a time, temporaries of attentions included.
    pub internal_bytes: u64,
    /// Bytes of constants as float16.
    pub weight_bytes: u64,
}

impl Rk3588 {
    /// Cost of a run of the graph in its running order.
    pub fn graph(&self, graph: &Graph) -> GraphCost {
        let links = graph.links();
        let absorbed: HashSet<NodeId> =
            graph.node_ids().filter_map(|id| Some(fused_bias(graph, &links, id)?.0)).collect();
        let boundary = self.boundary(graph).cost();
        let (mut micros, mut streaming_micros) =
            (boundary.micros, self.streaming_micros(&boundary));
        for cost in layers(graph).iter().map(|layer| self.layer(graph, layer)) {
            micros += cost.micros;
            streaming_micros += self.streaming_micros(&cost);
        }
        GraphCost {
            micros,
            overhead_micros: boundary.micros,
            streaming_micros,
            internal_bytes: self.internal_bytes(graph, &links, &absorbed),
            weight_bytes: graph.weight_bytes(),
        }
    }

    /// Bytes that an attention takes besides its inputs and output while it computes `rows` query rows against `keys` keys.
    /// `heads` does not matter: the vendor's compiler takes as much for 3 heads as for 8 (docs/toolkit.md 4).
    pub fn attention_bytes(&self, heads: usize, rows: usize, keys: usize) -> u64 {
        if heads == 0 {
            0
        } else {
            (self.attention_bytes_per_pair * rows as f64 * keys as f64) as u64
        }
    }

    fn temporary(&self, graph: &Graph, node: &Node) -> u64 {
        let Op::Attention { .. } = node.op else { return 0 };
        let [q, k] = [0, 1].map(|i| graph.value(node.inputs[i]));
        match (&q.shape[..], k.shape.last()) {
            ([heads @ .., rows, _], Some(&keys)) => {
                self.attention_bytes(heads.iter().product(), *rows, keys)
            }
            _ => 0,
        }
    }

    /// Values live from their making (inputs: from the start) to their last use (outputs: to the end). The sum with a bias that
    /// is part of the operator before it takes that operator's place.
    fn internal_bytes(&self, graph: &Graph, links: &Links, absorbed: &HashSet<NodeId>) -> u64 {
        let size = |v| graph.value(v).npu_bytes();
        let inputs: HashSet<_> = graph.inputs.iter().copied().collect();
        let mut live: u64 = inputs.iter().map(|&v| size(v)).sum();
        let mut peak = live;
        for id in graph.node_ids() {
            let node = graph.node(id);
            if absorbed.contains(&id) {
                continue;
            }
            live += size(node.output);
            peak = peak.max(live + self.temporary(graph, node));
            let mut used: Vec<_> = node.inputs.clone();
            used.push(node.output);
            used.sort_unstable();
            used.dedup();
            for value in used {
                let done =
                    links.users(value).iter().all(|&user| user <= id) && !links.is_output(value);
                if done && graph.constant(value).is_none() {
                    live -= size(value);
                }
            }
        }
        peak
    }
}
