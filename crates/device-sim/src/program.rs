//! A graph made ready to run: weights in f16 and biases in f32, biases and scales joined to convolutions, deep products cut, and each
//! value's last use known.

use crate::Numerics;
use crate::fold::{self, Lead, Tail};
use crate::numerics::{stored, tabled_sigmoid};
use rockshard_graph::{Binary, Graph, Links, Node, NodeId, Op, Unary, ValueId};
use rockshard_kernels::{KernelError, Precision, evaluate, evaluate_weighted};
use rockshard_tensor::{DType, Tensor};
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
    /// The sigmoid from the board's table.
    TabledSigmoid,
    /// `x gain + shift` with constants in f32.
    Affine { gain: Tensor, shift: Tensor },
    /// A convolution or a product by a constant: weights and bias are not among the arguments. The sum is rounded where the
    /// channels are cut.
    Weighted { op: Op, weight: Tensor, bias: Option<Tensor>, cuts: Vec<usize> },
}

/// Make the steps of a graph.
///
/// # Errors
/// A constant that f16 cannot hold, named.
pub(crate) fn compile(graph: &Graph, numerics: Numerics) -> Result<Vec<Step>, String> {
    let links = graph.links();
    let mut constants = Constants { graph, narrow: BTreeMap::new() };
    // Multiplications whose factor the next convolution takes, and what convolutions and products took from behind them.
    let mut absorbed: BTreeSet<NodeId> = BTreeSet::new();
    let leads = leads(graph, &links);
    let mut steps = Vec::new();
    for id in graph.node_ids() {
        if absorbed.contains(&id) {
            continue;
        }
        let node = graph.node(id);
        let mut output = node.output;
        let second = node.inputs.get(1).copied().filter(|&v| graph.constant(v).is_some());
        let bias = node.inputs.get(2).copied();
        let taken = leads.values().any(|lead| lead.node == id);
        let place = |e: String| format!("node {:?}: {e}", node.name);
        let (work, inputs) = match (&node.op, second) {
            _ if let Some(weight) = weighted(graph, node) => {
                let bias = bias.map(|v| constants.wide(v)).transpose()?;
                let tail = fold::tail(graph, &links, id, channel_axis(graph, node), bias);
                if let Some(&last) = tail.nodes.last() {
                    output = graph.node(last).output;
                }
                absorbed.extend(&tail.nodes);
                let lead = leads.get(&id);
                let (weight, bias) = match weights(&mut constants, node, weight, &tail, lead) {
                    Ok(pair) => pair,
                    Err(e) => return Err(place(e)),
                };
                let cuts = cuts(&node.op, &weight, numerics);
                let input = match lead {
                    Some(lead) if lead.shift.is_none() => lead.input,
                    _ => node.inputs[0],
                };
                (
                    Work::Weighted { op: node.op.clone(), weight, bias, cuts },
                    constants.arguments(&[input])?,
                )
            }
            (Op::Binary(_), _) if taken => continue,
            _ if let Some(affine) = fold::affine(graph, &links, id) => {
                let [gain, shift] = [affine.gain, affine.shift].map(|v| {
                    let shape = graph.value(v).shape.clone();
                    constants.wide(v).map(|values| Tensor::from_f32(shape, values))
                });
                output = graph.node(affine.last).output;
                absorbed.insert(affine.last);
                (Work::Affine { gain: gain?, shift: shift? }, constants.arguments(&[affine.input])?)
            }
            (Op::GroupNorm { .. }, Some(gamma)) if graph.constant(node.inputs[2]).is_some() => {
                let (mut gamma, mut beta) =
                    (constants.wide(gamma)?, constants.wide(node.inputs[2])?);
                if taken {
                    gamma.fill(1.0);
                    beta.fill(0.0);
                }
                let mut inputs = constants.arguments(&node.inputs[..1])?;
                inputs
                    .extend([gamma, beta].map(|values| {
                        Argument::Constant(Tensor::from_f32([values.len()], values))
                    }));
                (Work::Whole(node.op.clone()), inputs)
            }
            (Op::Binary(Binary::Div), Some(divisor))
                if graph.value(divisor).dtype.is_float()
                    && graph.constant(node.inputs[0]).is_none() =>
            {
                let mut inputs = constants.arguments(&node.inputs[..1])?;
                inputs.push(Argument::Constant(constants.reciprocal(divisor)?));
                (Work::Whole(Op::Binary(Binary::Mul)), inputs)
            }
            (Op::Unary(Unary::Sigmoid), _) if numerics.tabled_sigmoid => {
                (Work::TabledSigmoid, constants.arguments(&node.inputs)?)
            }
            _ => (Work::Whole(node.op.clone()), constants.arguments(&node.inputs)?),
        };
        steps.push(Step { name: node.name.clone(), work, inputs, output, frees: Vec::new() });
    }
    find_last_uses(graph, &mut steps);
    Ok(steps)
}

