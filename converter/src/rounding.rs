//! Which weights a shard holds in float16: those that the NPU's compiler rounds as they are. The device computes the same bits, from half
//! the bytes.
//!
//! Everything else keeps its type: biases, and the scale and shift of a group norm, which stay in float32; weights that a constant next to them
//! is multiplied into before they are rounded; and what float16 cannot hold, for the device to refuse.

use rayon::prelude::*;
use rockshard_graph::{Binary, Graph, Links, Node, NodeId, Op, ValueId};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashSet;

/// From here on float16 rounds to infinity.
const INFINITE: f32 = 65520.0;

/// Tensors of which it is known that float16 holds their elements: by address and length.
#[derive(Default)]
pub(crate) struct Rounding(HashSet<(usize, usize)>);

impl Rounding {
    /// Enter a tensor whose largest magnitude is known; NaN counts as too large.
    pub fn enter(&mut self, tensor: &Tensor, largest: f32) {
        if largest < INFINITE {
            self.0.insert(place(tensor));
        }
    }

    fn holds(&self, tensor: &Tensor) -> bool {
        self.0.contains(&place(tensor)) || largest(tensor) < INFINITE
    }
}

fn place(tensor: &Tensor) -> (usize, usize) {
    (tensor.bytes().as_ptr() as usize, tensor.bytes().len())
}

/// The largest magnitude of a real tensor; infinite where an element is NaN, 0 for other tensors.
pub(crate) fn largest(tensor: &Tensor) -> f32 {
    const BLOCK: usize = 1 << 16;
    // The bits of magnitudes are in the order of the magnitudes, those of NaN above all.
    let most = |block: &[f32]| block.iter().map(|v| v.to_bits() & !(1 << 31)).fold(0, u32::max);
    let bits =
        tensor.to_f32().map_or(0, |values| values.par_chunks(BLOCK).map(most).max().unwrap_or(0));
    f32::from_bits(bits.min(f32::INFINITY.to_bits()))
}

/// The constants of a device's graph that are stored in float16.
pub(crate) fn rounded(graph: &Graph, rounding: &Rounding) -> HashSet<ValueId> {
    let links = graph.links();
    let mut kept: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut found = HashSet::new();
    for (id, node) in graph.node_ids().zip(graph.nodes()) {
        let weight = weight(graph, &links, id);
        found.extend(weight);
        kept.extend(
            node.inputs
                .iter()
                .enumerate()
                .filter_map(|(at, &v)| (weight != Some(v) || at != 1).then_some(v)),
        );
    }
    let holds = |v: &ValueId| {
        let tensor = graph.constant(*v).filter(|t| t.dtype() == DType::F32);
        !kept.contains(v) && tensor.is_some_and(|t| rounding.holds(t))
    };
    found.into_iter().filter(holds).collect()
}

/// The weight of a convolution or of a product by a constant that is rounded as it is.
fn weight(graph: &Graph, links: &Links, id: NodeId) -> Option<ValueId> {
    let node = graph.node(id);
    let constant = |v: &ValueId| graph.constant(*v).is_some();
    let fits = match node.op {
        Op::Conv { .. } => true,
        Op::MatMul => graph.value(*node.inputs.get(1)?).shape.len() >= 2,
        _ => false,
    };
    let weighted = fits && !constant(&node.inputs[0]) && node.inputs[1..].iter().all(constant);
    let before = links.producer(node.inputs[0]).map(|maker| graph.node(maker));
    let led = matches!(node.op, Op::Conv { group: 1, .. })
        && before.is_some_and(|n| matches!(n.op, Op::GroupNorm { .. }) || by_constant(graph, n));
    (weighted && !led && !multiplied_behind(graph, links, node)).then(|| node.inputs[1])
}

/// Whether constants are multiplied into a result before anything but terms.
fn multiplied_behind(graph: &Graph, links: &Links, node: &Node) -> bool {
    let mut last = node.output;
    while let &[user] = links.users(last) {
        let user = graph.node(user);
        if by_constant(graph, user) {
            return true;
        }
        let adds = matches!(user.op, Op::Binary(Binary::Add | Binary::Sub))
            && user.inputs.iter().any(|&v| graph.constant(v).is_some());
        if !adds {
            return false;
        }
        last = user.output;
    }
    false
}

/// Whether a node multiplies or divides by a constant.
fn by_constant(graph: &Graph, node: &Node) -> bool {
    matches!(node.op, Op::Binary(Binary::Mul | Binary::Div))
        && node.inputs.iter().any(|&v| graph.constant(v).is_some())
}
