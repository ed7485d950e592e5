//! Shard names from module paths.

use crate::passes::GROUP_MARK;
use rockshard_graph::{Graph, NodeId, Op};

/// Longest part of a module path that goes into a name.
const LONGEST: usize = 60;

/// The module path that the weighted operators of a segment share, e.g. `down_blocks.0.attentions.0.attn1`; `stem`, `head` or
/// `part` where there is none.
pub(super) fn segment_name(graph: &Graph, nodes: &[NodeId], index: usize, count: usize) -> String {
    let weighted = |n: &&NodeId| {
        matches!(graph.node(**n).op, Op::Conv { .. } | Op::MatMul | Op::Attention { .. })
    };
    let mut paths = nodes.iter().filter(weighted).map(|&n| components(&graph.node(n).name));
    let mut shared = paths.next().unwrap_or_default();
    for path in paths {
        let same = shared.iter().zip(&path).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    let group = nodes.first().and_then(|&n| {
        graph
            .node(n)
            .name
            .rsplit_once(GROUP_MARK)
            .map(|(_, g)| g.split('/').next().unwrap_or(g).to_owned())
    });
    let mut name: String = shared
        .join(".")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect();
    if name.len() > LONGEST {
        name = name.split_off(name.len() - LONGEST);
    }
    let name = name.trim_matches('.').to_owned();
    let name = match name.as_str() {
        "" if index == 0 && count > 1 => "stem".to_owned(),
        "" if index + 1 == count && count > 1 => "head".to_owned(),
        "" => "part".to_owned(),
        _ => name,
    };
    match group {
        Some(group) => format!("{name}.heads{group}"),
        None => name,
    }
}

/// The module path in a node's name, without exporter prefixes and the operator at the end.
fn components(name: &str) -> Vec<String> {
    let mut parts: Vec<String> =
        name.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    parts.pop();
    if let Some(at) = parts.iter().position(|p| p.contains(GROUP_MARK.trim_start_matches('/'))) {
        parts.truncate(at);
    }
    parts.retain(|p| !matches!(p.as_str(), "model" | "text_model" | "transformer_blocks.0"));
    parts
}
