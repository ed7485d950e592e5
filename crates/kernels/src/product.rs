//! Matrix products, cut into tasks that a core works off out of its second cache: a block of the right factor is widened to f32
//! and met by all the task's rows before the next block of depth is. Every output element sums the depth in blocks of
//! [`DEPTH`], in f32, and is rounded at each cut and at the end; how the work is cut makes no difference to it.

use crate::Precision;
use crate::data::Float;
use crate::tile::{ByRow, COLUMNS, DEPTH, Line, Product, ROWS};
use half::f16;
use pulp::Arch;
use rayon::prelude::*;
use rockshard_tensor::Tensor;
use std::cell::RefCell;
use std::ops::Range;

/// Right panels of a task at most, and its sums: 640 KiB.
pub(crate) const MAX_PANELS: usize = 16;
const MAX_SUMS: usize = 640 << 8;
/// Below these a task would spend its time on widening.
const MIN_COLUMNS: usize = 4 * COLUMNS;
const MIN_ROWS: usize = 8 * ROWS;
/// Left rows that are widened at a time.
const LEFT_ROWS: usize = 8 * ROWS;
/// Multiplications below which threads cost more than they give.
const SMALL: usize = 1 << 16;

/// A batch of products `[rows, depth] x [depth, columns]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

type Left<'a> = &'a (dyn Fn(usize, usize, Range<usize>, &mut [f32]) + Sync);
type Right<'a> = &'a (dyn Fn(usize, Range<usize>, Range<usize>, &mut [Line]) + Sync);
type Finish<'a> = &'a (dyn Fn(usize, usize, Range<usize>, &mut [f32]) + Sync);

/// Where the factors come from and what happens to the sums before they are rounded.
pub(crate) struct Factors<'a> {
    /// Depths where the sum so far is rounded, to be added, rounded again, to the sum of those before.
    pub(crate) cuts: &'a [usize],
    /// `left(batch, row, depths, out)` fills `out` with part of a row.
    pub(crate) left: Left<'a>,
    /// `right(batch, depths, columns, panels)` fills the columns' panels, each with a line for each depth; the end of the last
    /// panel's lines is free.
    pub(crate) right: Right<'a>,
    /// `finish(batch, row, columns, sums)` edits a row of sums, those before the first cut.
    pub(crate) finish: Finish<'a>,
}

/// Some rows and columns of one product, as pieces of the output's rows.
struct Task<'a, T> {
    batch: usize,
    first_row: usize,
    columns: Range<usize>,
    rows: Vec<&'a mut [T]>,
}

/// How many columns and rows a task takes, so that each thread has two tasks or more, and all the same number, where the size
/// allows.
fn cut(size: &Size, threads: usize) -> (usize, usize) {
    let pieces = |count: usize, most: usize, least: usize, wanted: usize| {
        let wanted = count.div_ceil(most).max(wanted).next_multiple_of(threads).min(count / least);
        wanted.max(count.div_ceil(most)).max(1)
    };
    let size_of = |count: usize, pieces: usize, unit: usize| {
        count.div_ceil(pieces).next_multiple_of(unit).max(unit)
    };
    let across =
        pieces(size.columns, MAX_PANELS * COLUMNS, MIN_COLUMNS, (2 * threads).div_ceil(size.batch));
    let columns = size_of(size.columns, across, COLUMNS);
    let down = pieces(
        size.rows,
        MAX_SUMS / columns,
        MIN_ROWS,
        (2 * threads).div_ceil(size.batch * across),
    );
    // More rows are cut only when the columns do not keep the threads busy.
    let down = if size.batch * across < 2 * threads {
        down
    } else {
        size.rows.div_ceil(MAX_SUMS / columns)
    };
    (columns, size_of(size.rows, down, ROWS))
}

fn tasks<'a, T>(out: &'a mut [T], size: &Size, columns: usize, rows: usize) -> Vec<Task<'a, T>> {
    let mut all: Vec<Task<'a, T>> = Vec::new();
    for (batch, matrix) in out.chunks_mut(size.rows * size.columns).enumerate() {
        for (i, block) in matrix.chunks_mut(rows * size.columns).enumerate() {
            let first = all.len();
            for start in (0..size.columns).step_by(columns) {
                let columns = start..(start + columns).min(size.columns);
                all.push(Task {
                    batch,
                    first_row: i * rows,
                    columns,
                    rows: Vec::with_capacity(rows),
                });
            }
            for row in block.chunks_mut(size.columns) {
                all[first..]
                    .iter_mut()
                    .zip(row.chunks_mut(columns))
                    .for_each(|(task, piece)| task.rows.push(piece));
            }
        }
    }
    all
}

