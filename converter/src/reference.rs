//! Running a whole graph on the CPU reference in bounded memory.
//!
//! The graph runs as *pieces*: nodes in running order, cut so that the weights and results of one stay under a budget. A piece is written
//! to a scratch file, run on every sample, and forgotten; of its results, only what a later piece reads is held. Large attentions run in
//! tiles of queries, each a piece, so that no matrix of scores is ever whole: this serves calibration, which wants ranges. What shards are
//! compared with comes from their untiled reference files. In a graph with a value that does not fit the memory, large values lie in files, and
//! operators make them strip by strip.

mod strips;

use crate::ConvertError;
use crate::calibrate::{Sample, unscaled};
use crate::emit::write_onnx;
use crate::options::Tile;
use crate::passes::{AttentionShape, attention_shape, tile_attention};
use crate::request::Pieces;
use rockshard_cost::Rk3588;
use rockshard_device::{Device, ShardFile};
use rockshard_graph::{Graph, NodeId, Op, ValueId};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use strips::{Held, Large, Strip, Take, strip_graph, strips, taken};

/// Bytes of weights and of results that one piece may have; a node that has more is a piece of its own.
pub(crate) const BUDGET: usize = 64 << 20;
/// Bytes of a value beyond which a graph's large values lie in files.
const MEMORY: usize = 256 << 20;
/// Bytes of a value that then lies in a file.
const LARGE: usize = 8 << 20;

/// Where and with what a graph runs.
pub(crate) struct Reference<'a> {
    /// The engine.
    pub device: &'a dyn Device,
    /// What the tiles of attention are chosen for.
    pub npu: &'a Rk3588,
    /// Folder for scratch files; it exists.
    pub scratch: &'a Path,
    /// Gives back the memory that reading a piece's weights took.
    pub release: &'a dyn Fn(),
    /// Hears of each piece before it runs.
    pub pieces: Pieces<'a>,
}

