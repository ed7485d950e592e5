//! 3x3 convolution by Winograd's minimal filtering F(2x2, 3x3): four outputs for sixteen products a channel instead of 36
//! (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.1).
//!
//! The transforms only add, subtract and halve in f32, so that the error stays that of f32 sums. But they mix neighbours: an
//! infinity would spread to outputs that do not touch it. A convolution with a result that is not finite is therefore
//! left to the direct form.
//!
//! Sixteen products run side by side, one for each place of a transformed 4x4 tile; a panel is [`COLUMNS`] tiles.

use crate::data::{Float, Source};
use crate::product::reserve;
use crate::tile::{ByRow, COLUMNS, DEPTH, Line, Product, ROWS};
use half::f16;
use pulp::Arch;
use rayon::prelude::*;
use rockshard_graph::Window;
use std::cell::RefCell;
use std::ops::Range;

/// Places of a transformed tile.
const PLACES: usize = 16;
/// Tiles below which transforming the weights costs more than it saves.
const LEAST_TILES: usize = 256;
/// Channels, in and out, below which the transforms cost more than they save.
const LEAST_CHANNELS: usize = 64;
/// Panels whose input is transformed at a time, and those that a task takes at a time.
const MAX_PANELS: usize = 32;
const TASK_PANELS: usize = 8;
/// Rows of a task at most.
const MAX_ROWS: usize = 8 * ROWS;
const HALF: usize = COLUMNS / 2;
/// Values of an input row that the tiles of a panel touch at most.
const REACH: usize = 2 * COLUMNS + 2;

/// Extents of a convolution that keeps height and width.
#[derive(Clone, Copy)]
pub(crate) struct Extents {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) rows: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// Whether this form exists for a convolution and is worth it.
pub(crate) fn suits(window: &Window, group: usize, extents: &Extents) -> bool {
    let Extents { channels, rows, height, width, .. } = *extents;
    group == 1
        && window.kernel == [3, 3]
        && window.strides == [1, 1]
        && window.dilations == [1, 1]
        && window.pads == [1; 4]
        && channels.min(rows) >= LEAST_CHANNELS
        && height.div_ceil(2) * width.div_ceil(2) >= LEAST_TILES
}

/// The convolution, rounded at the cuts of the channels and at the end, or nothing where a sum is not finite.
pub(crate) fn conv(
    x: &Source<'_>,
    weight: &Source<'_>,
    bias: &[f32],
    extents: &Extents,
    cuts: &[usize],
) -> Option<Vec<f16>> {
    let plane = extents.height * extents.width;
    let mut out = f16::buffer(extents.batch * extents.rows * plane);
    let starts = [0].iter().chain(cuts);
    let pieces = starts
        .zip(cuts.iter().chain([&extents.channels]))
        .map(|(&start, &end)| Piece { channels: start..end, bias });
    let mut buffers = BUFFERS.take();
    let finite =
        pieces.into_iter().all(|piece| piece.add(x, weight, extents, &mut buffers, &mut out));
    BUFFERS.set(buffers);
    finite.then_some(out)
}

/// Channels whose products are rounded before they are added to those of the channels before, and the bias of the first.
struct Piece<'a> {
    channels: Range<usize>,
    bias: &'a [f32],
}

