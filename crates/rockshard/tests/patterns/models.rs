//! The small models of `docs/patterns.md`, written as exporters write them.

use rockshard::{DType, Tensor};
use rockshard_graph::{Binary, Graph, Op, ValueId, infer};
use std::path::{Path, PathBuf};

/// Tokens, channels, and channels of the layer in between.
const TOKENS: usize = 16;
const WIDTH: usize = 8;
const HIDDEN: usize = 32;
const EPSILON: f32 = 1e-5;

/// Values in [-1, 1) by a fixed rule.
pub fn pattern(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(shape, (0..count).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect())
}

struct Model(Graph);

impl Model {
    fn new() -> Self {
        Model(Graph::new("model"))
    }

    fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let id = self.0.add_value(name, DType::F32, shape.to_vec());
        self.0.inputs.push(id);
        id
    }

    /// A weight whose elements are smaller than `size`.
    fn weight(&mut self, name: &str, shape: &[usize], size: f32) -> ValueId {
        let values = pattern(shape).to_f32().unwrap().iter().map(|v| v * size).collect();
        self.0.add_constant(name, Tensor::from_f32(shape, values))
    }

    fn number(&mut self, name: &str, number: f32) -> ValueId {
        self.0.add_constant(name, Tensor::scalar(number))
    }

    /// A node of a module path; its value has the path's last word for a name.
    fn node(&mut self, path: &str, op: Op, inputs: &[ValueId]) -> ValueId {
        let values: Vec<_> = inputs.iter().map(|&v| self.0.value(v)).collect();
        let (dtype, shape) = infer(&op, &values).unwrap();
        let name = path.rsplit('/').next().unwrap();
        let output = self.0.add_value(name, dtype, shape);
        self.0.add_node(format!("/{path}"), op, inputs.to_vec(), output);
        output
    }

    fn add(&mut self, path: &str, a: ValueId, b: ValueId) -> ValueId {
        self.node(path, Op::Binary(Binary::Add), &[a, b])
    }

    fn reshape(&mut self, path: &str, x: ValueId, shape: &[usize]) -> ValueId {
        self.node(path, Op::Reshape { shape: shape.to_vec() }, &[x])
    }

    fn transpose(&mut self, path: &str, x: ValueId, perm: &[usize]) -> ValueId {
        self.node(path, Op::Transpose { perm: perm.to_vec() }, &[x])
    }

    /// Product by a weight that is called as said.
    fn linear(&mut self, path: &str, x: ValueId, weight: &str, width: usize) -> ValueId {
        let from = *self.0.value(x).shape.last().unwrap();
        let weight = self.weight(weight, &[from, width], 1.0 / (from as f32).sqrt());
        self.node(path, Op::MatMul, &[x, weight])
    }

    fn norm(&mut self, path: &str, x: ValueId) -> ValueId {
        let name = path.rsplit('/').next().unwrap();
        let gamma = self.weight(&format!("{name}.gamma"), &[WIDTH], 1.0);
        let beta = self.weight(&format!("{name}.beta"), &[WIDTH], 0.5);
        self.node(path, Op::LayerNorm { axis: 2, epsilon: EPSILON }, &[x, gamma, beta])
    }

    /// `softmax(q k * scale + mask) v`, operator by operator, the last one of the path.
    fn attention(&mut self, path: &str, [q, k, v]: [ValueId; 3], mask: Option<ValueId>) -> ValueId {
        let at = |name: &str| format!("{}{name}", path.trim_end_matches(|c| c != '/'));
        let axes = self.0.value(k).shape.len();
        let mut perm: Vec<usize> = (0..axes).collect();
        perm.swap(axes - 1, axes - 2);
        let keys = self.transpose(&at("keys"), k, &perm);
        let products = self.node(&at("products"), Op::MatMul, &[q, keys]);
        let scale = self.number("scale", 1.0 / (self.0.value(q).shape[axes - 1] as f32).sqrt());
        let scores = self.node(&at("scores"), Op::Binary(Binary::Mul), &[products, scale]);
        let scores = mask.map_or(scores, |mask| self.add(&at("masked"), scores, mask));
        let weights = self.node(&at("weights"), Op::Softmax { axis: axes - 1 }, &[scores]);
        self.node(path, Op::MatMul, &[weights, v])
    }

    /// Write the model; gives its file.
    fn save(mut self, folder: &Path, output: ValueId) -> PathBuf {
        self.0.outputs = vec![output];
        self.0.verify().unwrap();
        let file = folder.join("model.onnx");
        rockshard_converter::write_onnx(&self.0, &file).unwrap();
        file
    }
}

