//! Random graphs, and running a graph in float32 on the kernels' reference semantics.
#![allow(dead_code)]

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rockshard_graph::{Binary, Graph, Op, Reduce, Resize, Unary, ValueId, Window, infer};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};

pub type Named = BTreeMap<String, Tensor>;

/// Run a graph on inputs by name; outputs by name.
pub fn run(graph: &Graph, inputs: &Named, precision: Precision) -> Named {
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for &input in &graph.inputs {
        values.insert(input, inputs[&graph.value(input).name].clone());
    }
    for node in graph.nodes() {
        let given: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|v| values.get(v).or(graph.constant(*v)).unwrap().clone())
            .collect();
        let result = evaluate(&node.op, &given.iter().collect::<Vec<_>>(), precision)
            .unwrap_or_else(|e| panic!("{}: {e}", node.name));
        values.insert(node.output, result);
    }
    graph.outputs.iter().map(|v| (graph.value(*v).name.clone(), values[v].clone())).collect()
}

pub fn noise(shape: &[usize], rng: &mut ChaCha8Rng) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_f32(shape, (0..count).map(|_| StandardNormal.sample(rng)).collect())
}

pub fn scaled(tensor: &Tensor, factor: f32) -> Tensor {
    Tensor::from_f32(tensor.shape(), tensor.to_f32().unwrap().iter().map(|v| v * factor).collect())
}

/// |a - b| / |b| in the Euclidean norm.
pub fn relative_l2(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b.iter()).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    let norm: f64 = b.iter().map(|y| f64::from(*y).powi(2)).sum();
    (difference / norm.max(1e-30)).sqrt()
}

pub struct Builder {
    pub graph: Graph,
    pub rng: ChaCha8Rng,
    count: usize,
}

impl Builder {
    pub fn new(seed: u64) -> Self {
        Builder { graph: Graph::new("random"), rng: ChaCha8Rng::seed_from_u64(seed), count: 0 }
    }

    pub fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let id = self.graph.add_value(name, DType::F32, shape.to_vec());
        self.graph.inputs.push(id);
        id
    }

    pub fn weight(&mut self, shape: &[usize], size: f32) -> ValueId {
        self.count += 1;
        let tensor = scaled(&noise(shape, &mut self.rng), size);
        self.graph.add_constant(format!("w{}", self.count), tensor)
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.count += 1;
        self.graph.add_constant(format!("c{}", self.count), tensor)
    }

    pub fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.count += 1;
        let values: Vec<_> = inputs.iter().map(|&v| self.graph.value(v)).collect();
        let (dtype, shape) = infer(&op, &values).unwrap();
        let name = format!("v{}", self.count);
        let out = self.graph.add_value(name.clone(), dtype, shape);
        self.graph.add_node(format!("/block{}/{name}", self.count / 8), op, inputs.to_vec(), out);
        out
    }

    pub fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.value(v).shape.clone()
    }

    pub fn conv(&mut self, x: ValueId, out: usize, kernel: usize, bias: bool) -> ValueId {
        let c = self.shape(x)[1];
        let w = self.weight(&[out, c, kernel, kernel], 1.0 / ((c * kernel * kernel) as f32).sqrt());
        let window = Window {
            kernel: [kernel; 2],
            strides: [1; 2],
            pads: [kernel / 2; 4],
            dilations: [1; 2],
        };
        let mut inputs = vec![x, w];
        if bias {
            inputs.push(self.weight(&[out], 0.5));
        }
        self.node(Op::Conv { window, group: 1 }, &inputs)
    }

    pub fn linear(&mut self, x: ValueId, out: usize) -> ValueId {
        let k = *self.shape(x).last().unwrap();
        let w = self.weight(&[k, out], 1.0 / (k as f32).sqrt());
        let y = self.node(Op::MatMul, &[x, w]);
        let b = self.weight(&[out], 0.5);
        self.node(Op::Binary(Binary::Add), &[y, b])
    }

    pub fn group_norm(&mut self, x: ValueId, groups: usize) -> ValueId {
        let c = self.shape(x)[1];
        let (gamma, beta) = (self.weight(&[c], 1.0), self.weight(&[c], 0.5));
        self.node(Op::GroupNorm { groups, epsilon: 1e-5 }, &[x, gamma, beta])
    }

    pub fn layer_norm(&mut self, x: ValueId) -> ValueId {
        let shape = self.shape(x);
        let d = shape[shape.len() - 1];
        let (gamma, beta) = (self.weight(&[d], 1.0), self.weight(&[d], 0.5));
        self.node(Op::LayerNorm { axis: shape.len() - 1, epsilon: 1e-5 }, &[x, gamma, beta])
    }

    /// Self-attention with projections over tokens [1, L, D], added to its input.
    pub fn attention(&mut self, x: ValueId, heads: usize, mask: bool) -> ValueId {
        let (l, d) = (self.shape(x)[1], self.shape(x)[2]);
        let n = self.layer_norm(x);
        let split = |b: &mut Self, perm: &[usize]| {
            let y = b.linear(n, d);
            let y = b.node(Op::Reshape { shape: vec![1, l, heads, d / heads] }, &[y]);
            b.node(Op::Transpose { perm: perm.to_vec() }, &[y])
        };
        let mut inputs = vec![
            split(self, &[0, 2, 1, 3]),
            split(self, &[0, 2, 3, 1]),
            split(self, &[0, 2, 1, 3]),
        ];
        if mask {
            inputs.push(self.weight(&[1, 1, l, l], 1.0));
        }
        let y = self.node(Op::Attention { scale: 1.0 / ((d / heads) as f32).sqrt() }, &inputs);
        let y = self.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
        let y = self.node(Op::Reshape { shape: vec![1, l, d] }, &[y]);
        let y = self.linear(y, d);
        self.node(Op::Binary(Binary::Add), &[x, y])
    }

    pub fn finish(mut self, outputs: &[ValueId]) -> Graph {
        self.graph.outputs = outputs.to_vec();
        self.graph.tidy().unwrap();
        self.graph.verify().unwrap();
        self.graph
    }
}

