//! Fused attention over tiles of query rows: the scores of one tile exist in f32, never those of all rows.

use crate::data::{Float, Source};
use crate::exp::exp;
use crate::product::{multiply, reserve};
use crate::walk::{broadcast_strides, strides};
use crate::{KernelError, Precision};
use half::f16;
use rayon::prelude::*;
use rockshard_graph::broadcast;
use rockshard_tensor::Tensor;
use std::cell::RefCell;

const OP: &str = "Attention";
/// Score elements of a tile, and the bounds of its rows.
const SCORES: usize = 1 << 19;
const MIN_ROWS: usize = 16;
const MAX_ROWS: usize = 128;
/// f32 elements of widened keys and values that exist at a time (more where one head needs more).
const WIDENED: usize = 1 << 23;

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 3]> = RefCell::default();
}

/// Where each operand's matrix of a batch index lies.
struct Batch {
    extents: Vec<usize>,
    steps: Vec<usize>,
}

impl Batch {
    fn offset(&self, index: usize, operand: &[usize]) -> usize {
        (0..self.extents.len()).map(|i| index / self.steps[i] % self.extents[i] * operand[i]).sum()
    }
}

struct Mask<'a> {
    values: Source<'a>,
    /// Batch strides, then the strides of query rows and keys, in elements.
    batch: Vec<usize>,
    row: usize,
    key: usize,
}

/// `softmax(q k * scale + mask) v` to `shape`, which is the inferred one.
pub(crate) fn attention(inputs: &[&Tensor], scale: f32, shape: Vec<usize>, precision: Precision) -> Result<Tensor, KernelError> {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]].map(Tensor::shape);
    if q.len() < 2 || k.len() < 2 || v.len() < 2 {
        return Err(KernelError::shape(OP, format!("shapes {q:?}, {k:?} and {v:?} need two axes or more")));
    }
    let split = |s: &[usize]| (s[..s.len() - 2].to_vec(), s[s.len() - 2], s[s.len() - 1]);
    let ((q_batch, rows, depth), (k_batch, _, keys), (v_batch, _, width)) = (split(q), split(k), split(v));
    let extents = shape[..shape.len() - 2].to_vec();
    let scores = broadcast(&q_batch, &k_batch).unwrap_or_default();
    let batch = Batch { steps: strides(&extents), extents };
    let [q_steps, k_steps, v_steps] = [&q_batch, &k_batch, &v_batch].map(|s| broadcast_strides(s, &batch.extents));
    let sources = (0..3).map(|i| Source::new(OP, i, inputs[i], precision)).collect::<Result<Vec<_>, _>>()?;
    let mask = inputs.get(3).map(|mask| {
        let full = [&scores[..], &[rows, keys]].concat();
        let mut steps = broadcast_strides(mask.shape(), &full);
        let key = steps.pop().unwrap_or(0);
        let row = steps.pop().unwrap_or(0);
        // Batch axes of the output in front of those of the scores repeat the mask.
        let lead = batch.extents.len() - scores.len();
        let repeated = (0..batch.extents.len()).map(|i| if i < lead || scores[i - lead] != batch.extents[i] { 0 } else { steps[i - lead] });
        Ok::<_, KernelError>(Mask { values: Source::new(OP, 3, mask, precision)?, batch: repeated.collect(), row, key })
    });
    let job = Job { rows, depth, keys, width, scale, batch, q: &sources[0], q_steps, mask: mask.transpose()? };

    let heads = job.batch.extents.iter().product();
    let at_once = (WIDENED / (keys * (depth + width)).max(1)).clamp(1, usize::max(heads, 1));
    let block = (SCORES / keys.max(1)).clamp(MIN_ROWS, MAX_ROWS);
    let widen = |head: usize| {
        let key = sources[1].vec(job.batch.offset(head, &k_steps) * depth * keys, depth * keys);
        (key, sources[2].vec(job.batch.offset(head, &v_steps) * keys * width, keys * width))
    };
    Ok(match precision {
        Precision::F32 => job.run::<f32>(shape, heads, at_once, block, widen),
        Precision::F16 => job.run::<f16>(shape, heads, at_once, block, widen),
    })
}

struct Job<'a> {
    rows: usize,
    depth: usize,
    keys: usize,
    width: usize,
    scale: f32,
    batch: Batch,
    q: &'a Source<'a>,
    q_steps: Vec<usize>,
    mask: Option<Mask<'a>>,
}

