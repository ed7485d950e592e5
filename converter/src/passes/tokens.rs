//! Which planes tokens come from.

use rockshard_graph::{Graph, Op};
use std::collections::HashMap;

/// Height and width of the plane for each number of tokens that a reshape makes of a plane, or a plane of.
pub(super) fn token_planes(graph: &Graph) -> HashMap<usize, [usize; 2]> {
    let mut planes = HashMap::new();
    for node in graph.nodes().iter().filter(|n| matches!(n.op, Op::Reshape { .. })) {
        let (a, b) = (&graph.value(node.inputs[0]).shape, &graph.value(node.output).shape);
        for (plane, tokens) in [(a, b), (b, a)] {
            if let (&[_, x, y, z], &[_, t, u]) = (&plane[..], &tokens[..]) {
                // Channels last, or channels first.
                if x * y == t && z == u {
                    planes.insert(t, [x, y]);
                } else if y * z == u && x == t {
                    planes.insert(u, [y, z]);
                }
            }
        }
    }
    planes
}
