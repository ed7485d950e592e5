//! NanoTile: attention over tiles of queries (`rows`), or of queries and keys with a running maximum and sum (`grid`, the online
//! softmax of Milakov and Gimelshein 2018, arXiv:1805.02867).

use super::parts::is_block;
use crate::options::Tile;
use rockshard_cost::Rk3588;
use rockshard_graph::{
    Binary, Graph, Node, NodeId, Op, Patch, Reduce, Unary, ValueId, VerifyError,
};
use rockshard_manifest::AttentionTiling;
use rockshard_tensor::Tensor;

/// Extents of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Heads, times batch.
    pub heads: usize,
    /// Query tokens.
    pub queries: usize,
    /// Key tokens.
    pub keys: usize,
    /// Channels of a head.
    pub channels: usize,
}

/// Modelled bytes of scores that `auto` lets an attention have. The vendor's compiler then reports a fifth of the untiled memory for
/// 4096 tokens, and other shards of a U-Net at 512x512 are as large.
const AUTO_BUDGET: u64 = 24 << 20;
const AUTO_ROWS: [usize; 6] = [2048, 1024, 512, 256, 128, 64];

/// Extents of an attention node.
pub fn attention_shape(graph: &Graph, node: &Node) -> AttentionShape {
    let (q, k) = (&graph.value(node.inputs[0]).shape, &graph.value(node.inputs[1]).shape);
    let n = q.len();
    AttentionShape {
        heads: q[..n - 2].iter().product(),
        queries: q[n - 2],
        keys: k[k.len() - 1],
        channels: q[n - 1],
    }
}

/// Lower every attention of a graph as asked; gives what was done to each, in running order.
///
/// # Errors
/// A lowering broke the graph (a defect, with the node named).
pub fn tile_attention(
    graph: &mut Graph,
    tile: Tile,
    npu: &Rk3588,
) -> Result<Vec<AttentionTiling>, VerifyError> {
    let mut done = Vec::new();
    let targets: Vec<ValueId> = graph
        .nodes()
        .iter()
        .filter(|n| matches!(n.op, Op::Attention { .. }))
        .map(|n| n.output)
        .collect();
    for output in targets {
        let Some(id) = graph.node_ids().find(|&id| graph.node(id).output == output) else {
            continue;
        };
        let shape = attention_shape(graph, graph.node(id));
        let whole = npu.attention_bytes(shape.heads, shape.queries, shape.keys);
        let value = graph.value(output).name.clone();
        let chosen = match tile {
            // An attention in parts has its blocks.
            Tile::Auto if is_block(&graph.node(id).name) => Tile::Off,
            Tile::Auto => automatic(shape, npu),
            Tile::Heads => Tile::Off,
            other => other,
        };
        let (lowering, peak_after) = match chosen {
            Tile::Rows(rows) if rows < shape.queries => {
                let patch = rows_patch(graph, id, rows);
                apply(graph, patch)?;
                (format!("rows:{rows}"), npu.attention_bytes(shape.heads, rows, shape.keys))
            }
            Tile::Grid(rows, columns) if rows < shape.queries || columns < shape.keys => {
                let (rows, columns) = (rows.min(shape.queries), columns.min(shape.keys));
                let patch = grid_patch(graph, id, rows, columns);
                apply(graph, patch)?;
                (format!("grid:{rows}x{columns}"), npu.attention_bytes(shape.heads, rows, columns))
            }
            _ => ("whole".to_owned(), whole),
        };
        let shape = [shape.heads, shape.queries, shape.keys, shape.channels];
        done.push(AttentionTiling { value, shape, lowering, peak_before: whole, peak_after });
    }
    graph.verify()?;
    Ok(done)
}

fn automatic(shape: AttentionShape, npu: &Rk3588) -> Tile {
    let bytes = |rows| npu.attention_bytes(shape.heads, rows, shape.keys);
    if bytes(shape.queries) <= AUTO_BUDGET {
        return Tile::Off;
    }
    let rows =
        AUTO_ROWS.into_iter().filter(|&r| r < shape.queries).find(|&r| bytes(r) <= AUTO_BUDGET);
    Tile::Rows(rows.unwrap_or(AUTO_ROWS[AUTO_ROWS.len() - 1]))
}

fn apply(graph: &mut Graph, patch: Patch) -> Result<(), VerifyError> {
    patch.apply(graph).map_err(|node| VerifyError { node, problem: "tiling made a cycle".into() })
}

/// A part of one axis.
fn part(
    patch: &mut Patch,
    graph: &Graph,
    name: String,
    value: ValueId,
    axis_from_end: usize,
    from: usize,
    to: usize,
) -> ValueId {
    let shape = patch.shape(graph, value).to_vec();
    let axis = shape.len() - axis_from_end;
    if (from, to) == (0, shape[axis]) {
        return value;
    }
    let (mut begin, mut end) = (vec![0; shape.len()], shape.clone());
    (begin[axis], end[axis]) = (from, to);
    patch.node(graph, name, Op::Slice { begin, end, step: vec![1; shape.len()] }, vec![value])
}

/// The part of a mask (`[.., L or 1, S or 1]`) for a block of rows and keys.
fn mask_part(
    patch: &mut Patch,
    graph: &Graph,
    name: &str,
    mask: ValueId,
    rows: (usize, usize),
    keys: (usize, usize),
) -> ValueId {
    let shape = patch.shape(graph, mask).to_vec();
    let mut out = mask;
    if shape.len() >= 2 && shape[shape.len() - 2] != 1 {
        out = part(patch, graph, format!("{name}/mask_rows"), out, 2, rows.0, rows.1);
    }
    if shape.last().is_some_and(|&s| s != 1) {
        out = part(patch, graph, format!("{name}/mask_keys"), out, 1, keys.0, keys.1);
    }
    out
}

