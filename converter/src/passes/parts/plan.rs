//! Into which bands a plane is cut.

use super::super::tokens::token_planes;
use rockshard_cost::Rk3588;
use rockshard_graph::Graph;
use std::collections::BTreeMap;

/// Tokens that the NPU's layout takes together.
const TOKEN_UNIT: usize = 8;
/// Keys in common with every part come from this many places of each band.
pub(super) const RUNS: usize = 4;
/// Keys in a row at each place.
const RUN: usize = 16;
/// Share of an axis that keys in common may take: one in this many.
const COMMON_SHARE: usize = 4;

/// A plane in bands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Height and width.
    pub plane: [usize; 2],
    /// Rows of each band.
    pub rows: Vec<(usize, usize)>,
    /// Keys in a row that each band gives at each of [`RUNS`] places to the keys in common.
    pub run: usize,
    /// Most queries at once, whose own keys are in common as well.
    pub most_queries: usize,
}

impl Plan {
    /// Bounds of the bands on an axis that has the plane's rows one after the other.
    pub fn bounds(&self, extent: usize) -> Vec<(usize, usize)> {
        let unit = extent / self.plane[0];
        self.rows.iter().map(|&(from, to)| (from * unit, to * unit)).collect()
    }
}

/// Plans for the numbers of tokens that are more than an axis may have, and that come from planes.
pub(super) fn plans(graph: &Graph, npu: &Rk3588) -> BTreeMap<usize, Plan> {
    let long = token_planes(graph).into_iter().filter(|&(tokens, _)| tokens > npu.largest_extent);
    long.filter_map(|(tokens, plane)| Some((tokens, plan(plane, npu)?))).collect()
}

/// As few bands as leave room for keys in common. The largest extent itself is avoided: a board corrupts the end of an axis that is as
/// long (docs/rk3588.md 2.5). None where not even a row fits.
fn plan(plane: [usize; 2], npu: &Rk3588) -> Option<Plan> {
    let [height, width] = plane;
    let most = npu.largest_extent.saturating_sub(1);
    let unit = (1..=TOKEN_UNIT).find(|u| (u * width).is_multiple_of(TOKEN_UNIT)).unwrap_or(1);
    let fits = |unit: usize, count: usize| {
        let units = height / unit;
        let at = |i: usize| (units * i).div_ceil(count) * unit;
        let rows: Vec<_> = (0..count).map(|i| (at(i), at(i + 1))).collect();
        let longest = rows.iter().map(|(from, to)| to - from).max()? * width;
        let shortest = rows.iter().map(|(from, to)| to - from).min()? * width;
        let room = most.checked_sub(longest)?.min(most / COMMON_SHARE);
        let run = RUN.min(room / 2 / (RUNS * count)).min(shortest / RUNS);
        let most_queries = room.checked_sub(run * RUNS * count)?;
        (most_queries > 0).then_some(Plan { plane, rows, run, most_queries })
    };
    let units = [unit, 1].into_iter().filter(|unit| height.is_multiple_of(*unit));
    units.into_iter().find_map(|unit| (2..=height / unit).find_map(|count| fits(unit, count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_bands_as_fit() {
        let npu = Rk3588::default();
        let table = [
            ([96, 96], vec![(0, 48), (48, 96)]),
            ([64, 128], vec![(0, 32), (32, 64)]),
            ([128, 128], vec![(0, 43), (43, 86), (86, 128)]),
        ];
        for (plane, rows) in table {
            let plan = plan(plane, &npu).unwrap();
            assert_eq!(plan.rows, rows);
            assert_eq!((plan.run, plan.most_queries >= 512), (RUN, true));
        }
        assert_eq!(plan([2, 9000], &npu), None, "a row alone is too long");
    }
}
