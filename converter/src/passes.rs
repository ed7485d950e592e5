//! The rewrites, one file a pass, and the two lists in which they run. Each is exact in real arithmetic.
//!
//! A pass takes a graph and its context, and gives a graph and a log: the edits that it made, and what it declined, with the reason, which
//! reaches the manifest. `PART_PASSES` see a part's whole graph before it is cut; `rewrite_shard` has those that a shard goes through
//! after it.

mod heads;
mod masks;
mod parts;
mod plane;
mod sandwich;
mod scale;
mod shuffle;
mod split;
mod tile;
mod tokens;

pub(crate) use heads::GROUP_MARK;
pub use heads::split_heads;
pub use masks::legal_masks;
pub use parts::in_parts;
pub(crate) use parts::{BAND_MARK, ROWS_MARK};
pub use plane::planes;
pub use sandwich::{Range, Ranges, Scales, choose_scales, uniform_scales};
pub use scale::{apply_scales, moderate_scales};
pub use shuffle::shuffled_linears;
pub(crate) use split::constant_part;
pub use split::{SplitGraph, split};
pub use tile::{AttentionShape, attention_shape, tile_attention};

use crate::ConvertError;
use crate::options::{Placement, Tile};
use crate::partition::{Segment, first_host_nodes, host_nodes, levels};

use rockshard_cost::Rk3588;
use rockshard_graph::{Graph, Log};
use rockshard_import::ImportError;
use rockshard_manifest::AttentionTiling;
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;

/// What passes over a part may look at, and what they leave for the cut.
pub(crate) struct PartContext<'a> {
    /// Name of the part.
    pub part: &'a str,
    pub chip: &'a Rk3588,
    pub placement: Placement,
    pub tile: Tile,
    /// Keeps a weight that a pass made outside of memory.
    pub store: &'a mut dyn FnMut(Tensor) -> Result<Tensor, ConvertError>,
    /// An error of the importer's own passes, with the part's place.
    pub import_failed: &'a dyn Fn(ImportError) -> ConvertError,
    /// Where a pass that divides the graph over the cores has cut it.
    pub segments: Option<Vec<Segment>>,
    /// What the graph takes before it is rewritten, in modelled microseconds of one run on one core.
    pub unchanged_us: Option<f64>,
}

type PartPass = fn(Graph, &mut PartContext) -> Result<(Graph, Log), ConvertError>;

/// The passes over a part's whole graph, in the order in which they run: those that make it one that the NPU has room for,
const FITTING_PASSES: [PartPass; 5] =
    [hide_by_masks, fuse_patterns, price_unchanged, convolve_shuffled_linears, cut_long_axes];
/// and those that lay it out for the cores.
const LAYOUT_PASSES: [PartPass; 3] = [move_tokens_to_planes, spread_heads, divide_over_cores];

/// Run the passes over a part's graph.
pub(crate) fn rewrite_part(
    graph: Graph,
    context: &mut PartContext,
) -> Result<(Graph, Log), ConvertError> {
    let (graph, mut all) = fit_part(graph, context)?;
    let (graph, log) = run_passes(&LAYOUT_PASSES, graph, context)?;
    all.edits.extend(log.edits);
    all.declined.extend(log.declined);
    Ok((graph, all))
}

/// Run those passes that decide whether the NPU has room for a part's axes.
pub(crate) fn fit_part(
    graph: Graph,
    context: &mut PartContext,
) -> Result<(Graph, Log), ConvertError> {
    run_passes(&FITTING_PASSES, graph, context)
}

fn run_passes(
    passes: &[PartPass],
    mut graph: Graph,
    context: &mut PartContext,
) -> Result<(Graph, Log), ConvertError> {
    let mut all = Log::default();
    for pass in passes {
        let (rewritten, log) = pass(graph, context)?;
        graph = rewritten;
        all.edits.extend(log.edits);
        all.declined.extend(log.declined);
    }
    Ok((graph, all))
}

/// What hides scores, in a form that float16 holds.
fn hide_by_masks(mut graph: Graph, _: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    let log = legal_masks(&mut graph)?;
    Ok((graph, log))
}