impl Piece<'_> {
    /// Add to the output (the first piece replaces it), and say whether everything was finite.
    fn add(
        &self,
        x: &Source<'_>,
        weight: &Source<'_>,
        extents: &Extents,
        buffers: &mut Buffers,
        out: &mut [f16],
    ) -> bool {
        let arch = Arch::new();
        let Buffers { slots, input } = buffers;
        let weights = Weights::transform(weight, extents, &self.channels, arch, slots);
        let plane = extents.height * extents.width;
        let wanted = extents
            .rows
            .div_ceil(2 * rayon::current_num_threads())
            .next_multiple_of(ROWS)
            .min(MAX_ROWS);
        let (down, across) = (extents.height.div_ceil(2), extents.width.div_ceil(2));
        for (image, out) in out.chunks_mut(extents.rows * plane).enumerate() {
            for first in (0..down * across).step_by(MAX_PANELS * COLUMNS) {
                let tiles = Tiles {
                    across,
                    tiles: first..(first + MAX_PANELS * COLUMNS).min(down * across),
                };
                let input = tiles.transform(x, image, extents, &self.channels, arch, input);
                let finite = out.par_chunks_mut(wanted * plane).enumerate().map(|(i, out)| {
                    let task = Task {
                        first_row: i * wanted,
                        weights: &weights,
                        input,
                        tiles: &tiles,
                        piece: self,
                        extents,
                        arch,
                    };
                    SCRATCH.with_borrow_mut(|scratch| task.run(scratch, out))
                });
                if !finite.reduce(|| true, |a, b| a && b) {
                    return false;
                }
            }
        }
        true
    }
}

/// What a convolution transforms, kept from one to the next.
#[derive(Default)]
struct Buffers {
    slots: Vec<[f32; DEPTH]>,
    input: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = RefCell::default();
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Transformed weights: for each panel of [`ROWS`] rows, place and block of channels, the rows' slots.
struct Weights<'a> {
    slots: &'a [[f32; DEPTH]],
    blocks: usize,
}

impl<'a> Weights<'a> {
    fn transform(
        weight: &Source<'_>,
        extents: &Extents,
        channels: &Range<usize>,
        arch: Arch,
        buffer: &'a mut Vec<[f32; DEPTH]>,
    ) -> Self {
        let rows = extents.rows;
        let blocks = channels.len().div_ceil(DEPTH);
        let slots = reserve(buffer, rows.div_ceil(ROWS) * PLACES * blocks * ROWS, [0.0; DEPTH]);
        slots.par_chunks_mut(PLACES * blocks * ROWS).enumerate().for_each_init(
            Vec::new,
            |taps, (panel, slots)| {
                for r in 0..ROWS.min(rows - panel * ROWS) {
                    for block in 0..blocks {
                        let first = channels.start + block * DEPTH;
                        let taps = reserve(taps, 9 * DEPTH.min(channels.end - first), 0.0);
                        weight.read(((panel * ROWS + r) * extents.channels + first) * 9, taps);
                        let places = slots.iter_mut().skip(block * ROWS + r).step_by(blocks * ROWS);
                        arch.dispatch(
                            #[inline(always)]
                            || transform_weights(taps, places),
                        );
                    }
                }
            },
        );
        Weights { slots, blocks }
    }

    /// Slots of a panel of rows for one place and block of channels.
    fn panel(&self, panel: usize, place: usize, block: usize) -> &[[f32; DEPTH]] {
        &self.slots[((panel * PLACES + place) * self.blocks + block) * ROWS..][..ROWS]
    }
}

/// `G g G^T` of up to [`DEPTH`] filters of nine taps into a slot for each place.
#[inline(always)]
fn transform_weights<'a>(taps: &[f32], places: impl Iterator<Item = &'a mut [f32; DEPTH]>) {
    // Filters side by side: taps (down, across), then (transformed down, across).
    let mut filters = [[0.0f32; DEPTH]; 9];
    for (i, taps) in taps.as_chunks::<9>().0.iter().enumerate() {
        for (filter, &tap) in filters.iter_mut().zip(taps) {
            filter[i] = tap;
        }
    }
    let mut halfway = [[0.0f32; DEPTH]; 12];
    for across in 0..3 {
        let [a, b, c] = [&filters[across], &filters[3 + across], &filters[6 + across]];
        for i in 0..DEPTH {
            halfway[across][i] = a[i];
            halfway[3 + across][i] = 0.5 * (a[i] + b[i] + c[i]);
            halfway[6 + across][i] = 0.5 * (a[i] - b[i] + c[i]);
            halfway[9 + across][i] = c[i];
        }
    }
    for (place, slot) in places.enumerate() {
        let down = place / 4 * 3;
        let [a, b, c] = [&halfway[down], &halfway[down + 1], &halfway[down + 2]];
        for i in 0..DEPTH {
            slot[i] = match place % 4 {
                0 => a[i],
                1 => 0.5 * (a[i] + b[i] + c[i]),
                2 => 0.5 * (a[i] - b[i] + c[i]),
                _ => c[i],
            };
        }
    }
}

