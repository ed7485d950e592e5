//! Where a graph must be cut because it has bands of tokens.

use crate::passes::{BAND_MARK, ROWS_MARK};
use rockshard_graph::{Graph, Links, NodeId};

/// Nodes that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// On bands: one shard, which has the weights once for all bands.
    Bands(Vec<NodeId>),
    /// Without a band; they may be cut anywhere.
    Free(Vec<NodeId>),
}

/// The nodes in spans that can run one after the other, with no slice of a plane and no joint in the span of the bands; each node as late as
/// its readers allow. Without bands, all nodes as they are.
pub(super) fn spans(graph: &Graph, links: &Links, nodes: &[NodeId]) -> Vec<Span> {
    let named = |id: NodeId, mark: &str| graph.node(id).name.contains(mark);
    if !nodes.iter().any(|&n| named(n, BAND_MARK)) {
        return vec![Span::Free(nodes.to_vec())];
    }
    let count = graph.nodes().len();
    let mut ours = vec![false; count];
    nodes.iter().for_each(|n| ours[n.index()] = true);
    // What only bands read is theirs: keys and values of a text.
    let mut on_bands = vec![false; count];
    for &id in nodes.iter().rev() {
        let output = graph.node(id).output;
        let users = links.users(output);
        let theirs = !users.is_empty()
            && !links.is_output(output)
            && users.iter().all(|u| on_bands[u.index()])
            && !named(id, ROWS_MARK);
        on_bands[id.index()] = theirs || named(id, BAND_MARK);
    }
    // Even phases are free, odd ones on bands.
    let fits = |phase: usize, on_bands: bool| phase % 2 == usize::from(on_bands);
    let mut phase = vec![0usize; count];
    for &id in nodes {
        let makers = graph.node(id).inputs.iter().filter_map(|&v| links.producer(v));
        let after = makers.filter(|m| ours[m.index()]).map(|m| phase[m.index()]).max();
        let after = after.unwrap_or(0);
        phase[id.index()] = after + usize::from(!fits(after, on_bands[id.index()]));
    }
    for &id in nodes.iter().rev() {
        let output = graph.node(id).output;
        if links.is_output(output) {
            continue;
        }
        let own = on_bands[id.index()];
        let latest = links.users(output).iter().filter(|u| ours[u.index()]).map(|u| {
            let user = phase[u.index()];
            user - usize::from(!fits(user, own))
        });
        phase[id.index()] = latest.min().unwrap_or(phase[id.index()]);
    }
    let last = nodes.iter().map(|n| phase[n.index()]).max().unwrap_or(0);
    (0..=last)
        .map(|p| {
            let nodes = nodes.iter().copied().filter(|n| phase[n.index()] == p).collect();
            if fits(p, true) { Span::Bands(nodes) } else { Span::Free(nodes) }
        })
        .filter(|span| {
            let (Span::Bands(nodes) | Span::Free(nodes)) = span;
            !nodes.is_empty()
        })
        .collect()
}
