//! A piece of a graph as a graph of its own.

use crate::{Graph, NodeId, ValueId};
use std::collections::HashMap;

impl Graph {
    /// The graph of some nodes: its inputs are the values they read from outside (in order of first use), its outputs are
    /// `outputs`. Constants that the nodes use come along.
    pub fn subgraph(
        &self,
        name: impl Into<String>,
        nodes: &[NodeId],
        outputs: &[ValueId],
    ) -> Graph {
        let mut part = Graph::new(name);
        let mut ids: HashMap<ValueId, ValueId> = HashMap::new();
        let made: std::collections::HashSet<ValueId> =
            nodes.iter().map(|&n| self.node(n).output).collect();
        let mut copy = |part: &mut Graph, id: ValueId| {
            *ids.entry(id).or_insert_with(|| {
                part.values.push(self.value(id).clone());
                let new = ValueId((part.values.len() - 1) as u32);
                if self.constant(id).is_none() && !made.contains(&id) {
                    part.inputs.push(new);
                }
                new
            })
        };
        for &id in nodes {
            let node = self.node(id);
            let inputs = node.inputs.iter().map(|&v| copy(&mut part, v)).collect();
            let output = copy(&mut part, node.output);
            part.add_node(node.name.clone(), node.op.clone(), inputs, output);
        }
        part.outputs = outputs.iter().map(|&v| copy(&mut part, v)).collect();
        part
    }
}