/// Some tiles of an image, numbered row by row.
struct Tiles {
    /// Tiles in a row of tiles.
    across: usize,
    tiles: Range<usize>,
}

/// Tiles of a panel that lie in one row of tiles: the first one's place in the panel, row and column.
struct Run {
    at: usize,
    len: usize,
    down: usize,
    across: usize,
}

impl Tiles {
    fn panels(&self) -> usize {
        self.tiles.len().div_ceil(COLUMNS)
    }

    fn runs(&self, panel: usize) -> impl Iterator<Item = Run> {
        let first = self.tiles.start + panel * COLUMNS;
        let end = (first + COLUMNS).min(self.tiles.end);
        let across = self.across;
        let mut at = first;
        std::iter::from_fn(move || {
            let run = Run {
                at: at - first,
                len: (across - at % across).min(end - at),
                down: at / across,
                across: at % across,
            };
            at += run.len;
            (run.len > 0).then_some(run)
        })
    }

    /// The transformed input: for each panel and place, a line a channel.
    fn transform<'b>(
        &self,
        x: &Source<'_>,
        image: usize,
        extents: &Extents,
        channels: &Range<usize>,
        arch: Arch,
        buffer: &'b mut Vec<Line>,
    ) -> &'b [Line] {
        let Extents { height, width, .. } = *extents;
        let lines = reserve(buffer, self.panels() * PLACES * channels.len(), [0.0; COLUMNS]);
        lines.par_chunks_mut(PLACES * channels.len()).enumerate().for_each(|(panel, lines)| {
            for run in self.runs(panel) {
                // The first column that the run touches is `left - 1`.
                let left = 2 * run.across;
                let (skipped, from) = (usize::from(left == 0), left.saturating_sub(1));
                let count = (2 * run.len + 2 - skipped).min(width - from);
                let mut patch = [[0.0f32; REACH]; 4];
                for channel in channels.clone() {
                    for (i, row) in patch.iter_mut().enumerate() {
                        if let Some(y) = (2 * run.down + i).checked_sub(1).filter(|&y| y < height) {
                            x.read(
                                ((image * extents.channels + channel) * height + y) * width + from,
                                &mut row[skipped..skipped + count],
                            );
                        }
                    }
                    let places =
                        lines[channel - channels.start..].iter_mut().step_by(channels.len());
                    arch.dispatch(
                        #[inline(always)]
                        || transform_input(&patch, run.at..run.at + run.len, places),
                    );
                }
            }
        });
        lines
    }
}

/// `B^T d B` of the tiles that lie in four input rows, into places `at` of a line for each place of the tile.
#[inline(always)]
fn transform_input<'a>(
    patch: &[[f32; REACH]; 4],
    at: Range<usize>,
    places: impl Iterator<Item = &'a mut Line>,
) {
    let mut halfway = [[[0.0f32; COLUMNS]; 4]; 4];
    for (row, halfway) in patch.iter().zip(&mut halfway) {
        let [first, second, third, fourth] = halfway;
        for i in 0..COLUMNS {
            let [a, b, c, d] = [row[2 * i], row[2 * i + 1], row[2 * i + 2], row[2 * i + 3]];
            first[i] = a - c;
            second[i] = b + c;
            third[i] = c - b;
            fourth[i] = b - d;
        }
    }
    for (place, line) in places.enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row: usize| &halfway[row][place % 4]);
        let mut values = [0.0; COLUMNS];
        for i in 0..COLUMNS {
            values[i] = match place / 4 {
                0 => a[i] - c[i],
                1 => b[i] + c[i],
                2 => c[i] - b[i],
                _ => b[i] - d[i],
            };
        }
        // Known lengths are a few vector moves instead of a call.
        match at.len() {
            COLUMNS => *line = values,
            HALF => line[at.start..at.start + HALF].copy_from_slice(&values[..HALF]),
            length => line[at.clone()].copy_from_slice(&values[..length]),
        }
    }
}

