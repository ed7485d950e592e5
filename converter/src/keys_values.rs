//! Keys and values of a U-Net's cross-attentions as a network of their own. They are products of the prompt's hidden states with weights, so
//! they are the same in every row and step of a prompt: computed once, they take their weights and their work out of the U-Net.

use crate::ConvertError;
use crate::family::{Part, Piece};
use rockshard_graph::{Binary, Graph, Node, NodeId, Op, ValueId};
use std::collections::{BTreeSet, HashSet};

/// The U-Net's input of hidden states.
const HIDDEN: &str = "encoder_hidden_states";

/// The piece of an imported graph that a part is.
pub(crate) fn piece(part: &Part, graph: Graph) -> Result<Graph, ConvertError> {
    if part.piece == Piece::Whole {
        return Ok(graph);
    }
    let made = projections(&graph);
    if made.is_empty() {
        let problem = format!(
            "no product of {HIDDEN} with weights is in it: there are no keys and values to precompute"
        );
        return Err(ConvertError::Source { path: part.path.clone(), problem });
    }
    let (outputs, given) = match part.piece {
        Piece::KeysValues => (made, BTreeSet::new()),
        _ => (graph.outputs.clone(), made.into_iter().collect()),
    };
    let nodes = needed(&graph, &outputs, &given);
    Ok(graph.subgraph(part.name.clone(), &nodes, &outputs))
}

/// The products of hidden states with weights, biases added, that no other such product is made of; in the order of the graph.
fn projections(graph: &Graph) -> Vec<ValueId> {
    let Some(hidden) = graph.find(HIDDEN).filter(|v| graph.inputs.contains(v)) else {
        return Vec::new();
    };
    // Values that the prompt alone decides.
    let mut prompts = HashSet::from([hidden]);
    let links = graph.links();
    let mut made = Vec::new();
    for node in graph.nodes() {
        let decided = |v: &ValueId| prompts.contains(v) || graph.constant(*v).is_some();
        let reads = node.inputs.iter().any(|v| prompts.contains(v));
        if !reads || !node.inputs.iter().all(decided) {
            continue;
        }
        prompts.insert(node.output);
        if is_product(graph, node) {
            made.retain(|v| !node.inputs.contains(v));
            made.push(node.output);
        } else if matches!(node.op, Op::Binary(Binary::Add)) {
            // A bias, where nothing else reads the product.
            if let Some(product) =
                made.iter_mut().find(|v| node.inputs.contains(v) && links.used_once(**v))
            {
                *product = node.output;
            }
        }
    }
    made
}

fn is_product(graph: &Graph, node: &Node) -> bool {
    let weight = |v: &ValueId| graph.constant(*v).is_some_and(|t| t.shape().len() >= 2);
    matches!(node.op, Op::MatMul) && node.inputs.iter().any(weight)
}

/// The nodes that outputs need when some values are given.
fn needed(graph: &Graph, outputs: &[ValueId], given: &BTreeSet<ValueId>) -> Vec<NodeId> {
    let mut wanted: HashSet<ValueId> = outputs.iter().copied().collect();
    let mut nodes = Vec::new();
    for id in graph.node_ids().rev() {
        let node = graph.node(id);
        if wanted.contains(&node.output) && !given.contains(&node.output) {
            wanted.extend(node.inputs.iter().copied());
            nodes.push(id);
        }
    }
    nodes.reverse();
    nodes
}
