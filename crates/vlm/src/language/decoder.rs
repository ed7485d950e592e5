//! A Llama decoder on rten's matrix kernels: keys and values stay in place, attention leaves out what is hidden, and the last layer's work behind attention is
//! done for the last token only.

mod attention;
mod file;
mod four;
mod matrix;
mod rotary;
mod shape;
mod writer;

pub use file::WeightBits;
pub use shape::DecoderShape;
pub use writer::DecoderWriter;

use attention::{Memory, attend};
use file::{Reader, Table, View};
use matrix::{Kernels, Matrix, Scratch};
use rayon::prelude::*;
use rotary::Rotary;
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{Normalize, NormalizeOptions, Silu, SumSquare};
use safetensors::tensor::Dtype;
use std::path::Path;

/// Values below which a loop is not worth two threads.
const SMALL: usize = 1 << 14;

struct Layer {
    attention_norm: View<f32>,
    qkv: Matrix,
    output: Matrix,
    feed_norm: View<f32>,
    gate_up: Matrix,
    down: Matrix,
}

/// A decoder's weights.
pub(super) struct Decoder {
    pub shape: DecoderShape,
    table: Table,
    layers: Vec<Layer>,
    norm: View<f32>,
    head: Matrix,
}

/// Keys and values of all layers.
pub(super) struct Memories(Vec<Memory>);

impl Memories {
    pub fn truncate(&mut self, tokens: usize, shape: &DecoderShape) {
        self.0.iter_mut().for_each(|m| m.truncate(tokens, shape.head_width));
    }
}

impl Decoder {
    /// Map a file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (file, shape) = Reader::open(path)?;
        let DecoderShape { width, inner, vocabulary, .. } = shape;
        let kernels = Kernels::new(false);
        let norm = |name: &str| file.view(name, Dtype::F32, &[width]);
        let layer = |number: usize| {
            let name = |part: &str| format!("layers.{number}.{part}");
            let projected = shape.queries() + 2 * shape.keys();
            Ok::<_, String>(Layer {
                attention_norm: norm(&name("attention_norm"))?,
                qkv: file.matrix(&kernels, &name("qkv"), projected, width)?,
                output: file.matrix(&kernels, &name("output"), width, shape.queries())?,
                feed_norm: norm(&name("feed_norm"))?,
                gate_up: file.matrix(&kernels, &name("gate_up"), 2 * inner, width)?,
                down: file.matrix(&kernels, &name("down"), width, inner)?,
            })
        };
        let layers = (0..shape.layers).into_par_iter().map(layer).collect::<Result<_, _>>()?;
        let head = file.matrix(&kernels, "head", vocabulary, width)?;
        file.release_pages();
        let table = file.table("embeddings", &[vocabulary, width])?;
        Ok(Decoder { shape, table, layers, norm: norm("norm")?, head })
    }

    /// Append a token's embedding; false where it is unknown.
    pub fn embed(&self, token: u32, to: &mut Vec<f32>) -> bool {
        let known = (token as usize) < self.shape.vocabulary;
        if known {
            self.table.row(token as usize, self.shape.width, to);
        }
        known
    }

    pub fn memories(&self) -> Memories {
        Memories(vec![Memory::new(&self.shape); self.shape.layers])
    }

    /// Go on behind `tokens` of a memory with embeddings; gives the logits of the token after the last.
    pub fn feed(
        &self,
        memories: &mut Memories,
        tokens: usize,
        embeddings: &[f32],
    ) -> Result<Vec<f32>, String> {
        let shape = &self.shape;
        let width = shape.width;
        let count = embeddings.len() / width;
        let (kernels, scratch) = (&Kernels::new(count == 1), &mut Scratch::default());
        let rotary = Rotary::new(shape, tokens..tokens + count);
        let stride = shape.queries() + 2 * shape.keys();
        let mut rows = embeddings.to_vec();
        for (number, (layer, memory)) in self.layers.iter().zip(&mut memories.0).enumerate() {
            let normed = self.normalised(&rows, layer.attention_norm.get());
            let mut qkv = layer.qkv.multiply(kernels, scratch, &normed)?;
            rotary.apply(&mut qkv, stride, shape.queries() + shape.keys());
            memory.append(shape, &qkv);
            let mut queries = &qkv[..];
            if number + 1 == shape.layers {
                // No other token's logits are asked for.
                rows.drain(..(count - 1) * width);
                queries = &qkv[(count - 1) * stride..];
            }
            let attended = attend(kernels, shape, memory, queries, stride)?;
            add(&mut rows, &layer.output.multiply(kernels, scratch, &attended)?);
            let normed = self.normalised(&rows, layer.feed_norm.get());
            let gated = gate(layer.gate_up.multiply(kernels, scratch, &normed)?, shape.inner);
            add(&mut rows, &layer.down.multiply(kernels, scratch, &gated)?);
        }
        self.head.multiply(kernels, scratch, &self.normalised(&rows, self.norm.get()))
    }

    /// Rows over the root of their mean square, times the weights (Zhang and Sennrich 2019).
    fn normalised(&self, rows: &[f32], weights: &[f32]) -> Vec<f32> {
        let (width, epsilon) = (self.shape.width, self.shape.epsilon);
        let mut out = rows.to_vec();
        let normalise = |row: &mut [f32]| {
            let mean = SumSquare::new(row).dispatch() / width as f32;
            let scale = (mean + epsilon).sqrt().recip();
            let options = NormalizeOptions {
                scale,
                element_scale: Some(weights),
                ..NormalizeOptions::default()
            };
            Normalize::new_mut(row, options).dispatch();
        };
        if out.len() < SMALL {
            out.chunks_exact_mut(width).for_each(normalise);
        } else {
            out.par_chunks_exact_mut(width).for_each(normalise);
        }
        out
    }
}

fn add(to: &mut [f32], values: &[f32]) {
    let pairs = to.par_chunks_mut(SMALL).zip(values.par_chunks(SMALL));
    pairs.for_each(|(to, values)| to.iter_mut().zip(values).for_each(|(to, v)| *to += v));
}

/// silu(gate) * up, of rows that hold both.
fn gate(mut rows: Vec<f32>, inner: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() / 2];
    let gated = |(row, out): (&mut [f32], &mut [f32])| {
        let (gate, up) = row.split_at_mut(inner);
        Silu {}.map_mut(gate);
        out.iter_mut().zip(gate).zip(up).for_each(|((out, gate), up)| *out = *gate * *up);
    };
    if rows.len() < SMALL {
        rows.chunks_exact_mut(2 * inner).zip(out.chunks_exact_mut(inner)).for_each(gated);
    } else {
        rows.par_chunks_exact_mut(2 * inner).zip(out.par_chunks_exact_mut(inner)).for_each(gated);
    }
    out
}
