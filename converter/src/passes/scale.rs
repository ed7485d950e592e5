//! Sandwich, second half: rewrite a graph so that every value `v` is stored as `s_v * v`.
//!
//! Each operator has a typing rule that says with which factor its result comes out, and which constant absorbs a difference to
//! the factor wanted; where none can, a multiplication by a constant is inserted.

use super::Scales;
use rockshard_graph::{Binary, Graph, Node, Op, Rebuild, Reduce, Unary, ValueId, VerifyError};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;

/// float16's largest and smallest numbers.
const LARGEST: f32 = 65504.0;
const SMALLEST: f32 = 5.960_464_5e-8;

struct Rescaler<'a> {
    source: &'a Graph,
    scales: &'a Scales,
    out: Rebuild,
    ids: HashMap<ValueId, ValueId>,
    fresh: usize,
    /// A constant was made that float16 cannot hold.
    overflows: bool,
}

/// The graph with all values stored times their factor. Names of values do not change.
///
/// # Errors
/// The rewrite broke the graph (a defect, with the node named).
pub fn apply_scales(graph: &Graph, scales: &Scales) -> Result<Graph, VerifyError> {
    rescaled(graph, scales).0
}

/// Moderate the factors that would make constants too large for float16.
pub fn moderate_scales(graph: &Graph, scales: &mut Scales) {
    loop {
        let mut changed = false;
        for values in rescaled(graph, scales).1 {
            let of = |v: &ValueId| scales.worst(&graph.value(*v).name).map(str::to_owned);
            // The result's class decides what its constants are multiplied by, else the operands'.
            if let Some(worst) = values.iter().rev().find_map(of) {
                scales.moderate(&worst);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

type Rescaled = (Result<Graph, VerifyError>, Vec<Vec<ValueId>>);

/// The graph, and inputs and output of each node with a constant that scaling makes too large.
fn rescaled(graph: &Graph, scales: &Scales) -> Rescaled {
    let (out, inputs) = Rebuild::of(graph, "scaling");
    let ids = graph.inputs.iter().copied().zip(inputs).collect();
    let mut r = Rescaler { source: graph, scales, out, ids, fresh: 0, overflows: false };
    let mut too_large = Vec::new();
    for node in graph.nodes() {
        r.node(node);
        if std::mem::take(&mut r.overflows) {
            too_large.push(node.inputs.iter().copied().chain([node.output]).collect());
        }
    }
    let outputs = graph.outputs.iter().map(|&v| r.plain(v)).collect();
    (r.out.finish(outputs), too_large)
}

/// The largest power of two whose n-th power is not above a factor that is one; else the factor's n-th root.
fn root_below(factor: f32, n: f32) -> f32 {
    let power = factor.log2();
    if power.fract() == 0.0 { (power / n).floor().exp2() } else { factor.powf(n.recip()) }
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
                let most = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                self.overflows |= most <= LARGEST && most * factor > LARGEST;
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
        self.overflows |= !(SMALLEST..=LARGEST).contains(&factor.abs());
        let value = self.out.graph.value(id);
        let (base, shape) = (value.name.clone(), value.shape.clone());
        let constant = self.fresh(&base);
        let constant = self.out.graph.add_constant(constant, Tensor::scalar(factor));
        let name = self.fresh(&base);
        let product = self.out.graph.add_value(name.clone(), DType::F32, shape);
        self.out.graph.add_node(name, Op::Binary(Binary::Mul), vec![id, constant], product);
        product
    }

    /// The operands of a product of two values that is to come out times `factor`: the product itself need not fit, so that an operand is
    /// scaled before. Both of a square, the one that can take it of others.
    fn product(&mut self, operands: &[ValueId], factor: f32) -> Vec<ValueId> {
        let (a, b) = (operands[0], operands[1]);
        if factor == 1.0 {
            return vec![self.plain(a), self.plain(b)];
        }
        if a == b {
            let root = root_below(factor, 2.0);
            let (first, rest) = (self.at(a, self.scale(a) * root), factor / root.powi(2));
            let second = if rest == 1.0 { first } else { self.at(a, self.scale(a) * root * rest) };
            return vec![first, second];
        }
        // Down-scaling goes to the larger operand, up-scaling to the smaller one.
        let first =
            (self.scales.top(self.source, a) >= self.scales.top(self.source, b)) == (factor < 1.0);
        let scaled = |r: &mut Self, v: ValueId, it: bool| {
            if it { r.at(v, r.scale(v) * factor) } else { r.plain(v) }
        };
        vec![scaled(self, a, first), scaled(self, b, !first)]
    }

    /// A node of what an operator is written out in.
    fn step(&mut self, base: &str, op: Op, inputs: Vec<ValueId>) -> ValueId {
        let name = self.fresh(base);
        self.out.add(name, op, inputs)
    }

    fn with_number(&mut self, base: &str, binary: Binary, x: ValueId, number: f32) -> ValueId {
        let name = self.fresh(base);
        let number = self.out.graph.add_constant(name, Tensor::scalar(number));
        self.step(base, Op::Binary(binary), vec![x, number])
    }

    /// `1 + erf(x / sqrt 2)`, or `1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))`.
    fn gelu_gate(&mut self, base: &str, x: ValueId, tanh: bool) -> ValueId {
        use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
        let bent = if tanh {
            let cube = self.with_number(base, Binary::Pow, x, 3.0);
            let cubic = self.with_number(base, Binary::Mul, cube, 0.044_715);
            let sum = self.step(base, Op::Binary(Binary::Add), vec![x, cubic]);
            let argument = self.with_number(base, Binary::Mul, sum, FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            self.step(base, Op::Unary(Unary::Tanh), vec![argument])
        } else {
            let argument = self.with_number(base, Binary::Mul, x, FRAC_1_SQRT_2);
            self.step(base, Op::Unary(Unary::Erf), vec![argument])
        };
        self.with_number(base, Binary::Add, bent, 1.0)
    }

    fn node(&mut self, node: &Node) {
        let wanted = self.scale(node.output);
        let s = |r: &Self, i: usize| r.scale(node.inputs[i]);
        let mut op = node.op.clone();
        // Inputs as stored, and the factor of the result.
        let (inputs, natural): (Vec<ValueId>, f32) = match &mut op {
            Op::Conv { .. } | Op::ConvTranspose { .. } if self.is_constant(node.inputs[1]) => {
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
                    _ => (self.product(&node.inputs, factor), wanted),
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
                    _ => {
                        let dividend = self.at(node.inputs[0], s(self, 0) * wanted / natural);
                        (vec![dividend, self.plain(node.inputs[1])], wanted)
                    }
                }
            }
            Op::Binary(Binary::Pow) => match self.source.scalar(node.inputs[1]) {
                // What is squared or cubed is scaled before, so that the result fits.
                Some(power) if power >= 1.0 => {
                    let root = root_below(wanted, power);
                    let base = self.at(node.inputs[0], root);
                    (vec![base, self.plain(node.inputs[1])], root.powf(power))
                }
                Some(power) => {
                    let base = self.plain(node.inputs[0]);
                    (vec![base, self.plain(node.inputs[1])], s(self, 0).powf(power))
                }
                None => (node.inputs.iter().map(|&i| self.at(i, 1.0)).collect(), 1.0),
            },
            Op::Unary(Unary::Sqrt) => (vec![self.plain(node.inputs[0])], s(self, 0).sqrt()),
            Op::Unary(Unary::Reciprocal) => (vec![self.plain(node.inputs[0])], s(self, 0).recip()),
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
            // Near 0 it is the identity, whose difference from it is small: s tanh(x) = s x + s (tanh(x) - x).
            Op::Unary(Unary::Tanh) if wanted != 1.0 => {
                let plain = self.at(node.inputs[0], 1.0);
                let bent = self.step(&node.name, op, vec![plain]);
                let rest = self.step(&node.name, Op::Binary(Binary::Sub), vec![bent, plain]);
                let rest = self.multiplied(rest, wanted);
                let line = self.at(node.inputs[0], wanted);
                op = Op::Binary(Binary::Add);
                (vec![line, rest], wanted)
            }
            // A value times a gate, which is what it is at factor 1.
            Op::Unary(Unary::HardSwish) if wanted != 1.0 => {
                let plain = self.at(node.inputs[0], 1.0);
                let gate = Op::Unary(Unary::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 });
                let gate = self.step(&node.name, gate, vec![plain]);
                let line = self.at(node.inputs[0], wanted);
                op = Op::Binary(Binary::Mul);
                (vec![line, gate], wanted)
            }
            &mut Op::Gelu { tanh } if wanted != 1.0 => {
                let plain = self.at(node.inputs[0], 1.0);
                let gate = self.gelu_gate(&node.name, plain, tanh);
                let line = self.at(node.inputs[0], wanted / 2.0);
                op = Op::Binary(Binary::Mul);
                (vec![line, gate], wanted)
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
        self.overflows |= !(SMALLEST..=LARGEST).contains(&factor.abs());
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
