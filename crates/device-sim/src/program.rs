//! A graph made ready to run: weights in f16 and biases in f32, biases and scales joined to convolutions, deep products cut, and each
//! value's last use known.

use crate::Numerics;
use crate::numerics::stored;
use rockshard_cost::fused_bias;
use rockshard_graph::{Binary, Graph, Links, Node, NodeId, Op, Unary, ValueId};
use rockshard_kernels::{KernelError, Precision, evaluate, matmul};
use rockshard_tensor::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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
    Weighted { op: Op, first: Part, rest: Vec<Part>, bias: Option<Tensor> },
}

/// Channels of the input and the weight they meet.
struct Part {
    channels: Range<usize>,
    weight: Tensor,
}

/// Make the steps of a graph.
///
/// # Errors
/// A constant that f16 cannot hold, named.
pub(crate) fn compile(graph: &Graph, numerics: Numerics) -> Result<Vec<Step>, String> {
    let links = graph.links();
    let mut constants = Constants { graph, narrow: BTreeMap::new() };
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
                Some(flat(&constants.wide(value)?)?)
            }
            None => match node.inputs.get(2) {
                Some(&v) if matches!(node.op, Op::Conv { .. }) && graph.constant(v).is_some() => Some(constants.wide(v)?),
                _ => None,
            },
        };
        let output = fused.map_or(node.output, |(add, _)| graph.node(add).output);
        let weight = node.inputs.get(1).copied().filter(|&v| graph.constant(v).is_some());
        let dynamic_bias = bias.is_none() && node.inputs.len() > 2;
        let place = |e: String| format!("node {:?}: {e}", node.name);
        let (work, inputs) = match (&node.op, weight) {
            (Op::Conv { .. } | Op::MatMul, Some(weight)) if !dynamic_bias && graph.constant(node.inputs[0]).is_none() => {
                let norm = links.producer(node.inputs[0]).filter(|&norm| affine_taker(graph, &links, norm) == Some(id));
                let (weight, bias) = match norm {
                    Some(norm) => scaled(&constants, weight, bias.as_ref(), graph.node(norm)).map_err(place)?,
                    None => (constants.narrow(weight)?, bias),
                };
                let (first, rest) = parts(node, weight, numerics).map_err(|e| place(e.to_string()))?;
                (Work::Weighted { op: node.op.clone(), first, rest, bias }, constants.arguments(&node.inputs[..1])?)
            }
            _ if fused.is_some() => return Err(format!("node {:?}: a bias joins an operator without weights", node.name)),
            (Op::GroupNorm { .. }, Some(gamma)) if graph.constant(node.inputs[2]).is_some() => {
                let (mut gamma, mut beta) = (constants.wide(gamma)?, constants.wide(node.inputs[2])?);
                if affine_taker(graph, &links, id).is_some() {
                    gamma = Tensor::from_f32(gamma.shape(), vec![1.0; gamma.len()]);
                    beta = Tensor::from_f32(beta.shape(), vec![0.0; beta.len()]);
                }
                let mut inputs = constants.arguments(&node.inputs[..1])?;
                inputs.extend([gamma, beta].map(Argument::Constant));
                (Work::Whole(node.op.clone()), inputs)
            }
            (Op::Binary(Binary::Div), Some(divisor))
                if graph.value(divisor).dtype.is_float() && graph.constant(node.inputs[0]).is_none() =>
            {
                let mut inputs = constants.arguments(&node.inputs[..1])?;
                inputs.push(Argument::Constant(constants.reciprocal(divisor)?));
                (Work::Whole(Op::Binary(Binary::Mul)), inputs)
            }
            _ => (Work::Whole(node.op.clone()), constants.arguments(&node.inputs)?),
        };
        steps.push(Step { name: node.name.clone(), work, inputs, output, frees: Vec::new() });
    }
    find_last_uses(graph, &mut steps);
    Ok(steps)
}

/// The constants of a graph as the operators store them.
struct Constants<'a> {
    graph: &'a Graph,
    narrow: BTreeMap<ValueId, Tensor>,
}

impl Constants<'_> {
    /// Weights: in f16.
    fn narrow(&mut self, id: ValueId) -> Result<Tensor, String> {
        if let Some(tensor) = self.narrow.get(&id) {
            return Ok(tensor.clone());
        }
        let value = self.graph.value(id);
        let tensor = self.graph.constant(id).ok_or_else(|| format!("value {:?} is not constant", value.name))?;
        let kept = if tensor.dtype().is_float() { stored(tensor) } else { Ok(tensor.clone()) };
        let kept = kept.map_err(|e| format!("weight {:?}: {e}", value.name))?;
        self.narrow.insert(id, kept.clone());
        Ok(kept)
    }

    /// Biases and what is folded into weights: in f32.
    fn wide(&self, id: ValueId) -> Result<Tensor, String> {
        let name = &self.graph.value(id).name;
        let tensor = self.graph.constant(id).ok_or_else(|| format!("value {name:?} is not constant"))?;
        let tensor = tensor.to_float(DType::F32).map_err(|e| format!("weight {name:?}: {e}"))?;
        let values = tensor.to_f32().map_err(|e| format!("weight {name:?}: {e}"))?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(format!("weight {name:?}: element {at} is {}", values[at])),
            None => Ok(tensor),
        }
    }

    /// What a division by a constant multiplies by.
    fn reciprocal(&self, id: ValueId) -> Result<Tensor, String> {
        let divisor = self.wide(id)?;
        let inverse = evaluate(&Op::Unary(Unary::Reciprocal), &[&divisor], Precision::F32).map_err(|e| e.to_string())?;
        stored(&inverse).map_err(|e| format!("reciprocal of weight {:?}: {e}", self.graph.value(id).name))
    }

    fn arguments(&mut self, inputs: &[ValueId]) -> Result<Vec<Argument>, String> {
        let argument = |&v: &ValueId| match self.graph.constant(v) {
            Some(_) => self.narrow(v).map(Argument::Constant),
            None => Ok(Argument::Value(v)),
        };
        inputs.iter().map(argument).collect()
    }
}