/// A random network over a picture [1, 4, 6, 6]: convolutions, norms, activations, residuals, attention over its pixels, products,
/// and the operators that scale inference has rules for.
pub fn random_graph(seed: u64) -> Graph {
    let mut b = Builder::new(seed);
    let mut x = b.input("x", &[1, 4, 6, 6]);
    let side = b.input("side", &[1, 4, 1, 1]);
    x = b.conv(x, 4, 3, true);
    let kinds: Vec<usize> = (0..16).collect();
    for _ in 0..b.rng.random_range(4..10) {
        let kind = *kinds.choose(&mut b.rng).unwrap();
        x = step(&mut b, x, side, kind);
    }
    let y = b.conv(x, 3, 1, true);
    b.finish(&[y])
}

fn step(b: &mut Builder, x: ValueId, side: ValueId, kind: usize) -> ValueId {
    let mul = Op::Binary(Binary::Mul);
    let add = Op::Binary(Binary::Add);
    match kind {
        0 => {
            let n = b.group_norm(x, 2);
            let a = b.node(Op::Swish { beta: 1.0 }, &[n]);
            let c = b.conv(a, 4, 3, true);
            b.node(add, &[x, c])
        }
        1 => {
            let p = b.node(add, &[x, side]);
            let c = b.conv(p, 4, 1, false);
            b.node(Op::Unary(Unary::Relu), &[c])
        }
        2 => {
            let t = b.node(Op::Reshape { shape: vec![1, 4, 36] }, &[x]);
            let t = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[t]);
            let masked = b.rng.random_bool(0.3);
            let t = b.attention(t, 2, masked);
            let t = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[t]);
            b.node(Op::Reshape { shape: vec![1, 4, 6, 6] }, &[t])
        }
        3 => {
            let c = b.conv(x, 8, 1, true);
            let half = |b: &mut Builder, from: usize| {
                let (begin, end) = (vec![0, from, 0, 0], vec![1, from + 4, 6, 6]);
                b.node(Op::Slice { begin, end, step: vec![1; 4] }, &[c])
            };
            let (value, gate) = (half(b, 0), half(b, 4));
            let gate = b.node(Op::Gelu { tanh: false }, &[gate]);
            b.node(mul, &[value, gate])
        }
        4 => {
            let factor = b.constant(Tensor::scalar(0.7));
            b.node(mul, &[x, factor])
        }
        5 => {
            let divisor = b.constant(Tensor::from_f32([1, 4, 1, 1], vec![1.5, -2.0, 0.8, 3.0]));
            b.node(Op::Binary(Binary::Div), &[x, divisor])
        }
        6 => {
            let mean =
                b.node(Op::Reduce { kind: Reduce::Mean, axes: vec![2, 3], keep: true }, &[x]);
            b.node(Op::Binary(Binary::Sub), &[x, mean])
        }
        7 => {
            let up = b.node(Op::Resize { mode: Resize::Nearest, size: [12, 12] }, &[x]);
            let (begin, end) = (vec![0; 4], vec![1, 4, 12, 12]);
            b.node(Op::Slice { begin, end, step: vec![1, 1, 2, 2] }, &[up])
        }
        8 => {
            let y = b.conv(x, 4, 1, true);
            let both = b.node(Op::Concat { axis: 1 }, &[x, y]);
            b.conv(both, 4, 1, true)
        }
        9 => {
            let square = b.node(mul.clone(), &[x, x]);
            let mean =
                b.node(Op::Reduce { kind: Reduce::Mean, axes: vec![1], keep: true }, &[square]);
            let one = b.constant(Tensor::scalar(1.0));
            let sum = b.node(add, &[mean, one]);
            let root = b.node(Op::Unary(Unary::Sqrt), &[sum]);
            b.node(Op::Binary(Binary::Div), &[x, root])
        }
        10 => b.node(Op::Clip { min: -1.5, max: 2.0 }, &[x]),
        11 => {
            let two = b.constant(Tensor::scalar(2.0));
            let square = b.node(Op::Binary(Binary::Pow), &[x, two]);
            let c = b.conv(square, 4, 1, true);
            b.node(Op::Unary(Unary::Tanh), &[c])
        }
        12 => {
            let gate = b.node(Op::Unary(Unary::Sigmoid), &[x]);
            b.node(mul, &[x, gate])
        }
        13 => {
            let padded =
                b.node(Op::Pad { before: vec![0, 0, 1, 1], after: vec![0; 4], value: 0.5 }, &[x]);
            let (begin, end) = (vec![0; 4], vec![1, 4, 6, 6]);
            b.node(Op::Slice { begin, end, step: vec![1; 4] }, &[padded])
        }
        14 => {
            let table = b.weight(&[1, 4, 6, 6], 1.0);
            let y = b.node(Op::Binary(Binary::Max), &[x, table]);
            b.node(Op::Softmax { axis: 3 }, &[y])
        }
        _ => {
            let l = b.node(Op::Unary(Unary::LeakyRelu(0.1)), &[x]);
            b.group_norm(l, 4)
        }
    }
}

/// Standard normal inputs for a graph.
pub fn inputs(graph: &Graph, seed: u64) -> Named {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xabcd);
    graph
        .inputs
        .iter()
        .map(|&v| (graph.value(v).name.clone(), noise(&graph.value(v).shape, &mut rng)))
        .collect()
}

/// Standard normal values for the real inputs of a graph.
pub fn real_inputs(graph: &Graph, seed: u64) -> Named {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xabcd);
    let real = graph.inputs.iter().map(|&v| graph.value(v)).filter(|v| v.dtype == DType::F32);
    real.map(|v| (v.name.clone(), noise(&v.shape, &mut rng))).collect()
}

/// Inputs as a graph stores them: real ones but masks times the factor, where it is scaled.
pub fn stored(graph: &Graph, inputs: &Named, scaled_graph: bool, factor: f32) -> Named {
    let give = |&v: &ValueId| {
        let value = graph.value(v);
        let tensor = &inputs[&value.name];
        let tensor = match scaled_graph && value.dtype == DType::F32 && value.name != "mask" {
            true => scaled(tensor, factor),
            false => tensor.clone(),
        };
        (value.name.clone(), tensor)
    };
    graph.inputs.iter().map(give).collect()
}
