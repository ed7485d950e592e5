//! The inner loop of every matrix product: [`ROWS`] x [`COLUMNS`] sums held in vector registers while the depth goes by.
//!
//! The right factor comes in panels of [`COLUMNS`] columns, `[depth][COLUMNS]`. The left factor comes either a row at a time
//! ([`ByRow`], so that weights are only widened) or with [`ROWS`] rows side by side ([`ByDepth`], as a transposed matrix
//! already lies). Every element is a chain of fused multiply-adds over the depth in order, so it has the same bits whatever
//! the vector width of the processor; deeper products are summed in blocks of [`DEPTH`].

use pulp::{Arch, Simd, WithSimd};

/// Rows of a left panel.
pub(crate) const ROWS: usize = 12;
/// Columns of a right panel.
pub(crate) const COLUMNS: usize = 32;
/// Depth that is summed before the sums are added to those of the blocks before.
pub(crate) const DEPTH: usize = 256;

/// One line of a right panel, or of the sums.
pub(crate) type Line = [f32; COLUMNS];

/// Left rows as they lie in a row-major matrix, each in a slot of [`DEPTH`].
#[derive(Clone, Copy)]
pub(crate) struct ByRow<'a>(pub(crate) &'a [[f32; DEPTH]]);

/// Left rows side by side: `panels[p][k][r]` is row `p * ROWS + r` at depth `k`; panels are `stride` deep and begin at `first`.
#[derive(Clone, Copy)]
pub(crate) struct ByDepth<'a> {
    pub(crate) lines: &'a [[f32; ROWS]],
    pub(crate) stride: usize,
    pub(crate) first: usize,
}

/// Where a panel of the left factor comes from.
pub(crate) trait Left: Copy {
    /// Some rows of the left factor.
    type Panel: Copy;
    /// Rows from `row` (a multiple of [`ROWS`]) on, `depth` deep.
    fn panel(self, row: usize, depth: usize) -> Self::Panel;
    /// Row `r` of `panel` at depth `k`.
    fn at(panel: Self::Panel, r: usize, k: usize) -> f32;
}

impl<'a> Left for ByRow<'a> {
    type Panel = &'a [[f32; DEPTH]; ROWS];
    #[inline(always)]
    fn panel(self, row: usize, _: usize) -> Self::Panel {
        &self.0[row..].as_chunks().0[0]
    }
    #[inline(always)]
    fn at(panel: Self::Panel, r: usize, k: usize) -> f32 {
        panel[r][k]
    }
}

impl<'a> Left for ByDepth<'a> {
    type Panel = &'a [[f32; ROWS]];
    #[inline(always)]
    fn panel(self, row: usize, depth: usize) -> Self::Panel {
        &self.lines[row / ROWS * self.stride + self.first..][..depth]
    }
    #[inline(always)]
    fn at(panel: Self::Panel, r: usize, k: usize) -> f32 {
        panel[k][r]
    }
}

/// Sums of `rows` rows (a multiple of 4) with one right panel.
pub(crate) struct Product<'a, L> {
    pub(crate) left: L,
    /// At most [`DEPTH`] lines.
    pub(crate) right: &'a [Line],
    /// One line a row.
    pub(crate) sums: &'a mut [Line],
    /// Add to the sums instead of replacing them.
    pub(crate) accumulate: bool,
}

impl<L: Left> Product<'_, L> {
    /// Compute, with the widest vectors of this processor.
    pub(crate) fn run(self, arch: Arch) {
        debug_assert!(self.right.len() <= DEPTH && self.sums.len().is_multiple_of(4));
        arch.dispatch(self);
    }
}

impl<L: Left> WithSimd for Product<'_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (i, sums) in self.sums.chunks_mut(ROWS).enumerate() {
            let panel = self.left.panel(i * ROWS, self.right.len());
            // Registers: 32 where vectors are 16 or 4 wide, 16 where they are 8 wide.
            match (sums.len(), S::F32_LANES == 8) {
                (12, false) => tile::<S, L, 12, 0>(simd, panel, self.right, sums, self.accumulate),
                (8, false) => tile::<S, L, 8, 0>(simd, panel, self.right, sums, self.accumulate),
                (12, true) => {
                    let (upper, lower) = sums.split_at_mut(6);
                    tile::<S, L, 6, 0>(simd, panel, self.right, upper, self.accumulate);
                    tile::<S, L, 6, 6>(simd, panel, self.right, lower, self.accumulate);
                }
                (8, true) => {
                    let (upper, lower) = sums.split_at_mut(4);
                    tile::<S, L, 4, 0>(simd, panel, self.right, upper, self.accumulate);
                    tile::<S, L, 4, 4>(simd, panel, self.right, lower, self.accumulate);
                }
                _ => tile::<S, L, 4, 0>(simd, panel, self.right, sums, self.accumulate),
            }
        }
    }
}

/// `R` rows of a left panel from row `FROM` on, two vectors of columns at a time.
#[inline(always)]
fn tile<S: Simd, L: Left, const R: usize, const FROM: usize>(
    simd: S,
    left: L::Panel,
    right: &[Line],
    sums: &mut [Line],
    accumulate: bool,
) {
    for pair in 0..COLUMNS / (2 * S::F32_LANES) {
        let mut tile = [[simd.splat_f32s(0.0); 2]; R];
        for (k, line) in (0..DEPTH).zip(right) {
            let line = S::as_simd_f32s(line).0;
            let (first, second) = (line[2 * pair], line[2 * pair + 1]);
            for (r, tile) in tile.iter_mut().enumerate() {
                let value = simd.splat_f32s(L::at(left, FROM + r, k));
                tile[0] = simd.mul_add_f32s(value, first, tile[0]);
                tile[1] = simd.mul_add_f32s(value, second, tile[1]);
            }
        }
        for (line, tile) in sums.iter_mut().zip(&tile) {
            let line = S::as_mut_simd_f32s(line).0;
            for (out, &sum) in line[2 * pair..2 * pair + 2].iter_mut().zip(tile) {
                *out = if accumulate { simd.add_f32s(*out, sum) } else { sum };
            }
        }
    }
}
