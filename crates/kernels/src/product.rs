//! Matrix products: the right factor is widened to f32 a band of columns at a time, the left one a block of rows and depth at a
//! time; every output element sums the whole depth in f32 and is rounded once.

use crate::Precision;
use crate::data::Float;
use crate::tile::{ByRow, COLUMNS, DEPTH, Line, Product, ROWS};
use half::f16;
use pulp::Arch;
use rayon::prelude::*;
use rockshard_tensor::Tensor;
use std::cell::RefCell;
use std::ops::Range;

/// f32 elements that the right panels of a band take at most (while it is wider than one panel).
const BAND: usize = 1 << 21;
const MAX_COLUMNS: usize = 1024;
/// Rows of a task at most: what a core's second cache holds of the left factor and the sums.
const MAX_ROWS: usize = 16 * ROWS;
/// Tasks to cut a product into where its size allows: enough for every core of a desktop machine.
const TASKS: usize = 16;
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
type Right<'a> = &'a (dyn Fn(usize, Range<usize>, &mut [Line]) + Sync);
type Finish<'a> = &'a (dyn Fn(usize, usize, Range<usize>, &mut [f32]) + Sync);

/// Where the factors come from and what happens to the sums before they are rounded.
pub(crate) struct Factors<'a> {
    /// `left(batch, row, depths, out)` fills `out` with part of a row.
    pub(crate) left: Left<'a>,
    /// `right(batch, columns, panel)` fills `[depth][COLUMNS]`; `columns` are [`COLUMNS`] or fewer, the rest of a line is free.
    pub(crate) right: Right<'a>,
    /// `finish(batch, row, columns, sums)` edits a row of sums.
    pub(crate) finish: Finish<'a>,
}

/// Some rows and columns of one product, as pieces of the output's rows.
struct Task<'a, T> {
    first_row: usize,
    rows: Vec<&'a mut [T]>,
}

/// The tasks that share right panels.
struct Band<'a, T> {
    batch: usize,
    columns: Range<usize>,
    tasks: Vec<Task<'a, T>>,
}

/// How many columns and rows a task takes; depends on the size alone.
fn cut(size: &Size) -> (usize, usize) {
    let even = |count: usize, most: usize, unit: usize| count.div_ceil(count.div_ceil(most).max(1)).next_multiple_of(unit).max(unit);
    let widest = (BAND / size.depth.max(1) / COLUMNS * COLUMNS).clamp(COLUMNS, MAX_COLUMNS);
    let mut columns = even(size.columns, widest, COLUMNS);
    let mut rows = even(size.rows, MAX_ROWS, ROWS);
    let tasks = |columns: usize, rows: usize| size.batch * size.columns.div_ceil(columns) * size.rows.div_ceil(rows);
    while tasks(columns, rows) < TASKS && rows > 2 * ROWS {
        rows = rows.div_ceil(2).next_multiple_of(ROWS);
    }
    while tasks(columns, rows) < TASKS && columns > COLUMNS {
        columns = columns.div_ceil(2).next_multiple_of(COLUMNS);
    }
    (columns, rows)
}

fn bands<'a, T>(out: &'a mut [T], size: &Size, columns: usize, rows: usize) -> Vec<Band<'a, T>> {
    let mut all: Vec<Band<'a, T>> = Vec::new();
    for (batch, matrix) in out.chunks_mut(size.rows * size.columns).enumerate() {
        let first = all.len();
        for start in (0..size.columns).step_by(columns) {
            let columns = start..(start + columns).min(size.columns);
            all.push(Band { batch, columns, tasks: Vec::with_capacity(size.rows.div_ceil(rows)) });
        }
        for (i, row) in matrix.chunks_mut(size.columns).enumerate() {
            for (band, piece) in all[first..].iter_mut().zip(row.chunks_mut(columns)) {
                if i % rows == 0 {
                    band.tasks.push(Task { first_row: i, rows: Vec::with_capacity(rows) });
                }
                if let Some(task) = band.tasks.last_mut() {
                    task.rows.push(piece);
                }
            }
        }
    }
    all
}

#[derive(Default)]
struct Scratch {
    left: Vec<[f32; DEPTH]>,
    sums: Vec<Line>,
    row: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static RIGHT: RefCell<Vec<Line>> = RefCell::default();
}

/// The first `count` elements of a buffer that grows when needed and never shrinks.
pub(crate) fn reserve<T: Copy>(buffer: &mut Vec<T>, count: usize, zero: T) -> &mut [T] {
    if buffer.len() < count {
        buffer.resize(count, zero);
    }
    &mut buffer[..count]
}

struct Job<'a> {
    arch: Arch,
    depth: usize,
    factors: &'a Factors<'a>,
}