/// Some output rows of all the tiles.
struct Task<'a> {
    first_row: usize,
    weights: &'a Weights<'a>,
    input: &'a [Line],
    tiles: &'a Tiles,
    piece: &'a Piece<'a>,
    extents: &'a Extents,
    arch: Arch,
}

impl Task<'_> {
    /// Fill the tiles' part of `out`, which has a plane for each row, and say whether all of it was finite before rounding.
    fn run(&self, scratch: &mut Vec<Line>, out: &mut [f16]) -> bool {
        let Extents { height, width, .. } = *self.extents;
        let (channels, initial) = (self.piece.channels.len(), self.piece.channels.start == 0);
        let rows = out.len() / (height * width);
        let padded = rows.next_multiple_of(4);
        let mut finite = true;
        for first in (0..self.tiles.panels()).step_by(TASK_PANELS) {
            let panels = first..(first + TASK_PANELS).min(self.tiles.panels());
            // Sums lie place by place, panel by panel, a line a row.
            let sums = reserve(scratch, PLACES * panels.len() * padded, [0.0; COLUMNS]);
            for (i, sums) in sums.chunks_mut(padded).enumerate() {
                let (place, panel) = (i / panels.len(), panels.start + i % panels.len());
                let input = &self.input[(panel * PLACES + place) * channels..][..channels];
                for (block, right) in input.chunks(DEPTH).enumerate() {
                    for (j, sums) in sums.chunks_mut(ROWS).enumerate() {
                        let left =
                            ByRow(self.weights.panel(self.first_row / ROWS + j, place, block));
                        Product { left, right, sums, accumulate: block > 0 }.run(self.arch);
                    }
                }
            }
            for (row, plane) in out.chunks_mut(height * width).enumerate() {
                let bias = if initial { self.piece.bias[self.first_row + row] } else { 0.0 };
                for panel in panels.clone() {
                    let places: [&Line; PLACES] = std::array::from_fn(|place| {
                        &sums[(place * panels.len() + panel - panels.start) * padded + row]
                    });
                    let mut pixels = self.arch.dispatch(
                        #[inline(always)]
                        || transform_output(places, bias),
                    );
                    finite &=
                        pixels.iter().flatten().fold(true, |finite, v| finite & v.is_finite());
                    for run in self.tiles.runs(panel) {
                        let column = 2 * run.across;
                        let count = (2 * run.len).min(width - column);
                        for (y, pixels) in (2 * run.down..height).zip(&mut pixels) {
                            let (pixels, out) = (
                                &mut pixels[2 * run.at..2 * run.at + count],
                                &mut plane[y * width + column..][..count],
                            );
                            if initial { f16::store(pixels, out) } else { f16::add(pixels, out) }
                        }
                    }
                }
            }
        }
        finite
    }
}

/// `A^T m A + bias` of a panel of tiles: the upper and the lower pixels, two a tile.
#[inline(always)]
fn transform_output(places: [&Line; PLACES], bias: f32) -> [[f32; 2 * COLUMNS]; 2] {
    let mut out = [[0.0; 2 * COLUMNS]; 2];
    for i in 0..COLUMNS {
        let m = places.map(|line| line[i]);
        let upper: [f32; 4] = std::array::from_fn(|v| m[v] + m[4 + v] + m[8 + v]);
        let lower: [f32; 4] = std::array::from_fn(|v| m[4 + v] - m[8 + v] - m[12 + v]);
        for (out, s) in out.iter_mut().zip([upper, lower]) {
            out[2 * i] = s[0] + s[1] + s[2] + bias;
            out[2 * i + 1] = s[1] - s[2] - s[3] + bias;
        }
    }
    out
}
