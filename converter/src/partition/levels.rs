//! Shards of a graph that was divided over the cores.

use super::{Segment, naming};
use crate::passes::SplitGraph;
use rockshard_graph::NodeId;
use std::collections::BTreeMap;

/// One segment for each core and *level*: the number of times that what it computes has crossed between cores. Within a level no core
/// waits for another.
pub fn levels(split: &SplitGraph) -> Vec<Segment> {
    let graph = &split.graph;
    let links = graph.links();
    let mut level = vec![0usize; graph.nodes().len()];
    let mut host = Vec::new();
    let mut found: BTreeMap<(usize, u8), Vec<NodeId>> = BTreeMap::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some(&core) = split.cores.get(&node.output) else {
            host.push(id);
            continue;
        };
        let from =
            node.inputs.iter().filter_map(|&v| Some((links.producer(v)?, split.cores.get(&v)?)));
        level[id.index()] =
            from.map(|(p, &c)| level[p.index()] + usize::from(c != core)).max().unwrap_or(0);
        found.entry((level[id.index()], core)).or_default().push(id);
    }
    let count = found.len();
    let mut segments = Vec::new();
    if !host.is_empty() {
        segments.push(Segment { name: "host".into(), nodes: host, host: true, core: None });
    }
    for (i, ((_, core), nodes)) in found.into_iter().enumerate() {
        let name = format!("{}.core{core}", naming::segment_name(graph, &nodes, i, count));
        segments.push(Segment { name, nodes, host: false, core: Some(core) });
    }
    segments
}
