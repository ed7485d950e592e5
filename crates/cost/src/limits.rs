//! What the NPU cannot do, and what it leaves to the CPU.

use crate::Rk3588;
use rockshard_graph::{Graph, Node, Value};

/// A limit of the NPU that a graph exceeds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?}: {limit}")]
pub struct LimitError {
    /// Node it shows at; the graph's name where it is the whole graph.
    pub node: String,
    /// The limit, and by how much it is exceeded.
    pub limit: String,
}

/// A node that the vendor's runtime runs on the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Node.
    pub node: String,
    /// Why it falls back to the CPU.
    pub reason: &'static str,
}

impl Rk3588 {
    /// Limits that the graph exceeds: extents of tensors that NPU operators read or write, and the address space. The vendor's
    /// compiler goes on regardless and its model returns zeros (docs/rk3588.md 2.5), so these are errors.
    pub fn limits(&self, graph: &Graph) -> Vec<LimitError> {
        let mut found = self.long_axes(graph);
        let cost = self.graph(graph);
        let total = cost.weight_bytes.saturating_add(cost.internal_bytes);
        if total > self.address_space {
            let (weights, activations) = (cost.weight_bytes, cost.internal_bytes);
            let limit = format!(
                "{weights} bytes of weights and {activations} of activations exceed the address space of {}",
                self.address_space
            );
            found.push(LimitError { node: graph.name.clone(), limit });
        }
        found
    }

    /// Extents of tensors that NPU operators read or write which are too long, one for each node.
    pub fn long_axes(&self, graph: &Graph) -> Vec<LimitError> {
        let on_npu = graph.nodes().iter().filter(|node| self.fallback(graph, node).is_none());
        let too_long = on_npu.filter_map(|node| {
            let values = node.inputs.iter().chain([&node.output]).map(|&v| graph.value(v));
            let value = values.into_iter().find(|v| self.too_long(v))?;
            let limit = format!(
                "value {:?} of shape {:?} has an axis longer than {} (channels: {})",
                value.name, value.shape, self.largest_extent, self.most_channels
            );
            Some(LimitError { node: node.name.clone(), limit })
        });
        too_long.collect()
    }

    /// Nodes that fall back to the CPU: slower (their time is modelled so), but not an error.
    pub fn fallbacks(&self, graph: &Graph) -> Vec<Fallback> {
        let named = |node: &Node| {
            Some(Fallback { node: node.name.clone(), reason: self.fallback(graph, node)? })
        };
        graph.nodes().iter().filter_map(named).collect()
    }

    /// Axes beyond the most the NPU has are merged at the front, as its compiler does. Channels (axis 1 of four, the last of
    /// fewer) are cut by the compiler itself; constants follow the values they meet.
    fn too_long(&self, value: &Value) -> bool {
        let merged = value.shape.len().saturating_sub(self.most_axes.saturating_sub(1));
        let (front, rest) = value.shape.split_at(merged);
        let mut extents = vec![front.iter().product::<usize>()];
        extents.extend(rest);
        let channels = if value.shape.len() < self.most_axes { extents.len() - 1 } else { 1 };
        let limit = |axis| if axis == channels { self.most_channels } else { self.largest_extent };
        value.constant.is_none()
            && extents.iter().enumerate().any(|(axis, &extent)| extent > limit(axis))
    }
}