/// The convolution that the compiler folds a group norm's scale and shift into: 1x1, and the only one to use its result.
fn affine_taker(graph: &Graph, links: &Links, norm: NodeId) -> Option<NodeId> {
    let node = graph.node(norm);
    let &[user] = links.users(node.output) else { return None };
    let Op::Conv { window, group: 1 } = &graph.node(user).op else { return None };
    let constant = |node: &Node| node.inputs[1..].iter().all(|&v| graph.constant(v).is_some());
    let fits = matches!(node.op, Op::GroupNorm { .. }) && window.kernel == [1, 1] && window.pads == [0; 4];
    (fits && constant(node) && constant(graph.node(user)) && graph.node(user).inputs[0] == node.output && !links.is_output(node.output))
        .then_some(user)
}

/// Weight (in f16) and bias (in f32) of a 1x1 convolution of `norm`'s result, with the norm's scale and shift folded in.
fn scaled(constants: &Constants<'_>, weight: ValueId, bias: Option<&Tensor>, norm: &Node) -> Result<(Tensor, Option<Tensor>), String> {
    let (weight, gamma, beta) = (constants.wide(weight)?, constants.wide(norm.inputs[1])?, constants.wide(norm.inputs[2])?);
    let text = |e: KernelError| e.to_string();
    let matrix = weight.reshape([weight.shape()[0], weight.shape()[1]]).map_err(|e| e.to_string())?;
    let mut shift = matmul(&matrix, &beta, None, Precision::F32).map_err(text)?;
    if let Some(bias) = bias {
        shift = evaluate(&Op::Binary(Binary::Add), &[&shift, bias], Precision::F32).map_err(text)?;
    }
    let product = evaluate(&Op::Binary(Binary::Mul), &[&matrix, &gamma], Precision::F32).map_err(text)?;
    Ok((stored(&product.reshape(weight.shape()).map_err(|e| e.to_string())?)?, Some(shift)))
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

/// The weight, whole or cut along the channels: the first piece and the rest.
fn parts(node: &Node, weight: Tensor, numerics: Numerics) -> Result<(Part, Vec<Part>), KernelError> {
    let shape = weight.shape();
    let (axis, taps) = match &node.op {
        Op::Conv { group: 1, .. } => (1, shape[2..].iter().product()),
        Op::MatMul if shape.len() == 2 => (0, 1),
        _ => return Ok((Part { channels: 0..0, weight }, Vec::new())),
    };
    let (first, rest) = numerics.pieces(shape[axis], taps);
    if rest.is_empty() {
        return Ok((Part { channels: first, weight }, Vec::new()));
    }
    let part = |channels: Range<usize>| Ok::<_, KernelError>(Part { weight: slice(&weight, axis, &channels)?, channels });
    Ok((part(first)?, rest.into_iter().map(part).collect::<Result<_, _>>()?))
}

fn slice(x: &Tensor, axis: usize, range: &Range<usize>) -> Result<Tensor, KernelError> {
    let rank = x.shape().len();
    let (mut begin, mut end) = (vec![0; rank], x.shape().to_vec());
    (begin[axis], end[axis]) = (range.start, range.end);
    evaluate(&Op::Slice { begin, end, step: vec![1; rank] }, &[x], Precision::F16)
}

impl Step {
    /// Run on arguments in the order of [`Step::inputs`].
    pub(crate) fn run(&self, arguments: &[&Tensor]) -> Result<Tensor, KernelError> {
        let (op, first, rest, bias) = match &self.work {
            Work::Whole(op) => return evaluate(op, arguments, Precision::F16),
            Work::Weighted { op, first, rest, bias } => (op, first, rest, bias.as_ref()),
        };
        let x = arguments[0];
        let product = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| match (op, bias) {
            (Op::MatMul, bias) => matmul(x, weight, bias, Precision::F16),
            (_, Some(bias)) => evaluate(op, &[x, weight, bias], Precision::F16),
            (_, None) => evaluate(op, &[x, weight], Precision::F16),
        };
        let axis = if *op == Op::MatMul { x.shape().len() - 1 } else { 1 };
        if rest.is_empty() {
            return product(x, &first.weight, bias);
        }
        let mut sum = product(&slice(x, axis, &first.channels)?, &first.weight, bias)?;
        for part in rest {
            let next = product(&slice(x, axis, &part.channels)?, &part.weight, None)?;
            sum = evaluate(&Op::Binary(Binary::Add), &[&sum, &next], Precision::F16)?;
        }
        Ok(sum)
    }
}