impl Job<'_> {
    fn run<T: Float>(
        &self,
        shape: Vec<usize>,
        heads: usize,
        at_once: usize,
        block: usize,
        widen: impl Fn(usize) -> (Vec<f32>, Vec<f32>) + Sync,
    ) -> Tensor {
        let head_size = self.rows * self.width;
        let mut out = vec![T::ZERO; heads * head_size];
        if !out.is_empty() {
            for (group, out) in out.chunks_mut(at_once * head_size).enumerate() {
                let first = group * at_once;
                let factors: Vec<_> = (0..out.len() / head_size).into_par_iter().map(|i| widen(first + i)).collect();
                let tiles: Vec<_> = (out.chunks_mut(head_size).enumerate())
                    .flat_map(|(i, head)| head.chunks_mut(block * self.width).enumerate().map(move |(j, tile)| (i, j * block, tile)))
                    .collect();
                tiles.into_par_iter().for_each(|(i, row, tile)| {
                    let (keys, values) = &factors[i];
                    SCRATCH.with_borrow_mut(|scratch| self.tile(first + i, row, keys, values, scratch, tile));
                });
            }
        }
        T::tensor(shape, out)
    }

    /// The rows from `first` on that fill `out`.
    fn tile<T: Float>(&self, head: usize, first: usize, keys: &[f32], values: &[f32], scratch: &mut [Vec<f32>; 3], out: &mut [T]) {
        let rows = out.len() / self.width;
        let [queries, scores, sums] = scratch;
        let queries = reserve(queries, rows * self.depth);
        self.q.read((self.batch.offset(head, &self.q_steps) * self.rows + first) * self.depth, queries);
        queries.iter_mut().for_each(|q| *q *= self.scale);
        let scores = reserve(scores, rows * self.keys);
        multiply(queries, keys, scores, [rows, self.depth, self.keys]);
        let sums = reserve(sums, rows * self.width);
        let mut totals = [0.0; MAX_ROWS];
        for (row, total) in totals[..rows].iter_mut().enumerate() {
            let scores = &mut scores[row * self.keys..][..self.keys];
            if let Some(mask) = &self.mask {
                mask.add(&self.batch, head, first + row, scores);
            }
            *total = exponentials(scores);
        }
        multiply(scores, values, sums, [rows, self.keys, self.width]);
        for (sums, total) in sums.chunks_mut(self.width).zip(totals) {
            sums.iter_mut().for_each(|s| *s /= total);
        }
        T::store(sums, out);
    }
}

impl Mask<'_> {
    fn add(&self, batch: &Batch, head: usize, row: usize, scores: &mut [f32]) {
        let base = batch.offset(head, &self.batch) + row * self.row;
        if self.key == 0 {
            let value = self.values.get(base);
            return scores.iter_mut().for_each(|s| *s += value);
        }
        let mut piece = [0.0; 256];
        for (i, scores) in scores.chunks_mut(piece.len()).enumerate() {
            let start = base + i * piece.len();
            let piece = &mut piece[..scores.len()];
            self.values.read(start, piece);
            scores.iter_mut().zip(piece).for_each(|(s, m)| *s += *m);
        }
    }
}

/// Replace each x by `e^(x - max)` and give their sum. A row of nothing but negative infinity becomes NaN.
///
/// Runs as the widest vector code the processor has; the operations and their order, and so the result, are the same on all.
pub(crate) fn exponentials(row: &mut [f32]) -> f32 {
    pulp::Arch::new().dispatch(Exponentials(row))
}

struct Exponentials<'a>(&'a mut [f32]);

impl pulp::WithSimd for Exponentials<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f32 {
        exponentials_in_lanes(self.0)
    }
}

#[inline(always)]
fn exponentials_in_lanes(row: &mut [f32]) -> f32 {
    const LANES: usize = 16;
    let mut top = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        for i in 0..LANES {
            top[i] = if chunk[i] > top[i] { chunk[i] } else { top[i] };
        }
    }
    let max = rest.iter().chain(&top).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    let (whole, rest) = row.as_chunks_mut::<LANES>();
    for chunk in whole {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] - max);
            sums[i] += chunk[i];
        }
    }
    for x in rest {
        *x = exp(*x - max);
        sums[0] += *x;
    }
    let mut half = LANES;
    while half > 1 {
        half /= 2;
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}