/// The feed-forward of a transformer, with its norm and its residual.
pub fn feed_forward(folder: &Path) -> PathBuf {
    let mut m = Model::new();
    let x = m.input("x", &[1, TOKENS, WIDTH]);
    let norm = m.norm("norm", x);
    let up = m.linear("mlp/up", norm, "w1", HIDDEN);
    let bias = m.weight("b1", &[HIDDEN], 0.5);
    let up = m.add("mlp/biased", up, bias);
    let active = m.node("mlp/active", Op::Gelu { tanh: false }, &[up]);
    let down = m.linear("mlp/down", active, "w2", WIDTH);
    let bias = m.weight("b2", &[WIDTH], 0.5);
    let down = m.add("mlp/branch", down, bias);
    let y = m.add("y", x, down);
    m.save(folder, y)
}

/// Attention of three heads; with `mask`, one under which no token sees a later one.
pub fn attention(folder: &Path, mask: bool) -> PathBuf {
    let mut m = Model::new();
    let qkv = ["q", "k", "v"].map(|name| m.input(name, &[1, 3, TOKENS, 4]));
    let hidden = |i: usize| if i % TOKENS > i / TOKENS { f32::MIN } else { 0.0 };
    let values = (0..TOKENS * TOKENS).map(hidden).collect();
    let mask =
        mask.then(|| m.0.add_constant("mask", Tensor::from_f32([1, 1, TOKENS, TOKENS], values)));
    let y = m.attention("y", qkv, mask);
    m.save(folder, y)
}

/// A whole transformer layer of one head.
pub fn layer(folder: &Path) -> PathBuf {
    let mut m = Model::new();
    let x = m.input("x", &[1, TOKENS, WIDTH]);
    let norm = m.norm("layer/attention/norm1", x);
    let qkv = [("q", "wq"), ("k", "wk"), ("v", "wv")]
        .map(|(name, weight)| m.linear(&format!("layer/attention/{name}"), norm, weight, WIDTH));
    let attended = m.attention("layer/attention/attended", qkv, None);
    let out = m.linear("layer/attention/out", attended, "wo", WIDTH);
    let h = m.add("layer/h", x, out);
    let norm = m.norm("layer/mlp/norm2", h);
    let up = m.linear("layer/mlp/up", norm, "w1", HIDDEN);
    let active = m.node("layer/mlp/active", Op::Gelu { tanh: false }, &[up]);
    let down = m.linear("layer/mlp/down", active, "w2", WIDTH);
    let y = m.add("layer/y", h, down);
    m.save(folder, y)
}

/// A vision model's connector: a linear layer over 2x2 blocks of a square of tokens.
pub fn connector(folder: &Path) -> PathBuf {
    let mut m = Model::new();
    let x = m.input("x", &[1, TOKENS, WIDTH]);
    let v = m.reshape("grid", x, &[1, 4, 4, WIDTH]);
    let v = m.reshape("pairs", v, &[1, 4, 2, 2 * WIDTH]);
    let v = m.transpose("turned", v, &[0, 2, 1, 3]);
    let v = m.reshape("blocks", v, &[1, 2, 2, 4 * WIDTH]);
    let v = m.transpose("back", v, &[0, 2, 1, 3]);
    let v = m.reshape("rows", v, &[1, 4, 4 * WIDTH]);
    let y = m.linear("y", v, "w", 6);
    m.save(folder, y)
}

/// A linear layer over the 9216 tokens of a plane, more than an axis may have.
pub fn long(folder: &Path) -> PathBuf {
    let mut m = Model::new();
    let x = m.input("x", &[1, 2, 96, 96]);
    let v = m.reshape("flat", x, &[1, 2, 9216]);
    let v = m.transpose("tokens", v, &[0, 2, 1]);
    let v = m.linear("mixed", v, "w", 2);
    let v = m.transpose("channels", v, &[0, 2, 1]);
    let y = m.reshape("y", v, &[1, 2, 96, 96]);
    m.save(folder, y)
}