fn blocks(total: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..total).step_by(size).map(move |from| (from, (from + size).min(total)))
}

fn rows_patch(graph: &Graph, id: NodeId, rows: usize) -> Patch {
    let node = graph.node(id);
    let shape = attention_shape(graph, node);
    let mut patch = Patch::new(graph, id, format!("{} in tiles of {rows} query rows", node.name));
    let mut tiles = Vec::new();
    for (i, (from, to)) in blocks(shape.queries, rows).enumerate() {
        let name = format!("{}/rows{i}", node.name);
        let q = part(&mut patch, graph, format!("{name}/q"), node.inputs[0], 2, from, to);
        let mut inputs = vec![q, node.inputs[1], node.inputs[2]];
        if let Some(&mask) = node.inputs.get(3) {
            inputs.push(mask_part(&mut patch, graph, &name, mask, (from, to), (0, shape.keys)));
        }
        tiles.push(patch.node(graph, name, node.op.clone(), inputs));
    }
    let axis = graph.value(node.output).shape.len() - 2;
    let out = patch.node(graph, format!("{}/tiles", node.name), Op::Concat { axis }, tiles);
    patch.replace(node.output, out);
    patch
}

/// One row block's state while its keys go by: running maximum, sum and unnormalised output.
struct Running {
    maximum: ValueId,
    sum: ValueId,
    output: ValueId,
}

fn grid_patch(graph: &Graph, id: NodeId, rows: usize, columns: usize) -> Patch {
    let node = graph.node(id).clone();
    let Op::Attention { scale } = node.op else { unreachable!("targets are attentions") };
    let shape = attention_shape(graph, &node);
    let mut patch =
        Patch::new(graph, id, format!("{} in blocks of {rows}x{columns} scores", node.name));
    let factor = patch.constant(format!("{}/scale", node.name), Tensor::scalar(scale));
    let mut tiles = Vec::new();
    for (r, row) in blocks(shape.queries, rows).enumerate() {
        let q =
            part(&mut patch, graph, format!("{}/q{r}", node.name), node.inputs[0], 2, row.0, row.1);
        let mut state: Option<Running> = None;
        for (c, key) in blocks(shape.keys, columns).enumerate() {
            let name = format!("{}/grid{r}x{c}", node.name);
            let p = &mut patch;
            let k = part(p, graph, format!("{name}/k"), node.inputs[1], 1, key.0, key.1);
            let v = part(p, graph, format!("{name}/v"), node.inputs[2], 2, key.0, key.1);
            let product = p.node(graph, format!("{name}/qk"), Op::MatMul, vec![q, k]);
            let mut scores = p.node(
                graph,
                format!("{name}/scores"),
                Op::Binary(Binary::Mul),
                vec![product, factor],
            );
            if let Some(&mask) = node.inputs.get(3) {
                let mask = mask_part(p, graph, &name, mask, row, key);
                scores = p.node(
                    graph,
                    format!("{name}/masked"),
                    Op::Binary(Binary::Add),
                    vec![scores, mask],
                );
            }
            let last = p.shape(graph, scores).len() - 1;
            let reduce = |kind| Op::Reduce { kind, axes: vec![last], keep: true };
            let highest = p.node(graph, format!("{name}/max"), reduce(Reduce::Max), vec![scores]);
            let maximum = match &state {
                None => highest,
                Some(s) => p.node(
                    graph,
                    format!("{name}/running_max"),
                    Op::Binary(Binary::Max),
                    vec![s.maximum, highest],
                ),
            };
            let shifted = p.node(
                graph,
                format!("{name}/shifted"),
                Op::Binary(Binary::Sub),
                vec![scores, maximum],
            );
            let weights =
                p.node(graph, format!("{name}/weights"), Op::Unary(Unary::Exp), vec![shifted]);
            let sum = p.node(graph, format!("{name}/sum"), reduce(Reduce::Sum), vec![weights]);
            let output = p.node(graph, format!("{name}/weighted"), Op::MatMul, vec![weights, v]);
            state = Some(match state {
                None => Running { maximum, sum, output },
                Some(s) => {
                    let change = p.node(
                        graph,
                        format!("{name}/change"),
                        Op::Binary(Binary::Sub),
                        vec![s.maximum, maximum],
                    );
                    let decay =
                        p.node(graph, format!("{name}/decay"), Op::Unary(Unary::Exp), vec![change]);
                    let mut carried = |label: &str, old: ValueId, new: ValueId| {
                        let kept = p.node(
                            graph,
                            format!("{name}/kept_{label}"),
                            Op::Binary(Binary::Mul),
                            vec![old, decay],
                        );
                        p.node(
                            graph,
                            format!("{name}/running_{label}"),
                            Op::Binary(Binary::Add),
                            vec![kept, new],
                        )
                    };
                    Running {
                        maximum,
                        sum: carried("sum", s.sum, sum),
                        output: carried("output", s.output, output),
                    }
                }
            });
        }
        if let Some(s) = state {
            tiles.push(patch.node(
                graph,
                format!("{}/row{r}", node.name),
                Op::Binary(Binary::Div),
                vec![s.output, s.sum],
            ));
        }
    }
    let axis = graph.value(node.output).shape.len() - 2;
    let out = patch.node(graph, format!("{}/tiles", node.name), Op::Concat { axis }, tiles);
    patch.replace(node.output, out);
    patch
}