/// The weight of a convolution, or of a product by a constant on the right, of constants and something that is none.
fn weighted(graph: &Graph, node: &Node) -> Option<ValueId> {
    let matrix = |v: ValueId| graph.value(v).shape.len() >= 2;
    let fits = match node.op {
        Op::Conv { .. } => true,
        Op::MatMul => matrix(node.inputs[1]),
        _ => false,
    };
    let constant = |&v: &ValueId| graph.constant(v).is_some();
    (fits && !constant(&node.inputs[0]) && node.inputs[1..].iter().all(constant))
        .then(|| node.inputs[1])
}

/// By convolution, what it takes in from the node before it. What follows a convolution or product goes to that one first.
fn leads(graph: &Graph, links: &Links) -> BTreeMap<NodeId, Lead> {
    let mut taken = BTreeSet::new();
    let mut leads = BTreeMap::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        if let Some(lead) = fold::lead(graph, links, id, &taken) {
            leads.insert(id, lead);
        }
        if weighted(graph, node).is_some() {
            taken.extend(fold::tail(graph, links, id, channel_axis(graph, node), None).nodes);
        }
    }
    leads
}

/// The axis of the output channels of a convolution or product.
fn channel_axis(graph: &Graph, node: &Node) -> usize {
    if node.op == Op::MatMul { graph.value(node.output).shape.len().saturating_sub(1) } else { 1 }
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
        let tensor = self
            .graph
            .constant(id)
            .ok_or_else(|| format!("value {:?} is not constant", value.name))?;
        let kept = if tensor.dtype().is_float() { stored(tensor) } else { Ok(tensor.clone()) };
        let kept = kept.map_err(|e| format!("weight {:?}: {e}", value.name))?;
        self.narrow.insert(id, kept.clone());
        Ok(kept)
    }

    /// Biases and what is folded into weights: in f32.
    fn wide(&self, id: ValueId) -> Result<Vec<f32>, String> {
        let name = &self.graph.value(id).name;
        let tensor =
            self.graph.constant(id).ok_or_else(|| format!("value {name:?} is not constant"))?;
        let values = tensor.to_f32().map_err(|e| format!("weight {name:?}: {e}"))?.into_owned();
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(format!("weight {name:?}: element {at} is {}", values[at])),
            None => Ok(values),
        }
    }

    /// What a division by a constant multiplies by.
    fn reciprocal(&self, id: ValueId) -> Result<Tensor, String> {
        let inverse = self.wide(id)?.into_iter().map(f32::recip).collect();
        let inverse = Tensor::from_f32(self.graph.value(id).shape.clone(), inverse);
        stored(&inverse)
            .map_err(|e| format!("reciprocal of weight {:?}: {e}", self.graph.value(id).name))
    }

    fn arguments(&mut self, inputs: &[ValueId]) -> Result<Vec<Argument>, String> {
        let argument = |&v: &ValueId| match self.graph.constant(v) {
            Some(_) => self.narrow(v).map(Argument::Constant),
            None => Ok(Argument::Value(v)),
        };
        inputs.iter().map(argument).collect()
    }
}

