//! Constant factors and terms by channel that the vendor's compiler folds, in float32, into the convolution or the product by a
//! constant next to them: those that follow it and, before a convolution, one factor or the scale and shift of a group norm. A factor
//! and a term elsewhere become one operator.

use rockshard_graph::{Binary, Graph, Links, Node, NodeId, Op, ValueId};
use std::collections::BTreeSet;

/// What follows a convolution or product: `gain y + shift`, by output channel.
pub(crate) struct Tail {
    /// The nodes that it replaces, in running order.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) gain: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// What precedes a convolution: `gain x + shift`, by input channel.
pub(crate) struct Lead {
    /// The group norm, or the multiplication or division, that loses its constants.
    pub(crate) node: NodeId,
    /// Its input that is not constant.
    pub(crate) input: ValueId,
    pub(crate) gain: Vec<f32>,
    pub(crate) shift: Option<Vec<f32>>,
}

/// Everything by channel behind `node`, whose channels lie on `axis`, as long as each result has one use. Begins with `bias`.
pub(crate) fn tail(
    graph: &Graph,
    links: &Links,
    node: NodeId,
    axis: usize,
    bias: Option<Vec<f32>>,
) -> Tail {
    let full = &graph.value(graph.node(node).output).shape;
    let channels = full[axis];
    let mut tail = Tail {
        nodes: Vec::new(),
        gain: vec![1.0; channels],
        shift: bias.unwrap_or_else(|| vec![0.0; channels]),
    };
    let mut last = node;
    while let Some(user) = sole_user(graph, links, last) {
        let Some((function, _, constant)) = with_constant(graph, user) else { break };
        let Some(values) = by_channel(graph, constant, full, axis)
            .filter(|_| graph.value(graph.node(user).output).shape == *full)
        else {
            break;
        };
        for ((gain, shift), v) in tail.gain.iter_mut().zip(&mut tail.shift).zip(values) {
            match function {
                Binary::Mul => (*gain, *shift) = (*gain * v, *shift * v),
                Binary::Div => (*gain, *shift) = (*gain / v, *shift / v),
                Binary::Sub => *shift -= v,
                _ => *shift += v,
            }
        }
        tail.nodes.push(user);
        last = user;
    }
    tail
}

/// What the convolution `node` takes in from the node before it, unless that is in `taken`.
pub(crate) fn lead(
    graph: &Graph,
    links: &Links,
    node: NodeId,
    taken: &BTreeSet<NodeId>,
) -> Option<Lead> {
    let Op::Conv { window, group: 1 } = &graph.node(node).op else { return None };
    if graph.node(node).inputs[1..].iter().any(|&v| graph.constant(v).is_none()) {
        return None;
    }
    let before = links.producer(graph.node(node).inputs[0]).filter(|id| !taken.contains(id))?;
    if sole_user(graph, links, before) != Some(node) {
        return None;
    }
    let maker = graph.node(before);
    let shape = &graph.value(maker.output).shape;
    if matches!(maker.op, Op::GroupNorm { .. }) {
        // A shift would have to stop at the padding.
        let [gain, shift] = [maker.inputs[1], maker.inputs[2]].map(|v| values(graph, v));
        let inside = window.kernel == [1, 1] && window.pads == [0; 4] && shape.len() == 4;
        return inside.then_some(Lead {
            node: before,
            input: maker.inputs[0],
            gain: gain?,
            shift: Some(shift?),
        });
    }
    let (function, input, constant) = with_constant(graph, before)?;
    let mut gain =
        by_channel(graph, constant, shape, 1).filter(|_| graph.value(input).shape == *shape)?;
    match function {
        Binary::Mul => {}
        Binary::Div => gain.iter_mut().for_each(|v| *v = v.recip()),
        _ => return None,
    }
    Some(Lead { node: before, input, gain, shift: None })
}

/// A factor and a term alone, which the compiler makes one operator: both one number, or one a channel of four axes.
pub(crate) struct Affine {
    /// The addition.
    pub(crate) last: NodeId,
    pub(crate) input: ValueId,
    pub(crate) gain: ValueId,
    pub(crate) shift: ValueId,
}

/// The factor at `node` with the term behind it.
pub(crate) fn affine(graph: &Graph, links: &Links, node: NodeId) -> Option<Affine> {
    let last = sole_user(graph, links, node)?;
    let (Binary::Mul, input, gain) = with_constant(graph, node)? else { return None };
    let (Binary::Add, _, shift) = with_constant(graph, last)? else { return None };
    let shape = &graph.value(input).shape;
    let fits = |v: ValueId| {
        graph.scalar(v).is_some() || (shape.len() == 4 && by_channel(graph, v, shape, 1).is_some())
    };
    let same = [node, last].iter().all(|&n| graph.value(graph.node(n).output).shape == *shape);
    (same && fits(gain) && fits(shift)).then_some(Affine { last, input, gain, shift })
}

fn sole_user(graph: &Graph, links: &Links, node: NodeId) -> Option<NodeId> {
    let output = graph.node(node).output;
    let &[user] = links.users(output) else { return None };
    (!links.is_output(output)).then_some(user)
}

/// The function, the input and the constant of a node that combines an input with a constant (on the right where the order counts).
fn with_constant(graph: &Graph, node: NodeId) -> Option<(Binary, ValueId, ValueId)> {
    let Node { op: Op::Binary(function), inputs, .. } = graph.node(node) else { return None };
    let (a, b) = (inputs[0], inputs[1]);
    let constant = |v: ValueId| graph.constant(v).is_some_and(|t| t.dtype().is_float());
    let commutes = matches!(function, Binary::Add | Binary::Mul);
    match (constant(a), constant(b)) {
        (false, true) if commutes || matches!(function, Binary::Sub | Binary::Div) => {
            Some((*function, a, b))
        }
        (true, false) if commutes => Some((*function, b, a)),
        _ => None,
    }
}

/// A constant that is one number, or one a channel, against values of shape `full`: as one a channel.
fn by_channel(graph: &Graph, constant: ValueId, full: &[usize], axis: usize) -> Option<Vec<f32>> {
    let shape = &graph.value(constant).shape;
    let lead = full.len().checked_sub(shape.len())?;
    let fits = shape
        .iter()
        .enumerate()
        .all(|(i, &extent)| extent == 1 || (i + lead == axis && extent == full[axis]));
    let values = values(graph, constant).filter(|_| fits)?;
    Some(if values.len() == 1 { vec![values[0]; full[axis]] } else { values })
}

/// A constant's values, if they are all finite.
fn values(graph: &Graph, constant: ValueId) -> Option<Vec<f32>> {
    let values = graph.constant(constant)?.to_f32().ok()?;
    values.iter().all(|v| v.is_finite()).then(|| values.into_owned())
}