/// Patterns of nodes that are one operator of the NPU's compiler; told by their number.
fn fuse_patterns(mut graph: Graph, c: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    let mut log = rockshard_import::fuse(&mut graph, None).map_err(|e| (c.import_failed)(e))?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for edit in &log.edits {
        *counts.entry(edit.split(": ").next().unwrap_or(edit)).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
    log.edits =
        counts.first().map(|_| format!("fusion: {}", counts.join(", "))).into_iter().collect();
    Ok((graph, log))
}

/// What the rest of the passes is compared with.
fn price_unchanged(graph: Graph, c: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    let host = host_nodes(&graph);
    let nodes: Vec<_> = graph.node_ids().filter(|id| !host.contains(id)).collect();
    if !nodes.is_empty() {
        c.unchanged_us = Some(c.chip.graph(&graph.subgraph(c.part, &nodes, &[])).micros);
    }
    Ok((graph, Log::default()))
}

/// Linear layers over blocks of tokens, as convolutions.
fn convolve_shuffled_linears(
    mut graph: Graph,
    _: &mut PartContext,
) -> Result<(Graph, Log), ConvertError> {
    let log = shuffled_linears(&mut graph)?;
    Ok((graph, log))
}

/// What has more tokens than an axis may have, in bands.
fn cut_long_axes(graph: Graph, c: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    let (graph, bands) = in_parts(graph, c.chip)?;
    let edits = bands.into_iter().map(|line| format!("bands: {line}")).collect();
    Ok((graph, Log { edits, ..Log::default() }))
}

/// Deep linear layers on planes, where a whole item is to be fast.
fn move_tokens_to_planes(graph: Graph, c: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    if !matches!(c.placement, Placement::Split | Placement::Replicate) {
        return Ok((graph, Log::default()));
    }
    let linear = |graph: &Graph| graph.operators().get("MatMul").copied().unwrap_or(0);
    let before = linear(&graph);
    let graph = planes(&graph, c.chip, c.store)?;
    let moved = before.saturating_sub(linear(&graph));
    let edit = format!("planes: {moved} deep linear layers as convolutions");
    let edits = Some(edit).filter(|_| moved > 0).into_iter().collect();
    Ok((graph, Log { edits, ..Log::default() }))
}

/// Heads of an attention in groups, one a core.
fn spread_heads(mut graph: Graph, c: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    if c.tile != Tile::Heads {
        return Ok((graph, Log::default()));
    }
    let log = split_heads(&mut graph, usize::from(c.chip.cores))?;
    Ok((graph, log))
}

/// Every operator divided over the cores.
fn divide_over_cores(graph: Graph, c: &mut PartContext) -> Result<(Graph, Log), ConvertError> {
    if c.placement != Placement::Split {
        return Ok((graph, Log::default()));
    }
    let divided = split(&graph, &first_host_nodes(&graph, c.part)?, c.chip.cores)?;
    let segments = levels(&divided);
    let shards = segments.iter().filter(|s| !s.host).count();
    let edits = vec![format!("split: divided over {} cores in {shards} shards", c.chip.cores)];
    c.segments = Some(segments);
    let SplitGraph { graph, declined, .. } = divided;
    Ok((graph, Log { edits, declined }))
}

/// A shard's graph after its passes.
pub(crate) struct Rewritten {
    pub graph: Graph,
    /// What was done to each attention, in running order.
    pub attention: Vec<AttentionTiling>,
}

impl Rewritten {
    /// A shard that no pass is for: the host's.
    pub fn unchanged(graph: Graph) -> Self {
        Rewritten { graph, attention: Vec::new() }
    }
}

/// Run the passes over a shard's graph: values stored scaled, then attention in tiles.
pub(crate) fn rewrite_shard(
    graph: Graph,
    scales: &Scales,
    tile: Tile,
    chip: &Rk3588,
) -> Result<Rewritten, ConvertError> {
    let mut graph = apply_scales(&graph, scales)?;
    let attention = tile_attention(&mut graph, tile, chip)?;
    Ok(Rewritten { graph, attention })
}
