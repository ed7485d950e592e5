//! Random graphs whose values lie anywhere between 1e-7 and 1e7.

use rockshard_graph::{Binary, Graph, Op, Reduce, Unary, ValueId, Window, infer};
use rockshard_tensor::{DType, Tensor};

/// A stream of random numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// About normal.
    fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.unit()).sum::<f32>() - 3.0
    }

    pub fn tensor(&mut self, shape: &[usize], size: f32) -> Tensor {
        let count = shape.iter().product();
        Tensor::from_f32(shape, (0..count).map(|_| self.normal() * size).collect())
    }

    /// A power of ten from `low` to `high`.
    fn decade(&mut self, low: f32, high: f32) -> f32 {
        10f32.powf(low + (high - low) * self.unit())
    }
}

struct Builder {
    graph: Graph,
    random: Random,
    count: usize,
}

/// Tokens and channels of every value.
const SHAPE: [usize; 3] = [1, 12, 16];

impl Builder {
    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.count += 1;
        self.graph.add_constant(format!("c{}", self.count), tensor)
    }

    fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.count += 1;
        let values: Vec<_> = inputs.iter().map(|&v| self.graph.value(v)).collect();
        let (dtype, shape) = infer(&op, &values).unwrap();
        let name = format!("n{}", self.count);
        let output = self.graph.add_value(name.clone(), dtype, shape);
        self.graph.add_node(name, op, inputs.to_vec(), output);
        output
    }

    fn number(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    fn two(&mut self, binary: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.node(Op::Binary(binary), &[a, b])
    }

    /// A linear layer that makes values `gain` times as large.
    fn linear(&mut self, x: ValueId, gain: f32) -> ValueId {
        let weight = self.random.tensor(&[16, 16], gain * 0.35);
        let weight = self.constant(weight);
        self.node(Op::MatMul, &[x, weight])
    }

    fn over_channels(&mut self, kind: Reduce, x: ValueId) -> ValueId {
        self.node(Op::Reduce { kind, axes: vec![2], keep: true }, &[x])
    }
}

/// A graph of one input, with its outputs: what came last, and sometimes what was on the way.
pub fn random_graph(seed: u64) -> (Graph, Tensor) {
    let mut b = Builder { graph: Graph::new("random"), random: Random::new(seed), count: 0 };
    let x = b.graph.add_value("x", DType::F32, SHAPE.to_vec());
    b.graph.inputs.push(x);
    let size = b.random.decade(-3.0, 3.0);
    let input = b.random.tensor(&SHAPE, size);
    let gain = b.random.decade(-4.0, 4.0);
    let mut value = b.linear(x, gain);
    let mut outputs = Vec::new();
    for _ in 0..1 + b.random.below(5) {
        let kind = b.random.below(16);
        value = step(&mut b, value, kind);
        if b.random.below(3) == 0 {
            let gain = b.random.decade(-4.0, 4.0);
            value = b.linear(value, gain);
        }
        if b.random.below(4) == 0 {
            outputs.push(value);
        }
    }
    outputs.push(value);
    outputs.dedup();
    b.graph.outputs = outputs;
    b.graph.tidy().unwrap();
    b.graph.verify().unwrap();
    (b.graph, input)
}