impl Job<'_> {
    fn task<T: Float>(&self, batch: usize, columns: &Range<usize>, task: Task<'_, T>, right: &[Line]) {
        SCRATCH.with_borrow_mut(|Scratch { left, sums, row }| {
            let padded = task.rows.len().next_multiple_of(4);
            let left = reserve(left, task.rows.len().next_multiple_of(ROWS), [0.0; DEPTH]);
            let sums = reserve(sums, columns.len().div_ceil(COLUMNS) * padded, [0.0; COLUMNS]);
            if self.depth == 0 {
                sums.fill([0.0; COLUMNS]);
            }
            for start in (0..self.depth).step_by(DEPTH) {
                let depths = start..(start + DEPTH).min(self.depth);
                for (i, slot) in left[..task.rows.len()].iter_mut().enumerate() {
                    (self.factors.left)(batch, task.first_row + i, depths.clone(), &mut slot[..depths.len()]);
                }
                for (panel, sums) in right.chunks(self.depth).zip(sums.chunks_mut(padded)) {
                    Product { left: ByRow(left), right: &panel[depths.clone()], sums, accumulate: start > 0 }.run(self.arch);
                }
            }
            for (i, out) in task.rows.into_iter().enumerate() {
                let row = reserve(row, columns.len(), 0.0);
                for (piece, sums) in row.chunks_mut(COLUMNS).zip(sums.chunks(padded)) {
                    piece.copy_from_slice(&sums[i][..piece.len()]);
                }
                (self.factors.finish)(batch, task.first_row + i, columns.clone(), row);
                T::store(row, out);
            }
        });
    }

    /// Fill right panel number `i` of a band.
    fn panel(&self, batch: usize, columns: &Range<usize>, i: usize, panel: &mut [Line]) {
        let start = columns.start + i * COLUMNS;
        (self.factors.right)(batch, start..(start + COLUMNS).min(columns.end), panel);
    }

    /// All of a band on this thread.
    fn band<T: Float>(&self, band: Band<'_, T>) {
        RIGHT.with_borrow_mut(|right| {
            let right = self.reserve(right, &band.columns);
            right.chunks_mut(self.depth.max(1)).enumerate().for_each(|(i, panel)| self.panel(band.batch, &band.columns, i, panel));
            band.tasks.into_iter().for_each(|task| self.task(band.batch, &band.columns, task, right));
        });
    }

    /// The right panels, then the tasks, on all threads.
    fn band_parallel<T: Float>(&self, band: Band<'_, T>, right: &mut Vec<Line>) {
        let right = self.reserve(right, &band.columns);
        right.par_chunks_mut(self.depth.max(1)).enumerate().for_each(|(i, panel)| self.panel(band.batch, &band.columns, i, panel));
        let right = &*right;
        band.tasks.into_par_iter().for_each(|task| self.task(band.batch, &band.columns, task, right));
    }

    fn reserve<'b>(&self, right: &'b mut Vec<Line>, columns: &Range<usize>) -> &'b mut [Line] {
        reserve(right, columns.len().div_ceil(COLUMNS) * self.depth, [0.0; COLUMNS])
    }
}

fn all<T: Float>(shape: Vec<usize>, size: &Size, factors: &Factors<'_>) -> Tensor {
    let mut out = vec![T::ZERO; size.batch * size.rows * size.columns];
    if !out.is_empty() {
        let (columns, rows) = cut(size);
        let bands = bands(&mut out, size, columns, rows);
        let job = Job { arch: Arch::new(), depth: size.depth, factors };
        if size.rows * size.depth * size.columns * size.batch < SMALL {
            bands.into_iter().for_each(|band| job.band(band));
        } else if bands.len() < TASKS {
            let mut right = Vec::new();
            bands.into_iter().for_each(|band| job.band_parallel(band, &mut right));
        } else {
            bands.into_par_iter().for_each(|band| job.band(band));
        }
    }
    T::tensor(shape, out)
}

/// The products as a tensor of `shape`, which has `batch * rows * columns` elements.
pub(crate) fn product(precision: Precision, shape: Vec<usize>, size: &Size, factors: &Factors<'_>) -> Tensor {
    match precision {
        Precision::F32 => all::<f32>(shape, size, factors),
        Precision::F16 => all::<f16>(shape, size, factors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_the_output_once() {
        for (batch, rows, columns) in [(1, 1, 1), (2, 130, 1000), (3, 7, 65), (1, 640, 64), (1, 5, 5000)] {
            let size = Size { batch, rows, depth: 300, columns };
            let mut out = vec![0u32; batch * rows * columns];
            let (step, height) = cut(&size);
            for band in bands(&mut out, &size, step, height) {
                for task in band.tasks {
                    for (i, row) in task.rows.into_iter().enumerate() {
                        for (j, value) in row.iter_mut().enumerate() {
                            *value += 1 + ((band.batch * rows + task.first_row + i) * columns + band.columns.start + j) as u32;
                        }
                    }
                }
            }
            assert!(out.iter().enumerate().all(|(i, &v)| v == 1 + i as u32));
        }
    }
}
