//! Causal attention of new tokens to all that came before, keys and values shared by groups of heads.

use super::matrix::Kernels;
use super::shape::DecoderShape;
use rayon::prelude::*;
use rten_gemm::{GemmInputA, GemmInputB, GemmOptions, GemmUninitOptions};
use rten_simd::SimdOp;
use rten_tensor::NdTensorView;
use rten_vecmath::Softmax;
use std::mem::MaybeUninit;

/// Tokens whose queries are compared with the keys at once.
const ROWS: usize = 64;

/// Keys and values of a layer: a run of rows for each head, with room for more.
#[derive(Clone)]
pub(super) struct Memory {
    pub keys: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
}

impl Memory {
    pub fn new(shape: &DecoderShape) -> Self {
        Memory { keys: vec![Vec::new(); shape.kv_heads], values: vec![Vec::new(); shape.kv_heads] }
    }

    /// Forget all behind so many tokens.
    pub fn truncate(&mut self, tokens: usize, head_width: usize) {
        self.keys.iter_mut().chain(&mut self.values).for_each(|v| v.truncate(tokens * head_width));
    }

    /// Keep keys and values of new tokens, which follow the queries in each row.
    pub fn append(&mut self, shape: &DecoderShape, rows: &[f32]) {
        let (queries, keys, width) = (shape.queries(), shape.keys(), shape.head_width);
        let heads = self.keys.par_iter_mut().chain(&mut self.values).enumerate();
        heads.for_each(|(head, kept)| {
            let at = queries + head * width;
            let rows = rows.chunks_exact(queries + 2 * keys);
            rows.for_each(|row| kept.extend_from_slice(&row[at..at + width]));
        });
    }
}

/// What the heads give for the last `count` tokens of a memory, a row a token: softmax(q k / sqrt(width)) v over the tokens up to each one
/// (Vaswani et al. 2017). `queries` has rows of `stride` values that begin with a token's queries.
pub(super) fn attend(
    kernels: &Kernels,
    shape: &DecoderShape,
    memory: &Memory,
    queries: &[f32],
    stride: usize,
) -> Result<Vec<f32>, String> {
    let count = queries.len() / stride;
    if count == 1 {
        return attend_once(kernels, shape, memory, queries);
    }
    let tokens = memory.keys[0].len() / shape.head_width;
    let before = tokens - count;
    let blocks = count.div_ceil(ROWS);
    let group = shape.heads / shape.kv_heads;
    let width = shape.head_width;
    // Long ones first, so that threads end together.
    let tasks: Vec<(usize, usize)> =
        (0..blocks).rev().flat_map(|b| (0..shape.kv_heads).map(move |head| (b, head))).collect();
    let piece = |&(block, head): &(usize, usize)| -> Result<Vec<f32>, String> {
        let rows = block * ROWS..count.min((block + 1) * ROWS);
        let seen = before + rows.end;
        let scale = (width as f32).sqrt().recip();
        let mut q = Vec::with_capacity(rows.len() * group * width);
        for row in rows.clone() {
            let at = row * stride + head * group * width;
            q.extend(queries[at..at + group * width].iter().map(|v| v * scale));
        }
        let many = rows.len() * group;
        let keys = NdTensorView::from_data([seen, width], &memory.keys[head][..seen * width]);
        let values = NdTensorView::from_data([seen, width], &memory.values[head][..seen * width]);
        let mut scores = vec![MaybeUninit::uninit(); many * seen];
        let a = GemmInputA::Unpacked(NdTensorView::from_data([many, width], &q[..]));
        let b = GemmInputB::Unpacked(keys.transposed());
        let scores = kernels.float.gemm_uninit(&mut scores, a, b, GemmUninitOptions::default());
        let scores = scores.map_err(|e| e.to_string())?;
        for (number, row) in scores.chunks_exact_mut(seen).enumerate() {
            let (visible, hidden) = row.split_at_mut(before + rows.start + number / group + 1);
            Softmax::new_mut(visible).dispatch();
            hidden.fill(0.0);
        }
        let a = GemmInputA::Unpacked(NdTensorView::from_data([many, seen], &scores[..]));
        let b = GemmInputB::Unpacked(values);
        let mut out = vec![0.0; many * width];
        let done = kernels.float.gemm(&mut out, a, b, GemmOptions::default());
        done.map_err(|e| e.to_string())?;
        Ok(out)
    };
    let found = tasks.par_iter().map(piece).collect::<Result<Vec<_>, _>>()?;
    let mut out = vec![0.0; count * shape.queries()];
    for ((block, head), piece) in tasks.iter().zip(found) {
        for (row, values) in piece.chunks_exact(group * width).enumerate() {
            let at = (block * ROWS + row) * shape.queries() + head * group * width;
            out[at..at + group * width].copy_from_slice(values);
        }
    }
    Ok(out)
}

/// As [`attend`], for the last token: each head for itself, since packing keys for a kernel would cost more than the product.
fn attend_once(
    kernels: &Kernels,
    shape: &DecoderShape,
    memory: &Memory,
    queries: &[f32],
) -> Result<Vec<f32>, String> {
    let (width, group) = (shape.head_width, shape.heads / shape.kv_heads);
    let scale = (width as f32).sqrt().recip();
    let head = |head: usize| -> Result<Vec<f32>, String> {
        let (keys, values) = (&memory.keys[head / group], &memory.values[head / group]);
        let tokens = keys.len() / width;
        let query: Vec<f32> =
            queries[head * width..(head + 1) * width].iter().map(|v| v * scale).collect();
        let mut scores = vec![0.0; tokens];
        let a = GemmInputA::Unpacked(NdTensorView::from_data([1, width], &query[..]));
        let keys = NdTensorView::from_data([tokens, width], &keys[..]);
        let b = GemmInputB::Unpacked(keys.transposed());
        let done = kernels.float.gemm(&mut scores, a, b, GemmOptions::default());
        done.map_err(|e| e.to_string())?;
        Softmax::new_mut(&mut scores).dispatch();
        let mut out = vec![0.0; width];
        let a = GemmInputA::Unpacked(NdTensorView::from_data([1, tokens], &scores[..]));
        let values = NdTensorView::from_data([tokens, width], &values[..]);
        let b = GemmInputB::Unpacked(values);
        kernels.float.gemm(&mut out, a, b, GemmOptions::default()).map_err(|e| e.to_string())?;
        Ok(out)
    };
    let heads = (0..shape.heads).into_par_iter().map(head).collect::<Result<Vec<_>, _>>()?;
    Ok(heads.concat())
}
