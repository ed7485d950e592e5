//! Sandwich, second half: rewrite a graph so that every value `v` is stored as `s_v * v`.
//!
//! Each operator has a typing rule that says with which factor its result comes out, and which constant absorbs a difference to
//! the factor wanted; where none can, a multiplication by a constant is inserted.

use super::Scales;
use rockshard_graph::{Binary, Graph, Node, Op, Rebuild, Reduce, Unary, ValueId, VerifyError};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;

struct Rescaler<'a> {
    source: &'a Graph,
    scales: &'a Scales,
    out: Rebuild,
    ids: HashMap<ValueId, ValueId>,
    fresh: usize,
}

/// The graph with all values stored times their factor. Names of values do not change.
///
/// # Errors
/// The rewrite broke the graph (a defect, with the node named).
pub fn apply_scales(graph: &Graph, scales: &Scales) -> Result<Graph, VerifyError> {
    let (out, inputs) = Rebuild::of(graph, "scaling");
    let ids = graph.inputs.iter().copied().zip(inputs).collect();
    let mut r = Rescaler { source: graph, scales, out, ids, fresh: 0 };
    for node in graph.nodes() {
        r.node(node);
    }
    let outputs = graph.outputs.iter().map(|&v| r.plain(v)).collect();
    r.out.finish(outputs)
}

