//! Fused attention over panels of queries: the scores of one panel exist in f32, never those of all queries.
//!
//! Scores lie transposed, a key a line with its queries side by side. So they are the right factor of both products without
//! being moved, the softmax runs down whole vectors, and keys and values are left factors as they lie in memory.

use crate::data::{Float, Source};
use crate::exp::exp_below_zero;
use crate::product::reserve;
use crate::tile::{ByDepth, COLUMNS, DEPTH, Line, Product, ROWS};
use crate::walk::{broadcast_strides, strides};
use crate::{KernelError, Precision};
use half::f16;
use rayon::prelude::*;
use rockshard_graph::broadcast;
use rockshard_tensor::Tensor;
use std::cell::RefCell;

const OP: &str = "Attention";
/// f32 elements of widened keys and values that exist at a time (more where one head needs more).
const WIDENED: usize = 1 << 23;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    queries: Vec<Line>,
    scores: Vec<Line>,
    sums: Vec<Line>,
    row: Vec<f32>,
}

/// A matrix whose rows lie side by side, see [`ByDepth`].
type SideBySide = Vec<[f32; ROWS]>;

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
pub(crate) fn attention(
    inputs: &[&Tensor],
    scale: f32,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]].map(Tensor::shape);
    if q.len() < 2 || k.len() < 2 || v.len() < 2 {
        return Err(KernelError::shape(
            OP,
            format!("shapes {q:?}, {k:?} and {v:?} need two axes or more"),
        ));
    }
    let split = |s: &[usize]| (s[..s.len() - 2].to_vec(), s[s.len() - 2], s[s.len() - 1]);
    let ((q_batch, rows, depth), (k_batch, _, keys), (v_batch, _, width)) =
        (split(q), split(k), split(v));
    let extents = shape[..shape.len() - 2].to_vec();
    let scores = broadcast(&q_batch, &k_batch).unwrap_or_default();
    let batch = Batch { steps: strides(&extents), extents };
    let [q_steps, k_steps, v_steps] =
        [&q_batch, &k_batch, &v_batch].map(|s| broadcast_strides(s, &batch.extents));
    let sources =
        (0..3).map(|i| Source::new(OP, i, inputs[i], precision)).collect::<Result<Vec<_>, _>>()?;
    let mask = inputs.get(3).map(|mask| {
        let full = [&scores[..], &[rows, keys]].concat();
        let mut steps = broadcast_strides(mask.shape(), &full);
        let key = steps.pop().unwrap_or(0);
        let row = steps.pop().unwrap_or(0);
        // Batch axes of the output in front of those of the scores repeat the mask.
        let lead = batch.extents.len() - scores.len();
        let repeated = (0..batch.extents.len()).map(|i| {
            if i < lead || scores[i - lead] != batch.extents[i] { 0 } else { steps[i - lead] }
        });
        Ok::<_, KernelError>(Mask {
            values: Source::new(OP, 3, mask, precision)?,
            batch: repeated.collect(),
            row,
            key,
        })
    });
    let arch = pulp::Arch::new();
    let job = Job {
        arch,
        rows,
        depth,
        keys,
        width,
        scale,
        batch,
        q: &sources[0],
        q_steps,
        mask: mask.transpose()?,
    };

    let heads = job.batch.extents.iter().product();
    let at_once = (WIDENED / (keys * (depth + width)).max(1)).clamp(1, usize::max(heads, 1));
    let widen = |head: usize| {
        let key =
            side_by_side(&sources[1], job.batch.offset(head, &k_steps) * depth * keys, depth, keys);
        (
            key,
            side_by_side(&sources[2], job.batch.offset(head, &v_steps) * keys * width, keys, width),
        )
    };
    Ok(match precision {
        Precision::F32 => job.run::<f32>(shape, heads, at_once, widen),
        Precision::F16 => job.run::<f16>(shape, heads, at_once, widen),
    })
}

/// Panels of the left factor whose transpose `[depth, rows]` is row-major from position `start` on.
fn side_by_side(source: &Source<'_>, start: usize, depth: usize, rows: usize) -> SideBySide {
    let mut lines = vec![[0.0; ROWS]; rows.div_ceil(ROWS) * depth];
    let mut whole = vec![0.0; rows];
    for k in 0..depth {
        source.read(start + k * rows, &mut whole);
        let (pieces, rest) = whole.as_chunks::<ROWS>();
        let mut places = lines[k..].iter_mut().step_by(depth);
        places.by_ref().zip(pieces).for_each(|(line, piece)| *line = *piece);
        if let (Some(line), false) = (places.next(), rest.is_empty()) {
            line[..rest.len()].copy_from_slice(rest);
        }
    }
    lines
}

