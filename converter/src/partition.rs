//! Where a graph is cut into shards.
//!
//! Cuts follow the graph's own structure, so that they do not depend on an exporter's names: a *residual branch* ends at the
//! addition of two equally shaped flowing values, which in diffusion and vision models closes each resnet, attention and
//! feed-forward. Integer look-ups and functions the NPU has not go to shards of their own on the host, wherever they stand.

mod host;
mod levels;
mod naming;
mod regions;

use host::Turn;
pub use host::host_nodes;
pub(crate) use host::turns;
pub use levels::levels;

use crate::ConvertError;
use crate::options::{Optimise, Shards};
use crate::passes::GROUP_MARK;
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Links, Node, NodeId, Op, ValueId};
use rockshard_tensor::DType;
use std::collections::BTreeSet;

/// The nodes of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Name derived from the module path of its nodes.
    pub name: String,
    /// Nodes in running order.
    pub nodes: Vec<NodeId>,
    /// Whether the host runs it.
    pub host: bool,
    /// Core it was made for, in a graph that was divided over the cores.
    pub core: Option<u8>,
}

/// Work below which `auto` leaves a model whole, in boundary overheads: cutting would cost more than it gains.
const WORTH_CUTTING: f64 = 30.0;

/// Cut a graph into segments in an order in which they can run.
///
/// # Errors
/// More shards asked for than nodes, or fewer than there must be.
pub fn partition(
    graph: &Graph,
    part: &str,
    shards: Shards,
    optimise: Optimise,
    npu: &Rk3588,
) -> Result<Vec<Segment>, ConvertError> {
    let links = graph.links();
    let turns = turns(graph, &host_nodes(graph));
    let cost = |nodes: &[NodeId]| {
        nodes.iter().map(|&n| npu.node(graph, graph.node(n)).micros).sum::<f64>()
    };
    let spans_of = |turn: &Turn| -> Vec<Vec<Vec<NodeId>>> {
        let pieces = |span| match span {
            regions::Span::Bands(nodes) => vec![nodes],
            regions::Span::Free(nodes) => blocks(graph, &links, &nodes, shards == Shards::Block),
        };
        match turn.host {
            true => Vec::new(),
            false => regions::spans(graph, &links, &turn.nodes).into_iter().map(pieces).collect(),
        }
    };
    let of_turns: Vec<Vec<Vec<Vec<NodeId>>>> = turns.iter().map(spans_of).collect();
    let spans: Vec<Vec<Vec<NodeId>>> = of_turns.iter().flatten().cloned().collect();
    let npu_nodes: Vec<NodeId> = spans.iter().flatten().flatten().copied().collect();
    let count = match shards {
        Shards::Block | Shards::Layer => usize::MAX,
        Shards::Count(asked) if asked > npu_nodes.len() => {
            let nodes = npu_nodes.len();
            return Err(ConvertError::TooManyShards { part: part.to_owned(), asked, nodes });
        }
        Shards::Count(asked) if asked < spans.len() => {
            let least = spans.len();
            return Err(ConvertError::TooFewShards { part: part.to_owned(), asked, least });
        }
        Shards::Count(n) => n,
        Shards::Auto => match against_cutting(cost(&npu_nodes), optimise, npu) {
            None => usize::from(npu.cores),
            Some(_) => 1,
        },
    };
    let exact = matches!(shards, Shards::Count(_));
    let mut runs = spread(spans, count, exact, cost).into_iter();
    let mut found: Vec<(bool, Vec<NodeId>)> = Vec::new();
    for (turn, spans) in turns.iter().zip(&of_turns) {
        if turn.host {
            found.push((true, turn.nodes.clone()));
        }
        let own = runs.by_ref().take(spans.len()).flatten();
        found.extend(own.map(|nodes| (false, nodes)));
    }
    let count = found.iter().filter(|(host, _)| !host).count();
    let mut number = 0;
    let named = |(host, nodes): (bool, Vec<NodeId>)| {
        if host {
            return Segment { name: "host".into(), nodes, host, core: None };
        }
        number += 1;
        let name = naming::segment_name(graph, &nodes, number - 1, count);
        Segment { name, nodes, host, core: None }
    };
    Ok(found.into_iter().map(named).collect())
}