/// Weight (in f16) and bias (in f32) of a convolution or product with what it takes in before and behind it.
fn weights(
    constants: &mut Constants<'_>,
    node: &Node,
    weight: ValueId,
    tail: &Tail,
    lead: Option<&Lead>,
) -> Result<(Tensor, Option<Tensor>), String> {
    let bias = |shift: Vec<f32>| {
        shift.iter().any(|&v| v != 0.0).then(|| Tensor::from_f32([shift.len()], shift))
    };
    if lead.is_none() && tail.gain.iter().all(|&gain| gain == 1.0) {
        return Ok((constants.narrow(weight)?, bias(tail.shift.clone())));
    }
    let shape = constants.graph.value(weight).shape.clone();
    let mut values = constants.wide(weight)?;
    let mut shift = tail.shift.clone();
    // Runs of one output and one input channel, in the order of storage.
    let (outputs, taps) =
        (tail.gain.len(), if node.op == Op::MatMul { 1 } else { shape[2..].iter().product() });
    let channels = values.len() / outputs / taps;
    for (i, run) in values.chunks_mut(taps).enumerate() {
        let (output, input) =
            if node.op == Op::MatMul { (i % outputs, 0) } else { (i / channels, i % channels) };
        if let Some(Lead { shift: Some(before), .. }) = lead {
            shift[output] += run.iter().sum::<f32>() * before[input] * tail.gain[output];
        }
        let factor = lead.map_or(1.0, |lead| lead.gain[input]);
        run.iter_mut().for_each(|v| *v = *v * factor * tail.gain[output]);
    }
    Ok((stored(&Tensor::from_f32(shape, values))?, bias(shift)))
}

fn find_last_uses(graph: &Graph, steps: &mut [Step]) {
    let mut seen: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    for step in steps.iter_mut().rev() {
        let used = step
            .inputs
            .iter()
            .filter_map(|a| if let Argument::Value(v) = a { Some(*v) } else { None });
        let candidates: Vec<ValueId> = used.chain([step.output]).collect();
        step.frees = candidates.into_iter().filter(|&v| seen.insert(v)).collect();
    }
}

/// Channels of the input where the compiler cuts the sum.
fn cuts(op: &Op, weight: &Tensor, numerics: Numerics) -> Vec<usize> {
    let shape = weight.shape();
    match op {
        Op::Conv { group: 1, .. } => numerics.cuts(shape[1], shape[2..].iter().product()),
        Op::MatMul if shape.len() == 2 => numerics.cuts(shape[0], 1),
        _ => Vec::new(),
    }
}

impl Step {
    /// Whether finite arguments cannot give anything but a finite result: elements are moved, averaged or made smaller.
    pub(crate) fn keeps_finite(&self) -> bool {
        use Op::{
            Attention, Concat, Expand, Gather, Gelu, Reshape, Resize, Slice, Softmax, Swish,
            Transpose,
        };
        let Work::Whole(op) = &self.work else { return false };
        let moves = matches!(
            op,
            Reshape { .. }
                | Transpose { .. }
                | Slice { .. }
                | Concat { .. }
                | Gather { .. }
                | Expand { .. }
        );
        moves
            || matches!(
                op,
                Attention { .. }
                    | Softmax { .. }
                    | Resize { .. }
                    | Gelu { tanh: false }
                    | Swish { .. }
            )
    }

    /// Run on arguments in the order of [`Step::inputs`].
    pub(crate) fn run(&self, arguments: &[&Tensor]) -> Result<Tensor, KernelError> {
        match &self.work {
            Work::Whole(op) => evaluate(op, arguments, Precision::F16),
            Work::TabledSigmoid => tabled_sigmoid(arguments[0]),
            Work::Affine { gain, shift } => {
                let product =
                    evaluate(&Op::Binary(Binary::Mul), &[arguments[0], gain], Precision::F32)?;
                let sum = evaluate(&Op::Binary(Binary::Add), &[&product, shift], Precision::F32)?;
                evaluate(&Op::Cast(DType::F16), &[&sum], Precision::F16)
            }
            Work::Weighted { op, weight, bias, cuts } => {
                evaluate_weighted(op, arguments[0], weight, bias.as_ref(), cuts, Precision::F16)
            }
        }
    }
}