#[derive(Default)]
struct Scratch {
    left: Vec<[f32; DEPTH]>,
    right: Vec<Line>,
    sums: Vec<Line>,
    row: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first `count` elements of a buffer that grows when needed and never shrinks.
pub(crate) fn reserve<T: Copy>(buffer: &mut Vec<T>, count: usize, zero: T) -> &mut [T] {
    if buffer.len() < count {
        buffer.resize(count, zero);
    }
    &mut buffer[..count]
}

impl<T: Float> Task<'_, T> {
    fn run(self, depth: usize, factors: &Factors<'_>, arch: Arch, scratch: &mut Scratch) {
        let Task { batch, first_row, columns, mut rows } = self;
        // Sums lie panel by panel, a line a row.
        let padded = rows.len().next_multiple_of(4);
        let sums =
            reserve(&mut scratch.sums, columns.len().div_ceil(COLUMNS) * padded, [0.0; COLUMNS]);
        let left = reserve(&mut scratch.left, LEFT_ROWS, [0.0; DEPTH]);
        let pieces = [0].iter().chain(factors.cuts).zip(factors.cuts.iter().chain([&depth]));
        for (piece, (&begin, &end)) in pieces.enumerate() {
            if begin == end {
                sums.fill([0.0; COLUMNS]);
            }
            for start in (begin..end).step_by(DEPTH) {
                let depths = start..(start + DEPTH).min(end);
                let right = reserve(
                    &mut scratch.right,
                    columns.len().div_ceil(COLUMNS) * depths.len(),
                    [0.0; COLUMNS],
                );
                (factors.right)(batch, depths.clone(), columns.clone(), right);
                for first in (0..rows.len()).step_by(LEFT_ROWS) {
                    let some = first..(first + LEFT_ROWS).min(padded);
                    for (row, slot) in (first..some.end.min(rows.len())).zip(left.iter_mut()) {
                        (factors.left)(
                            batch,
                            first_row + row,
                            depths.clone(),
                            &mut slot[..depths.len()],
                        );
                    }
                    for (right, sums) in right.chunks(depths.len()).zip(sums.chunks_mut(padded)) {
                        Product {
                            left: ByRow(left),
                            right,
                            sums: &mut sums[some.clone()],
                            accumulate: start > begin,
                        }
                        .run(arch);
                    }
                }
            }
            for (i, out) in rows.iter_mut().enumerate() {
                scratch.row.clear();
                sums.chunks(padded).for_each(|panel| scratch.row.extend_from_slice(&panel[i]));
                let row = &mut scratch.row[..columns.len()];
                if piece == 0 {
                    (factors.finish)(batch, first_row + i, columns.clone(), row);
                    T::store(row, out);
                } else {
                    T::add(row, out);
                }
            }
        }
    }
}

fn all<T: Float>(shape: Vec<usize>, size: &Size, factors: &Factors<'_>) -> Tensor {
    let mut out = T::buffer(size.batch * size.rows * size.columns);
    if !out.is_empty() {
        let (columns, rows) = cut(size, rayon::current_num_threads());
        let tasks = tasks(&mut out, size, columns, rows);
        let arch = Arch::new();
        let run = |task: Task<'_, T>| {
            SCRATCH.with_borrow_mut(|scratch| task.run(size.depth, factors, arch, scratch))
        };
        if size.batch * size.rows * size.depth * size.columns < SMALL {
            tasks.into_iter().for_each(run);
        } else {
            tasks.into_par_iter().for_each(run);
        }
    }
    T::tensor(shape, out)
}

/// The products as a tensor of `shape`, which has `batch * rows * columns` elements.
pub(crate) fn product(
    precision: Precision,
    shape: Vec<usize>,
    size: &Size,
    factors: &Factors<'_>,
) -> Tensor {
    match precision {
        Precision::F32 => all::<f32>(shape, size, factors),
        Precision::F16 => all::<f16>(shape, size, factors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_the_output_once() {
        for (batch, rows, columns) in
            [(1, 1, 1), (2, 130, 1000), (3, 7, 65), (1, 640, 64), (1, 5, 5000), (1, 3000, 40)]
        {
            for threads in [1, 2, 64] {
                let size = Size { batch, rows, depth: 300, columns };
                let mut out = vec![0u32; batch * rows * columns];
                let (step, height) = cut(&size, threads);
                for task in tasks(&mut out, &size, step, height) {
                    for (i, row) in task.rows.into_iter().enumerate() {
                        for (j, value) in row.iter_mut().enumerate() {
                            *value += 1
                                + ((task.batch * rows + task.first_row + i) * columns
                                    + task.columns.start
                                    + j) as u32;
                        }
                    }
                }
                assert!(out.iter().enumerate().all(|(i, &v)| v == 1 + i as u32));
            }
        }
    }
}