/// Why `auto` leaves a network whole, where it does.
pub(crate) fn why_whole(graph: &Graph, optimise: Optimise, npu: &Rk3588) -> Option<String> {
    let host = host_nodes(graph);
    let nodes = graph.node_ids().filter(|id| !host.contains(id));
    let micros = nodes.map(|id| npu.node(graph, graph.node(id)).micros).sum();
    against_cutting(micros, optimise, npu)
}

/// What speaks against cuts. One item alone gains nothing from them, and each shard has activation memory of its own; only a stream of items
/// keeps several cores busy.
fn against_cutting(micros: f64, optimise: Optimise, npu: &Rk3588) -> Option<String> {
    let enough = WORTH_CUTTING * npu.run_overhead_micros;
    match optimise {
        Optimise::Throughput if micros > enough => None,
        Optimise::Throughput => Some(format!(
            "shards: whole: its {micros:.0} us, modelled, are not worth cutting; {enough:.0} us are"
        )),
        Optimise::Latency | Optimise::Memory => {
            Some(format!("shards: whole: cuts bring nothing for {optimise}"))
        }
    }
}

/// Nodes that the host runs, where all of them come before the NPU's.
///
/// # Errors
/// Host work after NPU work.
pub fn first_host_nodes(graph: &Graph, part: &str) -> Result<BTreeSet<NodeId>, ConvertError> {
    let host = host_nodes(graph);
    let turns = turns(graph, &host);
    let after = turns.iter().skip_while(|turn| turn.host).find(|turn| turn.host);
    match after.and_then(|turn| turn.nodes.first()) {
        None => Ok(host),
        Some(&node) => Err(ConvertError::HostAfterNpu {
            part: part.to_owned(),
            node: graph.node(node).name.clone(),
            op: graph.node(node).op.name(),
        }),
    }
}

/// Residual branches, with the stem before the first and the head after the last; `samplers` cuts at changes of resolution as
/// well. Groups of heads are pieces of their own.
fn blocks(graph: &Graph, links: &Links, nodes: &[NodeId], samplers: bool) -> Vec<Vec<NodeId>> {
    let mut cuts = vec![false; nodes.len()];
    let position = |v: ValueId| links.producer(v).and_then(|p| nodes.binary_search(&p).ok());
    let residual = |n: &Node| is_residual(graph, n);
    if let Some(first) = nodes.iter().position(|&n| residual(graph.node(n))) {
        let operands = &graph.node(nodes[first]).inputs;
        // The skip operand is made first; what lies before it is the stem.
        if let Some(stem) = operands.iter().filter_map(|&v| position(v)).min() {
            cuts[stem] = true;
        }
    }
    for (i, &id) in nodes.iter().enumerate() {
        let node = graph.node(id);
        cuts[i] |= residual(node);
        if samplers && i > 0 && matches!(node.op, Op::Resize { .. }) {
            cuts[i - 1] = true;
        }
        let after_resize = |v: ValueId| {
            links.producer(v).is_some_and(|p| matches!(graph.node(p).op, Op::Resize { .. }))
        };
        if samplers
            && (is_strided(node)
                || matches!(node.op, Op::Conv { .. }) && after_resize(node.inputs[0]))
        {
            cuts[i] = true;
        }
        // A group of heads is apart from what is before and after it.
        if i > 0 && head_group(node) != head_group(graph.node(nodes[i - 1])) {
            cuts[i - 1] = true;
        }
    }
    let mut pieces: Vec<Vec<NodeId>> = vec![Vec::new()];
    for (i, &id) in nodes.iter().enumerate() {
        pieces.last_mut().expect("starts with one").push(id);
        if cuts[i] && i + 1 < nodes.len() {
            pieces.push(Vec::new());
        }
    }
    merged(graph, pieces)
}

/// Pieces too small for a shard join the one before: a projection that only closes an outer residual, a lone reshape.
fn merged(graph: &Graph, pieces: Vec<Vec<NodeId>>) -> Vec<Vec<NodeId>> {
    let count = pieces.len();
    let mut out: Vec<Vec<NodeId>> = Vec::new();
    for (i, piece) in pieces.into_iter().enumerate() {
        let nodes = || piece.iter().map(|&n| graph.node(n));
        let weighted = nodes().filter(|n| matches!(n.op, Op::Conv { .. } | Op::MatMul)).count();
        let apart = nodes()
            .any(|n| matches!(n.op, Op::Attention { .. } | Op::Resize { .. }) || is_strided(n));
        let grouped =
            |list: &[NodeId]| list.first().is_some_and(|&n| head_group(graph.node(n)).is_some());
        let small = weighted < 2 && !apart && i > 0 && i + 1 < count;
        match out.last_mut() {
            Some(last) if small && !grouped(&piece) && !grouped(last) => last.extend(piece),
            _ => out.push(piece),
        }
    }
    out
}