struct Job<'a> {
    arch: pulp::Arch,
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
        widen: impl Fn(usize) -> (SideBySide, SideBySide) + Sync,
    ) -> Tensor {
        let head_size = self.rows * self.width;
        let mut out = T::buffer(heads * head_size);
        if !out.is_empty() {
            for (group, out) in out.chunks_mut(at_once * head_size).enumerate() {
                let first = group * at_once;
                let factors: Vec<_> =
                    (0..out.len() / head_size).into_par_iter().map(|i| widen(first + i)).collect();
                let panels: Vec<_> = (out.chunks_mut(head_size).enumerate())
                    .flat_map(|(i, head)| {
                        head.chunks_mut(COLUMNS * self.width)
                            .enumerate()
                            .map(move |(j, panel)| (i, j * COLUMNS, panel))
                    })
                    .collect();
                panels.into_par_iter().for_each(|(i, row, panel)| {
                    let (keys, values) = &factors[i];
                    SCRATCH.with_borrow_mut(|scratch| {
                        self.panel(first + i, row, keys, values, scratch, panel)
                    });
                });
            }
        }
        T::tensor(shape, out)
    }

    /// The rows from `first` on that fill `out`.
    fn panel<T: Float>(
        &self,
        head: usize,
        first: usize,
        keys: &SideBySide,
        values: &SideBySide,
        scratch: &mut Scratch,
        out: &mut [T],
    ) {
        let rows = out.len() / self.width;
        let queries = reserve(&mut scratch.queries, self.depth, [0.0; COLUMNS]);
        let row = reserve(&mut scratch.row, self.depth.max(self.width), 0.0);
        let start = self.batch.offset(head, &self.q_steps) * self.rows + first;
        for i in 0..rows {
            self.q.read((start + i) * self.depth, &mut row[..self.depth]);
            queries.iter_mut().zip(&*row).for_each(|(line, q)| line[i] = q * self.scale);
        }
        let scores = reserve(&mut scratch.scores, self.keys.next_multiple_of(4), [0.0; COLUMNS]);
        self.product(keys, queries, scores);
        let scores = &mut scores[..self.keys];
        if let Some(mask) = &self.mask {
            (0..rows).for_each(|i| mask.add(&self.batch, head, first + i, i, scores));
        }
        let totals = self.arch.dispatch(Exponentials(&mut *scores));
        let sums = reserve(&mut scratch.sums, self.width.next_multiple_of(4), [0.0; COLUMNS]);
        self.product(values, scores, sums);
        for (i, out) in out.chunks_mut(self.width).enumerate() {
            let row = &mut row[..self.width];
            row.iter_mut().zip(&*sums).for_each(|(value, line)| *value = line[i] / totals[i]);
            T::store(row, out);
        }
    }

    /// All of a left factor times one panel.
    fn product(&self, left: &SideBySide, right: &[Line], sums: &mut [Line]) {
        if right.is_empty() {
            sums.fill([0.0; COLUMNS]);
        }
        for (i, block) in right.chunks(DEPTH).enumerate() {
            let left = ByDepth { lines: left, stride: right.len(), first: i * DEPTH };
            Product { left, right: block, sums, accumulate: i > 0 }.run(self.arch);
        }
    }
}

impl Mask<'_> {
    /// Add the mask of query `row`, number `i` of its panel.
    fn add(&self, batch: &Batch, head: usize, row: usize, i: usize, scores: &mut [Line]) {
        let base = batch.offset(head, &self.batch) + row * self.row;
        if self.key == 0 {
            let value = self.values.get(base);
            return scores.iter_mut().for_each(|line| line[i] += value);
        }
        let mut piece = [0.0; 256];
        for (block, scores) in scores.chunks_mut(piece.len()).enumerate() {
            let start = base + block * piece.len();
            let piece = &mut piece[..scores.len()];
            self.values.read(start, piece);
            scores.iter_mut().zip(piece).for_each(|(line, m)| line[i] += *m);
        }
    }
}

/// Replaces each x of a column by `e^(x - max)` and gives the sums of the columns.
struct Exponentials<'a>(&'a mut [Line]);

impl pulp::WithSimd for Exponentials<'_> {
    type Output = Line;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Line {
        let mut top = [f32::NEG_INFINITY; COLUMNS];
        for line in &*self.0 {
            for i in 0..COLUMNS {
                top[i] = if line[i] > top[i] { line[i] } else { top[i] };
            }
        }
        let mut sums = [0.0; COLUMNS];
        for line in self.0 {
            for i in 0..COLUMNS {
                line[i] = exp_below_zero(line[i] - top[i]);
                sums[i] += line[i];
            }
        }
        sums
    }
}

/// Replace each x by `e^(x - max)` and give their sum. A row of nothing but negative infinity becomes NaN.
///
/// Runs as the widest vector code the processor has; the operations and their order, and so the result, are the same on all.
pub(crate) fn exponentials(row: &mut [f32]) -> f32 {
    pulp::Arch::new().dispatch(RowExponentials(row))
}

struct RowExponentials<'a>(&'a mut [f32]);

impl pulp::WithSimd for RowExponentials<'_> {
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
            chunk[i] = exp_below_zero(chunk[i] - max);
            sums[i] += chunk[i];
        }
    }
    for x in rest {
        *x = exp_below_zero(*x - max);
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
