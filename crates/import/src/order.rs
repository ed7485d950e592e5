//! Nodes in an order in which they can run.

use crate::ImportError;
use crate::inline::captured;
use rockshard_onnx::schema::NodeProto;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Name of a node, for messages and for shards. TorchScript names nodes by module path; the dynamo exporter keeps the path in the
/// node's metadata.
pub(crate) fn node_name(node: &NodeProto) -> String {
    let own = node.name.as_deref().filter(|n| !n.is_empty());
    let own = own.or(node.output.first().map(String::as_str)).unwrap_or("unnamed");
    let scopes =
        node.metadata_props.iter().find(|m| m.key.as_deref() == Some("pkg.torch.onnx.name_scopes"));
    let path = scopes.and_then(|m| m.value.as_deref()).map(|list| {
        let parts =
            list.trim_matches(['[', ']']).split(',').map(|p| p.trim().trim_matches(['\'', '"']));
        let modules: Vec<&str> = parts.filter(|p| !p.is_empty()).collect();
        modules
            .len()
            .checked_sub(2)
            .and_then(|i| modules.get(i))
            .copied()
            .unwrap_or_default()
            .replace('.', "/")
    });
    match path {
        Some(path) if !path.is_empty() => format!("/{path}/{own}"),
        _ => own.to_owned(),
    }
}

/// The nodes that the outputs need, in a running order that keeps the file's where it can.
pub(crate) fn running_order<'a>(
    nodes: &'a [NodeProto],
    outputs: &[String],
) -> Result<Vec<&'a NodeProto>, ImportError> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            producer.insert(output, i);
        }
    }
    let made_by = |node: &'a NodeProto| {
        let read = node.input.iter().map(String::as_str).chain(captured(node));
        read.filter_map(|i| producer.get(i).copied()).collect::<Vec<_>>()
    };
    let mut live = vec![false; nodes.len()];
    let mut open: Vec<usize> =
        outputs.iter().filter_map(|o| producer.get(o.as_str()).copied()).collect();
    while let Some(i) = open.pop() {
        if !std::mem::replace(&mut live[i], true) {
            open.extend(made_by(&nodes[i]));
        }
    }
    let mut waiting = vec![0usize; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut ready = BinaryHeap::new();
    for i in (0..nodes.len()).filter(|&i| live[i]) {
        let needs = made_by(&nodes[i]);
        waiting[i] = needs.len();
        needs.iter().for_each(|&n| users[n].push(i));
        if needs.is_empty() {
            ready.push(Reverse(i));
        }
    }
    let mut order = Vec::new();
    while let Some(Reverse(i)) = ready.pop() {
        order.push(&nodes[i]);
        for &user in &users[i] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    let stuck = |i: usize| live[i] && waiting[i] > 0;
    let Some(mut at) = (0..nodes.len()).find(|&i| stuck(i)) else { return Ok(order) };
    // A node may be stuck because it comes after the cycle: go back until one comes twice.
    let mut seen = HashSet::new();
    while seen.insert(at)
        && let Some(before) = made_by(&nodes[at]).into_iter().find(|&i| stuck(i))
    {
        at = before;
    }
    Err(ImportError::Cycle(node_name(&nodes[at])))
}