impl Reference<'_> {
    /// Run the samples, which fit the graph's inputs, and show `see` every value that a node makes, with its name. A tile's values are
    /// shown too.
    ///
    /// # Errors
    /// The engine fails, or a scratch file cannot be written.
    pub fn run(
        &self,
        graph: &Graph,
        part: &str,
        samples: &[Sample],
        see: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<(), ConvertError> {
        let graph = &self.tiled(graph)?;
        let bytes = |v: ValueId| graph.value(v).count() * size_of::<f32>();
        let in_files = graph.nodes().iter().any(|n| bytes(n.output) > MEMORY);
        let (least, budget) = if in_files { (LARGE, BUDGET / 4) } else { (usize::MAX, BUDGET) };
        let start = |s: &Sample| {
            let given = |v: &ValueId| Held::in_memory(s[&graph.value(*v).name].clone());
            graph.inputs.iter().map(|v| (*v, given(v))).collect()
        };
        let mut states: Vec<HashMap<ValueId, Held>> = samples.iter().map(start).collect();
        let pieces = pieces(graph, graph.node_ids(), budget);
        let last_use = last_uses(graph, &pieces);
        for (i, nodes) in pieces.iter().enumerate() {
            (self.pieces)(i, pieces.len())?;
            let later = |v: &ValueId| last_use.get(v).is_some_and(|&last| last > i);
            if let &[id] = &nodes[..]
                && in_files
                && bytes(graph.node(id).output) > budget
                && let Some((axis, strips)) = strips(graph, graph.node(id))
            {
                self.in_strips(graph, id, axis, &strips, &mut states, see)?;
                states.iter_mut().for_each(|state| state.retain(|v, _| later(v)));
                continue;
            }
            let made: Vec<ValueId> = nodes.iter().map(|&n| graph.node(n).output).collect();
            let (shard, inputs) = self.piece(graph, &format!("{part}-{i:03}"), nodes, &made)?;
            let mut session = self.device.open(&shard, CoreId::Npu(0))?;
            for state in &mut states {
                let given: Vec<Tensor> = inputs.iter().map(|v| state[v].tensor.clone()).collect();
                state.retain(|v, _| later(v));
                let results = session.run(&given)?.outputs;
                drop(given);
                state.values().for_each(Held::release);
                for (value, tensor) in made.iter().zip(results) {
                    see(&graph.value(*value).name, &tensor);
                    if later(value) {
                        let path = self.scratch.join(format!("{part}-value"));
                        state.insert(*value, Held::kept(tensor, least, &path)?);
                    }
                }
            }
            drop(session);
            remove(&shard);
        }
        Ok(())
    }

    /// Make a node's value strip by strip, for every sample, and show `see` the strips.
    fn in_strips(
        &self,
        graph: &Graph,
        id: NodeId,
        axis: usize,
        strips: &[Strip],
        states: &mut [HashMap<ValueId, Held>],
        see: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<(), ConvertError> {
        let node = graph.node(id);
        let value = graph.value(node.output);
        let paths: Vec<_> =
            (0..states.len()).map(|i| self.scratch.join(format!("large-{i}"))).collect();
        let create = |path| Large::create(path, &value.shape, axis);
        let files = paths.iter().map(|p| create(p)).collect::<Result<Vec<_>, _>>()?;
        for strip in strips {
            let alone = strip_graph(graph, node, strip);
            let nodes: Vec<NodeId> = alone.node_ids().collect();
            let (shard, _) = self.piece(&alone, "strip", &nodes, &alone.outputs)?;
            let mut session = self.device.open(&shard, CoreId::Npu(0))?;
            for ((state, file), path) in states.iter().zip(&files).zip(&paths) {
                let flowing = node.inputs.iter().zip(&strip.inputs);
                let flowing = flowing.filter(|(v, _)| graph.constant(**v).is_none());
                let take = |(v, take): (&ValueId, &Take)| taken(&state[v].tensor, *take);
                let given = flowing.map(take).collect::<Result<Vec<_>, _>>()?;
                let results = session.run(&given)?.outputs;
                drop(given);
                state.values().for_each(Held::release);
                for made in results {
                    see(&value.name, &made);
                    file.put(&made, strip.from, path)?;
                }
            }
            drop(session);
            remove(&shard);
        }
        for ((state, file), path) in states.iter_mut().zip(files).zip(&paths) {
            state.insert(node.output, file.finish(path)?);
        }
        Ok(())
    }

    /// The graph with its attentions in tiles. What they make keeps its name.
    fn tiled(&self, graph: &Graph) -> Result<Graph, ConvertError> {
        let mut tiled = graph.clone();
        let attentions =
            graph.nodes().iter().filter(|n| matches!(n.op, Op::Attention { .. })).map(|n| n.output);
        tiled.outputs.extend(attentions.filter(|v| !graph.outputs.contains(v)));
        tile_attention(&mut tiled, Tile::Auto, self.npu)?;
        Ok(tiled)
    }

    /// Write some nodes as a graph of their own: the file, and the values it reads.
    fn piece(
        &self,
        graph: &Graph,
        name: &str,
        nodes: &[NodeId],
        made: &[ValueId],
    ) -> Result<(ShardFile, Vec<ValueId>), ConvertError> {
        let piece = graph.subgraph(name, nodes, made);
        let mut seen: HashSet<ValueId> = made.iter().copied().collect();
        let read = nodes.iter().flat_map(|&n| &graph.node(n).inputs).copied();
        let inputs: Vec<ValueId> =
            read.filter(|v| graph.constant(*v).is_none() && seen.insert(*v)).collect();
        let path = self.scratch.join(format!("{name}.onnx"));
        write_onnx(&piece, &path).map_err(ConvertError::io(&path))?;
        (self.release)();
        Ok((
            ShardFile {
                name: name.to_owned(),
                path,
                inputs: unscaled(graph, &inputs),
                outputs: unscaled(graph, made),
            },
            inputs,
        ))
    }
}

fn remove(shard: &ShardFile) {
    for file in [shard.path.clone(), shard.path.with_extension("onnx_data")] {
        let _ = std::fs::remove_file(file);
    }
}

/// Runs of nodes that stay under the budget.
pub(crate) fn pieces(
    graph: &Graph,
    nodes: impl Iterator<Item = NodeId>,
    budget: usize,
) -> Vec<Vec<NodeId>> {
    let mut pieces: Vec<Vec<NodeId>> = Vec::new();
    let (mut weights, mut results) = (0, 0);
    for id in nodes {
        let node = graph.node(id);
        let more_weights: usize =
            node.inputs.iter().filter_map(|&v| graph.constant(v)).map(|t| t.bytes().len()).sum();
        let mut more_results =
            graph.value(node.output).shape.iter().product::<usize>() * size_of::<f32>();
        if matches!(node.op, Op::Attention { .. }) {
            let AttentionShape { heads, queries, keys, .. } = attention_shape(graph, node);
            more_results += heads * queries * keys * size_of::<f32>();
        }
        if pieces.is_empty() || weights + more_weights > budget || results + more_results > budget {
            pieces.push(Vec::new());
            (weights, results) = (0, 0);
        }
        weights += more_weights;
        results += more_results;
        pieces.last_mut().expect("pushed above").push(id);
    }
    pieces
}

/// The last piece that reads each value.
pub(crate) fn last_uses(graph: &Graph, pieces: &[Vec<NodeId>]) -> HashMap<ValueId, usize> {
    let mut last = HashMap::new();
    for (i, nodes) in pieces.iter().enumerate() {
        last.extend(nodes.iter().flat_map(|&n| &graph.node(n).inputs).map(|&v| (v, i)));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use rockshard_graph::Unary;
    use rockshard_tensor::DType;

    #[test]
    fn pieces_stay_under_the_budget_and_know_their_last_reader() {
        let mut graph = Graph::new("chain");
        let large = BUDGET / size_of::<f32>();
        let sizes = [large / 4, large / 4, large / 4, 2 * large, large / 4];
        let mut values = vec![graph.add_value("x", DType::F32, vec![1])];
        graph.inputs.push(values[0]);
        for (i, size) in sizes.into_iter().enumerate() {
            let value = graph.add_value(format!("v{i}"), DType::F32, vec![size]);
            graph.add_node(format!("n{i}"), Op::Unary(Unary::Neg), vec![values[i / 2]], value);
            values.push(value);
        }
        let pieces = pieces(&graph, graph.node_ids(), BUDGET);
        assert_eq!(
            pieces.iter().map(Vec::len).collect::<Vec<_>>(),
            [3, 1, 1],
            "a node over the budget is alone"
        );
        let last = last_uses(&graph, &pieces);
        let of = |i: usize| last.get(&values[i]).copied();
        assert_eq!((of(0), of(1), of(2), of(5)), (Some(0), Some(1), Some(2), None));
    }
}
