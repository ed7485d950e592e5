//! What the NPU's compiler fuses into one operator: attention, norms, Swish, GELU and padding, in the forms that exporters emit; and what
//! it stumbles over.
//!
//! The converter recognises them to scale and tile them; the simulator to round where the device rounds, once at the fused
//! operator's output.

mod activation;
mod attention;
mod movement;
mod norm;

use crate::{Binary, Graph, Links, Node, NodeId, Op, Patch, Rule, ValueId};

/// A fusion: recognises a pattern that ends at a node.
pub struct Fusion {
    name: &'static str,
    recognise: fn(&Match<'_>, NodeId, &mut Vec<String>) -> Option<Patch>,
}

impl Rule for Fusion {
    fn name(&self) -> &'static str {
        self.name
    }

    fn propose(
        &self,
        graph: &Graph,
        links: &Links,
        node: NodeId,
        declined: &mut Vec<String>,
    ) -> Option<Patch> {
        let patch = (self.recognise)(&Match { graph, links }, node, declined)?;
        if patch.keeps_shapes(graph) {
            return Some(patch);
        }
        declined.push(format!(
            "{}: a constant of the pattern broadcasts the result to another shape",
            graph.node(node).name
        ));
        None
    }
}

/// All fusions, in the order in which they apply.
pub fn fusion_rules() -> Vec<Box<dyn Rule>> {
    let rule = |name, recognise| Box::new(Fusion { name, recognise }) as Box<dyn Rule>;
    vec![
        rule("identity", activation::identity),
        rule("padding", movement::pad_into_conv),
        rule("slice of concat", movement::slice_of_concat),
        rule("layer norm", norm::layer_norm),
        rule("group norm", norm::group_norm),
        rule("swish", activation::swish),
        rule("gelu", activation::gelu),
        rule("attention", attention::attention),
    ]
}

/// Questions that patterns ask of a graph.
struct Match<'a> {
    graph: &'a Graph,
    links: &'a Links,
}

impl<'a> Match<'a> {
    /// The node that makes a value.
    fn maker(&self, value: ValueId) -> Option<&'a Node> {
        self.links.producer(value).map(|id| self.graph.node(id))
    }

    /// The node that makes a value that nothing else uses.
    fn inner(&self, value: ValueId) -> Option<&'a Node> {
        self.maker(value).filter(|_| self.links.used_once(value))
    }

    /// The operands of an element-wise node.
    fn operands(&self, node: &Node, binary: Binary) -> Option<[ValueId; 2]> {
        (node.op == Op::Binary(binary)).then(|| [node.inputs[0], node.inputs[1]])
    }

    /// The operands in the order in which `first` holds for the first one (the operator commutes).
    fn ordered(
        &self,
        operands: [ValueId; 2],
        first: impl Fn(ValueId) -> bool,
    ) -> Option<[ValueId; 2]> {
        let [a, b] = operands;
        if first(a) { Some([a, b]) } else { first(b).then_some([b, a]) }
    }

    /// A constant of one element with this value, to float16's precision.
    fn is_scalar(&self, value: ValueId, expected: f32) -> bool {
        self.graph.scalar(value).is_some_and(|v| (v - expected).abs() <= expected.abs() * 1e-3)
    }

    /// The factors of a product of intermediate values, through products that nothing else uses.
    fn factors(&self, node: &Node) -> Vec<ValueId> {
        let mut out = Vec::new();
        let mut open = node.inputs.clone();
        while let Some(value) = open.pop() {
            match self.inner(value) {
                Some(n) if n.op == Op::Binary(Binary::Mul) => open.extend(&n.inputs),
                _ => out.push(value),
            }
        }
        out
    }

    fn shape(&self, value: ValueId) -> &'a [usize] {
        &self.graph.value(value).shape
    }
}
