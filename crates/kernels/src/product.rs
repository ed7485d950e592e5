//! Blocked matrix products: panels are made in f32 on demand, every output element sums the whole depth in f32 and is
//! rounded once.

use crate::Precision;
use crate::data::Float;
use half::f16;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;
use rockshard_tensor::Tensor;
use std::cell::RefCell;
use std::ops::Range;

/// f32 elements that the right panel of one thread takes at most (while it is wider than [`MIN_COLUMNS`]).
const PANEL: usize = 1 << 21;
/// Column counts of a task.
const MIN_COLUMNS: usize = 64;
const MAX_COLUMNS: usize = 1024;
/// f32 elements of a left panel, and the bounds of its rows: the right panel is packed once for each.
const LEFT: usize = 1 << 20;
const MIN_LEFT_ROWS: usize = 128;
const MAX_LEFT_ROWS: usize = 1024;
/// Tasks to cut a product into where its size allows: enough for every core of a desktop machine.
const TASKS: usize = 16;

/// A batch of products `[rows, depth] x [depth, columns]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

type Fill<'a> = &'a (dyn Fn(usize, Range<usize>, &mut [f32]) + Sync);
type Finish<'a> = &'a (dyn Fn(usize, usize, Range<usize>, &mut [f32]) + Sync);

/// Where the factors come from and what happens to the sums before they are rounded.
pub(crate) struct Factors<'a> {
    /// `left(batch, rows, panel)` fills `[rows, depth]`.
    pub(crate) left: Fill<'a>,
    /// `right(batch, columns, panel)` fills `[depth, columns]`.
    pub(crate) right: Fill<'a>,
    /// `finish(batch, row, columns, sums)` edits a row of sums.
    pub(crate) finish: Finish<'a>,
}

/// `c = a b` for row-major `a [m, k]` and `b [k, n]`.
pub(crate) fn multiply(a: &[f32], b: &[f32], c: &mut [f32], [m, k, n]: [usize; 3]) {
    let views = (
        ArrayView2::from_shape((m, k), &a[..m * k]),
        ArrayView2::from_shape((k, n), &b[..k * n]),
        ArrayViewMut2::from_shape((m, n), &mut c[..m * n]),
    );
    if let (Ok(a), Ok(b), Ok(mut c)) = views {
        general_mat_mul(1.0, &a, &b, 0.0, &mut c);
    }
}

/// Some rows and columns of one product, as pieces of the output's rows.
struct Task<'a, T> {
    first_row: usize,
    rows: Vec<&'a mut [T]>,
}

/// The tasks that share a right panel.
struct Band<'a, T> {
    batch: usize,
    columns: Range<usize>,
    tasks: Vec<Task<'a, T>>,
}

/// How many columns and rows a task takes; depends on the size alone.
fn cut(size: &Size) -> (usize, usize) {
    let tasks = |columns: usize, rows: usize| size.batch * size.columns.div_ceil(columns) * size.rows.div_ceil(rows);
    let mut columns = (PANEL / size.depth.max(1) / 8 * 8).clamp(MIN_COLUMNS, MAX_COLUMNS).min(size.columns);
    let mut rows = size.rows;
    while tasks(columns, rows) < TASKS && columns >= 256 {
        columns = columns.div_ceil(2).next_multiple_of(8);
    }
    while tasks(columns, rows) < TASKS && rows >= 128 {
        rows = rows.div_ceil(2).next_multiple_of(8);
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
    left: Vec<f32>,
    right: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first `count` elements of a buffer that grows when needed and never shrinks.
pub(crate) fn reserve(buffer: &mut Vec<f32>, count: usize) -> &mut [f32] {
    if buffer.len() < count {
        buffer.resize(count, 0.0);
    }
    &mut buffer[..count]
}

struct Job<'a> {
    depth: usize,
    factors: &'a Factors<'a>,
}

impl Job<'_> {
    fn task<T: Float>(
        &self,
        batch: usize,
        columns: &Range<usize>,
        mut task: Task<'_, T>,
        right: &[f32],
        left: &mut Vec<f32>,
        sums: &mut Vec<f32>,
    ) {
        let n = columns.len();
        let height = (LEFT / self.depth.max(1)).clamp(MIN_LEFT_ROWS, MAX_LEFT_ROWS);
        for (i, rows) in task.rows.chunks_mut(height).enumerate() {
            let start = task.first_row + i * height;
            let left = reserve(left, rows.len() * self.depth);
            (self.factors.left)(batch, start..start + rows.len(), left);
            let sums = reserve(sums, rows.len() * n);
            multiply(left, right, sums, [rows.len(), self.depth, n]);
            for (j, (row, sums)) in rows.iter_mut().zip(sums.chunks_mut(n)).enumerate() {
                (self.factors.finish)(batch, start + j, columns.clone(), sums);
                T::store(sums, row);
            }
        }
    }

    /// All tasks of a band on this thread.
    fn band<T: Float>(&self, band: Band<'_, T>) {
        SCRATCH.with_borrow_mut(|scratch| {
            let right = reserve(&mut scratch.right, self.depth * band.columns.len());
            (self.factors.right)(band.batch, band.columns.clone(), right);
            for task in band.tasks {
                self.task(band.batch, &band.columns, task, right, &mut scratch.left, &mut scratch.sums);
            }
        });
    }

    /// The right panel here, then the tasks of the band in parallel.
    fn band_parallel<T: Float>(&self, band: Band<'_, T>, panel: &mut Vec<f32>) {
        let right = reserve(panel, self.depth * band.columns.len());
        (self.factors.right)(band.batch, band.columns.clone(), right);
        let right = &*right;
        band.tasks.into_par_iter().for_each(|task| {
            SCRATCH.with_borrow_mut(|s| self.task(band.batch, &band.columns, task, right, &mut s.left, &mut s.sums));
        });
    }
}

fn all<T: Float>(shape: Vec<usize>, size: &Size, factors: &Factors<'_>) -> Tensor {
    let mut out = vec![T::ZERO; size.batch * size.rows * size.columns];
    if !out.is_empty() {
        let (columns, rows) = cut(size);
        let bands = bands(&mut out, size, columns, rows);
        let job = Job { depth: size.depth, factors };
        if size.rows * size.depth * size.columns * size.batch < 1 << 16 {
            bands.into_iter().for_each(|band| job.band(band));
        } else if rows < size.rows {
            let mut panel = Vec::new();
            bands.into_iter().for_each(|band| job.band_parallel(band, &mut panel));
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