fn step(b: &mut Builder, x: ValueId, kind: usize) -> ValueId {
    let gain = b.random.decade(-3.0, 3.0);
    match kind {
        // RMS norm, the square as a power or a product.
        0 | 1 => {
            let two = b.number(2.0);
            let square =
                if kind == 0 { b.two(Binary::Pow, x, two) } else { b.two(Binary::Mul, x, x) };
            let mean = b.over_channels(Reduce::Mean, square);
            let epsilon = b.number(1e-6);
            let sum = b.two(Binary::Add, mean, epsilon);
            let root = b.node(Op::Unary(Unary::Sqrt), &[sum]);
            b.two(Binary::Div, x, root)
        }
        // L2 norm.
        2 => {
            let square = b.two(Binary::Mul, x, x);
            let sum = b.over_channels(Reduce::Sum, square);
            let root = b.node(Op::Unary(Unary::Sqrt), &[sum]);
            let least = b.number(1e-6);
            let root = b.two(Binary::Add, root, least);
            b.two(Binary::Div, x, root)
        }
        // Standardised by the unbiased variance.
        3 => {
            let mean = b.over_channels(Reduce::Mean, x);
            let centred = b.two(Binary::Sub, x, mean);
            let square = b.two(Binary::Mul, centred, centred);
            let sum = b.over_channels(Reduce::Sum, square);
            let count = b.number(15.0);
            let variance = b.two(Binary::Div, sum, count);
            let epsilon = b.number(1e-5);
            let variance = b.two(Binary::Add, variance, epsilon);
            let root = b.node(Op::Unary(Unary::Sqrt), &[variance]);
            b.two(Binary::Div, centred, root)
        }
        // SwiGLU, GEGLU, a gated ReLU.
        4..=6 => {
            let (gate, up) = (b.linear(x, gain), b.linear(x, gain));
            let gate = match kind {
                4 => b.node(Op::Swish { beta: 1.0 }, &[gate]),
                5 => b.node(Op::Gelu { tanh: false }, &[gate]),
                _ => b.node(Op::Unary(Unary::Relu), &[gate]),
            };
            let product = b.two(Binary::Mul, gate, up);
            let back = b.random.decade(-5.0, 0.0);
            b.linear(product, back)
        }
        7 => {
            let ones = b.constant(Tensor::from_f32([16], vec![1.0; 16]));
            let zeros = b.constant(Tensor::from_f32([16], vec![0.0; 16]));
            b.node(Op::LayerNorm { axis: 2, epsilon: 1e-5 }, &[x, ones, zeros])
        }
        8 => {
            let branch = b.linear(x, gain);
            b.two(Binary::Add, x, branch)
        }
        // A soft cap.
        9 => {
            let cap = b.number(gain);
            let over = b.two(Binary::Div, x, cap);
            let bent = b.node(Op::Unary(Unary::Tanh), &[over]);
            b.two(Binary::Mul, bent, cap)
        }
        10 => {
            let (q, k, v) = (b.linear(x, 1.0), b.linear(x, 1.0), b.linear(x, gain));
            let k = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[k]);
            b.node(Op::Attention { scale: 0.25 }, &[q, k, v])
        }
        11 => b.node(Op::Unary(Unary::LeakyRelu(0.2)), &[x]),
        12 => {
            let shifts = b.random.tensor(&[16], gain);
            let shifts = b.constant(shifts);
            b.two(Binary::Add, x, shifts)
        }
        13 => {
            let halves = [(0, 8), (8, 16)].map(|(from, to)| {
                let (begin, end) = (vec![0, 0, from], vec![1, 12, to]);
                b.node(Op::Slice { begin, end, step: vec![1; 3] }, &[x])
            });
            b.node(Op::Concat { axis: 2 }, &[halves[1], halves[0]])
        }
        14 => {
            let plane = b.node(Op::Reshape { shape: vec![1, 12, 4, 4] }, &[x]);
            let weight = b.random.tensor(&[12, 12, 3, 3], gain * 0.1);
            let weight = b.constant(weight);
            let window =
                Window { kernel: [3, 3], strides: [1, 1], pads: [1; 4], dilations: [1, 1] };
            let plane = b.node(Op::Conv { window, group: 1 }, &[plane, weight]);
            let plane = b.node(Op::Unary(Unary::HardSwish), &[plane]);
            b.node(Op::Reshape { shape: SHAPE.to_vec() }, &[plane])
        }
        _ => {
            let top = b.over_channels(Reduce::Max, x);
            b.two(Binary::Sub, x, top)
        }
    }
}