impl Rescaler<'_> {
    fn scale(&self, id: ValueId) -> f32 {
        if self.source.constant(id).is_some() {
            1.0
        } else {
            self.scales.of(&self.source.value(id).name)
        }
    }

    fn is_constant(&self, id: ValueId) -> bool {
        self.source.constant(id).is_some()
    }

    fn fresh(&mut self, base: &str) -> String {
        self.fresh += 1;
        format!("{base}*{}", self.fresh)
    }

    /// A value as it is stored; constants unchanged.
    fn plain(&mut self, id: ValueId) -> ValueId {
        if let Some(&known) = self.ids.get(&id) {
            return known;
        }
        let value = self.source.value(id);
        let new = match &value.constant {
            Some(tensor) => self.out.graph.add_constant(value.name.clone(), tensor.clone()),
            None => self.out.graph.add_value(value.name.clone(), value.dtype, value.shape.clone()),
        };
        self.ids.insert(id, new);
        new
    }

    /// A real constant times a factor.
    fn folded(&mut self, id: ValueId, factor: f32) -> ValueId {
        let value = self.source.value(id);
        match value.constant.as_ref().and_then(|t| t.to_f32().ok().map(|v| (t.shape().to_vec(), v)))
        {
            Some((shape, values)) if factor != 1.0 => {
                let scaled = Tensor::from_f32(shape, values.iter().map(|v| v * factor).collect());
                let name = self.fresh(&value.name);
                self.out.graph.add_constant(name, scaled)
            }
            _ => self.plain(id),
        }
    }

    /// An operand at the factor wanted: folded into a constant, or by an inserted multiplication.
    fn at(&mut self, id: ValueId, wanted: f32) -> ValueId {
        if self.source.value(id).dtype != DType::F32 {
            return self.plain(id);
        }
        if self.is_constant(id) {
            return self.folded(id, wanted);
        }
        let stored = self.plain(id);
        let factor = wanted / self.scale(id);
        if factor == 1.0 { stored } else { self.multiplied(stored, factor) }
    }

    fn multiplied(&mut self, id: ValueId, factor: f32) -> ValueId {
        let value = self.out.graph.value(id);
        let (base, shape) = (value.name.clone(), value.shape.clone());
        let constant = self.fresh(&base);
        let constant = self.out.graph.add_constant(constant, Tensor::scalar(factor));
        let name = self.fresh(&base);
        let product = self.out.graph.add_value(name.clone(), DType::F32, shape);
        self.out.graph.add_node(name, Op::Binary(Binary::Mul), vec![id, constant], product);
        product
    }

    fn node(&mut self, node: &Node) {
        let wanted = self.scale(node.output);
        let s = |r: &Self, i: usize| r.scale(node.inputs[i]);
        let mut op = node.op.clone();
        // Inputs as stored, and the factor of the result.
        let (inputs, natural): (Vec<ValueId>, f32) = match &mut op {
            Op::Conv { .. } if self.is_constant(node.inputs[1]) => {
                let weight = self.folded(node.inputs[1], wanted / s(self, 0));
                let mut inputs = vec![self.plain(node.inputs[0]), weight];
                if let Some(&bias) = node.inputs.get(2) {
                    inputs.push(self.at(bias, wanted));
                }
                (inputs, wanted)
            }
            Op::MatMul | Op::Binary(Binary::Mul) => {
                let factor = wanted / (s(self, 0) * s(self, 1));
                match (self.is_constant(node.inputs[0]), self.is_constant(node.inputs[1])) {
                    (_, true) => (
                        vec![self.plain(node.inputs[0]), self.folded(node.inputs[1], factor)],
                        wanted,
                    ),
                    (true, _) => (
                        vec![self.folded(node.inputs[0], factor), self.plain(node.inputs[1])],
                        wanted,
                    ),
                    _ => (
                        vec![self.plain(node.inputs[0]), self.plain(node.inputs[1])],
                        s(self, 0) * s(self, 1),
                    ),
                }
            }
            Op::Binary(Binary::Div) => {
                let natural = s(self, 0) / s(self, 1);
                match (self.is_constant(node.inputs[0]), self.is_constant(node.inputs[1])) {
                    (_, true) => (
                        vec![
                            self.plain(node.inputs[0]),
                            self.folded(node.inputs[1], natural / wanted),
                        ],
                        wanted,
                    ),
                    (true, _) => (
                        vec![
                            self.folded(node.inputs[0], wanted / natural),
                            self.plain(node.inputs[1]),
                        ],
                        wanted,
                    ),
                    _ => (vec![self.plain(node.inputs[0]), self.plain(node.inputs[1])], natural),
                }
            }
            Op::Binary(Binary::Pow) if self.source.scalar(node.inputs[1]) == Some(2.0) => {
                (vec![self.plain(node.inputs[0]), self.plain(node.inputs[1])], s(self, 0).powi(2))
            }
            Op::Unary(Unary::Sqrt) => (vec![self.plain(node.inputs[0])], s(self, 0).sqrt()),
            Op::LayerNorm { epsilon, .. }
            | Op::InstanceNorm { epsilon }
            | Op::GroupNorm { epsilon, .. }
                if self.is_constant(node.inputs[1]) && self.is_constant(node.inputs[2]) =>
            {
                *epsilon *= s(self, 0).powi(2);
                let inputs = vec![
                    self.plain(node.inputs[0]),
                    self.folded(node.inputs[1], wanted),
                    self.folded(node.inputs[2], wanted),
                ];
                (inputs, wanted)
            }
            Op::Attention { scale } => {
                *scale /= s(self, 0) * s(self, 1);
                let mut inputs = vec![
                    self.plain(node.inputs[0]),
                    self.plain(node.inputs[1]),
                    self.plain(node.inputs[2]),
                ];
                if let Some(&mask) = node.inputs.get(3) {
                    inputs.push(self.at(mask, 1.0));
                }
                (inputs, s(self, 2))
            }
            Op::Swish { beta } => {
                *beta /= s(self, 0);
                (vec![self.plain(node.inputs[0])], s(self, 0))
            }
            Op::Clip { min, max } => {
                (*min, *max) = (*min * s(self, 0), *max * s(self, 0));
                (vec![self.plain(node.inputs[0])], s(self, 0))
            }
            Op::Pad { value, .. } => {
                *value *= s(self, 0);
                (vec![self.plain(node.inputs[0])], s(self, 0))
            }
            Op::Binary(Binary::Add | Binary::Sub | Binary::Min | Binary::Max)
            | Op::Where
            | Op::Concat { .. } => {
                (node.inputs.iter().map(|&i| self.at(i, wanted)).collect(), wanted)
            }
            Op::Gather { .. }
            | Op::Expand { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Resize { .. }
            | Op::Pool { .. } => {
                let mut inputs = vec![self.at(node.inputs[0], wanted)];
                inputs.extend(node.inputs[1..].iter().map(|&i| self.plain(i)));
                (inputs, wanted)
            }
            Op::Reduce { kind: Reduce::Mean | Reduce::Sum | Reduce::Max | Reduce::Min, .. }
            | Op::Unary(Unary::Relu | Unary::LeakyRelu(_) | Unary::Neg | Unary::Abs) => {
                (vec![self.at(node.inputs[0], wanted)], wanted)
            }
            // No rule: a barrier.
            _ => (node.inputs.iter().map(|&i| self.at(i, 1.0)).collect(), 1.0),
        };
        let factor = wanted / natural;
        let output = self.source.value(node.output);
        if factor == 1.0 || output.dtype != DType::F32 {
            let id = self.plain(node.output);
            self.out.graph.add_node(node.name.clone(), op, inputs, id);
            return;
        }
        let name = self.fresh(&output.name);
        let unscaled = self.out.graph.add_value(name, output.dtype, output.shape.clone());
        self.out.graph.add_node(node.name.clone(), op, inputs, unscaled);
        let constant = self.fresh(&output.name);
        let constant = self.out.graph.add_constant(constant, Tensor::scalar(factor));
        let id = self.plain(node.output);
        self.out.graph.add_node(
            format!("{}/rescale", node.name),
            Op::Binary(Binary::Mul),
            vec![unscaled, constant],
            id,
        );
    }
}
