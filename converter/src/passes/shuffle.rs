//! `pixel shuffle`: a linear layer over blocks of tokens (vision models' connectors) as a convolution with the block as its kernel.
//!
//! Exporters write it as reshapes and transposes to rows of `block * block * channels` values before the product; such rows are
//! wider than the NPU's registers, and the transposes move every value twice.

use rockshard_graph::{
    Graph, Links, Log, NodeId, Op, Patch, Rule, ValueId, VerifyError, Window, rewrite,
};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::Tensor;

struct ShuffledLinear;

/// Turn every linear layer over square blocks of a square grid of tokens into a convolution.
///
/// # Errors
/// The rewrite broke the graph (a defect, with the node named).
pub fn shuffled_linears(graph: &mut Graph) -> Result<Log, VerifyError> {
    rewrite(graph, &[&ShuffledLinear], None)
}

impl Rule for ShuffledLinear {
    fn name(&self) -> &'static str {
        "pixel shuffle"
    }

    fn propose(
        &self,
        graph: &Graph,
        links: &Links,
        id: NodeId,
        _: &mut Vec<String>,
    ) -> Option<Patch> {
        let node = graph.node(id);
        if node.op != Op::MatMul {
            return None;
        }
        let weight = graph.constant(node.inputs[1]).filter(|w| w.shape().len() == 2)?;
        let (source, moves) = moved_from(graph, links, node.inputs[0]);
        let (&[batch, tokens, channels], &[rows, blocks, width]) =
            (&graph.value(source).shape[..], &graph.value(node.inputs[0]).shape[..])
        else {
            return None;
        };
        let grid = Grid::of(tokens, channels, blocks, width).filter(|_| rows == batch)?;
        let taps = grid.taps(graph, &moves, batch)?;
        let out = weight.shape()[1];
        let old = weight.to_f32().ok()?;
        let mut kernel = vec![0.0; old.len()];
        for (row, &(dy, dx, c)) in taps.iter().enumerate() {
            for o in 0..out {
                kernel[((o * channels + c) * grid.block + dy) * grid.block + dx] =
                    old[row * out + o];
            }
        }
        let kernel = Tensor::from_f32([out, channels, grid.block, grid.block], kernel)
            .to_float(weight.dtype())
            .ok()?;
        let name = |what: &str| format!("{}/{what}", node.name);
        let mut patch = Patch::new(
            graph,
            id,
            format!("{}: {b}x{b} blocks of tokens", node.name, b = grid.block),
        );
        let kernel = patch.constant(format!("{}/blocks", graph.value(node.inputs[1]).name), kernel);
        let window = Window {
            kernel: [grid.block; 2],
            strides: [grid.block; 2],
            pads: [0; 4],
            dilations: [1; 2],
        };
        let swap = || Op::Transpose { perm: vec![0, 2, 1] };
        let x = patch.node(graph, name("channels first"), swap(), vec![source]);
        let x = patch.node(
            graph,
            name("grid"),
            Op::Reshape { shape: vec![batch, channels, grid.side, grid.side] },
            vec![x],
        );
        let x = patch.node(graph, name("Conv"), Op::Conv { window, group: 1 }, vec![x, kernel]);
        let x = patch.node(
            graph,
            name("rows"),
            Op::Reshape { shape: vec![batch, out, blocks] },
            vec![x],
        );
        let x = patch.node(graph, name("channels last"), swap(), vec![x]);
        patch.replace(node.output, x);
        Some(patch)
    }
}

/// The value that reshapes and transposes, which nothing else uses, start from, and those nodes in running order.
fn moved_from(graph: &Graph, links: &Links, mut value: ValueId) -> (ValueId, Vec<NodeId>) {
    let mut moves = Vec::new();
    while let Some(id) = links.producer(value).filter(|_| links.used_once(value)) {
        if !matches!(graph.node(id).op, Op::Reshape { .. } | Op::Transpose { .. }) {
            break;
        }
        moves.push(id);
        value = graph.node(id).inputs[0];
    }
    moves.reverse();
    (value, moves)
}

/// A square grid of tokens in square blocks.
struct Grid {
    side: usize,
    block: usize,
    channels: usize,
}

impl Grid {
    /// The grid whose `tokens` of `channels` values become `blocks` rows of `width` values.
    fn of(tokens: usize, channels: usize, blocks: usize, width: usize) -> Option<Self> {
        let (side, block) = (tokens.isqrt(), (width / channels.max(1)).isqrt());
        let fits = side * side == tokens
            && block > 1
            && block * block * channels == width
            && blocks * block * block == tokens;
        (fits && side % block == 0).then_some(Grid { side, block, channels })
    }

    /// For each place of a row, the token within its block (down, right) and the channel that the moves bring there; none when they do
    /// not bring each row the tokens of one block of one item.
    fn taps(
        &self,
        graph: &Graph,
        moves: &[NodeId],
        batch: usize,
    ) -> Option<Vec<(usize, usize, usize)>> {
        let tokens = self.side * self.side;
        let mut index = Tensor::from_i64(
            [batch, tokens, self.channels],
            (0..(batch * tokens * self.channels) as i64).collect(),
        );
        for &id in moves {
            index = evaluate(&graph.node(id).op, &[&index], Precision::F32).ok()?;
        }
        let index = index.to_i64().ok()?;
        let width = self.block * self.block * self.channels;
        let place = |i: i64| {
            let (token, channel) = (i as usize / self.channels, i as usize % self.channels);
            // Rows of the grids of all items, one below the other.
            (token / self.side, token % self.side, channel)
        };
        let taps: Vec<_> = index.get(..width)?.iter().map(|&i| place(i)).collect();
        if taps.iter().any(|&(dy, dx, _)| dy >= self.block || dx >= self.block) {
            return None;
        }
        let across = self.side / self.block;
        let regular = index.chunks_exact(width).enumerate().all(|(row, places)| {
            let (top, left) = (row / across * self.block, row % across * self.block);
            places.iter().zip(&taps).all(|(&i, &(dy, dx, c))| place(i) == (top + dy, left + dx, c))
        });
        regular.then_some(taps)
    }
}
