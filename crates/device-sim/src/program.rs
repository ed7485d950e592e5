//! A graph made ready to run: constants in f16, biases joined, deep products split, and each value's last use known.

use crate::Numerics;
use crate::numerics::stored;
use rockshard_cost::fused_bias;
use rockshard_graph::{Binary, Graph, Node, NodeId, Op, ValueId};
use rockshard_kernels::{KernelError, Precision, evaluate, matmul};
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// One operator as the NPU's compiler sees it.
pub(crate) struct Step {
    /// Name of its first node.
    pub(crate) name: String,
    work: Work,
    /// Where its arguments come from.
    pub(crate) inputs: Vec<Argument>,
    /// Where its result goes.
    pub(crate) output: ValueId,
    /// Values that nothing uses afterwards.
    pub(crate) frees: Vec<ValueId>,
}

/// An argument of a step.
pub(crate) enum Argument {
    /// A value made by an earlier step or given by the caller.
    Value(ValueId),
    /// A constant.
    Constant(Tensor),
}

enum Work {
    /// The operator on all arguments.
    Whole(Op),
    /// A convolution or a product by a constant: weights and bias are not among the arguments.
    Weighted { op: Op, parts: Vec<Part>, bias: Option<Tensor> },
}

/// Channels of the input and the weight they meet.
struct Part {
    channels: std::ops::Range<usize>,
    weight: Tensor,
}

/// Make the steps of a graph.
///
/// # Errors
/// A constant that f16 cannot hold, named.
pub(crate) fn compile(graph: &Graph, numerics: Numerics) -> Result<Vec<Step>, String> {
    let links = graph.links();
    let mut constants: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    for &id in graph.nodes().iter().flat_map(|n| &n.inputs) {
        if let (Some(tensor), false) = (graph.constant(id), constants.contains_key(&id)) {
            let kept = if tensor.dtype().is_float() { stored(tensor) } else { Ok(tensor.clone()) };
            constants.insert(id, kept.map_err(|e| format!("weight {:?}: {e}", graph.value(id).name))?);
        }
    }
    let mut absorbed: BTreeSet<NodeId> = BTreeSet::new();
    let mut steps = Vec::new();
    for id in graph.node_ids() {
        if absorbed.contains(&id) {
            continue;
        }
        let node = graph.node(id);
        let fused = fused_bias(graph, &links, id);
        let bias = match fused {
            Some((add, value)) => {
                absorbed.insert(add);
                Some(flat(&constants[&value])?)
            }
            None => node.inputs.get(2).filter(|_| matches!(node.op, Op::Conv { .. })).and_then(|v| constants.get(v).cloned()),
        };
        let output = fused.map_or(node.output, |(add, _)| graph.node(add).output);
        let weight = node.inputs.get(1).and_then(|v| constants.get(v));
        let dynamic_bias = bias.is_none() && node.inputs.len() > 2;
        let (work, used) = match (&node.op, weight) {
            (Op::Conv { .. } | Op::MatMul, Some(weight)) if !dynamic_bias && !constants.contains_key(&node.inputs[0]) => {
                let parts = parts(node, weight, numerics).map_err(|e| format!("node {:?}: {e}", node.name))?;
                (Work::Weighted { op: node.op.clone(), parts, bias }, &node.inputs[..1])
            }
            _ if fused.is_some() => return Err(format!("node {:?}: a bias joins an operator without weights", node.name)),
            _ => (Work::Whole(node.op.clone()), &node.inputs[..]),
        };
        let argument = |v: &ValueId| constants.get(v).map_or(Argument::Value(*v), |t| Argument::Constant(t.clone()));
        steps.push(Step { name: node.name.clone(), work, inputs: used.iter().map(argument).collect(), output, frees: Vec::new() });
    }
    find_last_uses(graph, &mut steps);
    Ok(steps)
}

fn find_last_uses(graph: &Graph, steps: &mut [Step]) {
    let mut seen: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    for step in steps.iter_mut().rev() {
        let used = step.inputs.iter().filter_map(|a| if let Argument::Value(v) = a { Some(*v) } else { None });
        let candidates: Vec<ValueId> = used.chain([step.output]).collect();
        step.frees = candidates.into_iter().filter(|&v| seen.insert(v)).collect();
    }
}

fn flat(bias: &Tensor) -> Result<Tensor, String> {
    bias.reshape([bias.len()]).map_err(|e| e.to_string())
}

/// The weight, whole or in two halves of the channels.
fn parts(node: &Node, weight: &Tensor, numerics: Numerics) -> Result<Vec<Part>, KernelError> {
    let shape = weight.shape();
    let (axis, depth) = match &node.op {
        Op::Conv { group: 1, .. } => (1, shape[1..].iter().product::<usize>()),
        Op::MatMul if shape.len() == 2 => (0, shape[0]),
        _ => return Ok(vec![Part { channels: 0..0, weight: weight.clone() }]),
    };
    let channels = shape[axis];
    if channels < 2 || numerics.split_k_from.is_none_or(|from| depth < from) {
        return Ok(vec![Part { channels: 0..channels, weight: weight.clone() }]);
    }
    let half = |channels: std::ops::Range<usize>| Ok::<_, KernelError>(Part { weight: slice(weight, axis, &channels)?, channels });
    Ok(vec![half(0..channels / 2)?, half(channels / 2..channels)?])
}

fn slice(x: &Tensor, axis: usize, range: &std::ops::Range<usize>) -> Result<Tensor, KernelError> {
    let rank = x.shape().len();
    let (mut begin, mut end) = (vec![0; rank], x.shape().to_vec());
    (begin[axis], end[axis]) = (range.start, range.end);
    evaluate(&Op::Slice { begin, end, step: vec![1; rank] }, &[x], Precision::F16)
}

impl Step {
    /// Whether the result holds nothing but elements of the arguments.
    pub(crate) fn moves(&self) -> bool {
        use Op::{Concat, Expand, Gather, Reshape, Slice, Transpose};
        matches!(self.work, Work::Whole(Reshape { .. } | Transpose { .. } | Slice { .. } | Concat { .. } | Gather { .. } | Expand { .. }))
    }

    /// Run on arguments in the order of [`Step::inputs`].
    pub(crate) fn run(&self, arguments: &[&Tensor]) -> Result<Tensor, KernelError> {
        let (op, parts, bias) = match &self.work {
            Work::Whole(op) => return evaluate(op, arguments, Precision::F16),
            Work::Weighted { op, parts, bias } => (op, parts, bias.as_ref()),
        };
        let x = arguments[0];
        let product = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| match (op, bias) {
            (Op::MatMul, bias) => matmul(x, weight, bias, Precision::F16),
            (_, Some(bias)) => evaluate(op, &[x, weight, bias], Precision::F16),
            (_, None) => evaluate(op, &[x, weight], Precision::F16),
        };
        let axis = if *op == Op::MatMul { x.shape().len() - 1 } else { 1 };
        match &parts[..] {
            [first, second] => {
                let a = product(&slice(x, axis, &first.channels)?, &first.weight, bias)?;
                let b = product(&slice(x, axis, &second.channels)?, &second.weight, None)?;
                evaluate(&Op::Binary(Binary::Add), &[&a, &b], Precision::F16)
            }
            _ => product(x, &parts[0].weight, bias),
        }
    }
}