/// An addition of two flowing values of the result's shape, of three and more axes.
fn is_residual(graph: &Graph, node: &Node) -> bool {
    let shape = &graph.value(node.output).shape;
    let flowing = |v: &ValueId| graph.constant(*v).is_none() && graph.value(*v).shape == *shape;
    node.op == Op::Binary(Binary::Add)
        && shape.len() >= 3
        && graph.value(node.output).dtype == DType::F32
        && node.inputs.iter().all(flowing)
}

fn is_strided(node: &Node) -> bool {
    matches!(&node.op, Op::Conv { window, .. } if window.strides != [1, 1])
}

/// The group of heads a node belongs to, from the mark that splitting leaves in its name.
fn head_group(node: &Node) -> Option<&str> {
    let (_, rest) = node.name.rsplit_once(GROUP_MARK)?;
    Some(rest.split('/').next().unwrap_or(rest))
}

/// Join the pieces of each span into as many runs as it gets of `count`: one each, and the others where a run would cost most. Exactly as many
/// as asked for (`exact`) may need spans of more pieces than they have: those are cut between nodes.
fn spread(
    spans: Vec<Vec<Vec<NodeId>>>,
    count: usize,
    exact: bool,
    cost: impl Fn(&[NodeId]) -> f64,
) -> Vec<Vec<Vec<NodeId>>> {
    let pieces: usize = spans.iter().map(Vec::len).sum();
    let alone = |span: Vec<Vec<NodeId>>| span.into_iter().flatten().map(|n| vec![n]).collect();
    let spans: Vec<Vec<Vec<NodeId>>> =
        if exact && count > pieces { spans.into_iter().map(alone).collect() } else { spans };
    let costs: Vec<f64> =
        spans.iter().map(|span| span.iter().map(|piece| cost(piece)).sum()).collect();
    let mut shares = vec![1; spans.len()];
    for _ in spans.len()..count.min(spans.iter().map(Vec::len).sum()) {
        let open = (0..spans.len()).filter(|&i| shares[i] < spans[i].len());
        let dearest = |a: &usize, b: &usize| {
            (costs[*a] / shares[*a] as f64).total_cmp(&(costs[*b] / shares[*b] as f64))
        };
        // Of equals the first.
        let Some(next) = open.rev().max_by(dearest) else { break };
        shares[next] += 1;
    }
    let runs = spans.into_iter().zip(shares);
    runs.map(|(span, share)| joined(span, share, &cost)).collect()
}

/// Join neighbouring pieces into `count` runs whose dearest is as cheap as possible (binary search over the dearest).
fn joined(
    pieces: Vec<Vec<NodeId>>,
    count: usize,
    cost: impl Fn(&[NodeId]) -> f64,
) -> Vec<Vec<NodeId>> {
    let costs: Vec<f64> = pieces.iter().map(|p| cost(p)).collect();
    let runs_under = |limit: f64| {
        let (mut runs, mut sum) = (1, 0.0);
        for &c in &costs {
            if sum > 0.0 && sum + c > limit {
                runs += 1;
                sum = 0.0;
            }
            sum += c;
        }
        runs
    };
    let (mut low, mut high) =
        (costs.iter().copied().fold(0.0, f64::max), costs.iter().sum::<f64>());
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if runs_under(middle) <= count { high = middle } else { low = middle }
    }
    let total = pieces.len();
    let mut out: Vec<Vec<NodeId>> = Vec::new();
    let mut sum = 0.0;
    for (i, piece) in pieces.into_iter().enumerate() {
        // Never fewer runs than asked for: leave a piece for each run still to come.
        let must = out.len() < count && total - i <= count - out.len();
        let full = sum > 0.0 && sum + costs[i] > high && out.len() < count;
        if out.is_empty() || must || full {
            out.push(Vec::new());
            sum = 0.0;
        }
        sum += costs[i];
        out.last_mut().expect("pushed above").extend(piece);
    }
    out
}
