//! Running a whole graph on the CPU reference in bounded memory.
//!
//! The graph runs as *pieces*: nodes in running order, cut so that the weights and results of one stay under a budget. A piece is written
//! to a scratch file, run on every sample, and forgotten; of its results, only what a later piece reads is held. Attention runs in tiles
//! of queries, so that no matrix of scores is ever whole.

use crate::ConvertError;
use crate::calibrate::{Sample, unscaled};
use crate::emit::write_onnx;
use crate::options::Tile;
use crate::passes::tile_attention;
use rockshard_cost::Rk3588;
use rockshard_device::{Device, ShardFile};
use rockshard_graph::{Graph, NodeId, ValueId};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Bytes of weights and of results that one piece may have; a node that has more is a piece of its own.
const BUDGET: usize = 64 << 20;

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
}

impl Reference<'_> {
    /// Run the samples, which fit the graph's inputs, and show `see` every value that a node makes, sample by sample.
    ///
    /// # Errors
    /// The engine fails, or a scratch file cannot be written.
    pub fn run(&self, graph: &Graph, part: &str, samples: &[Sample], see: &mut dyn FnMut(&str, &Tensor)) -> Result<(), ConvertError> {
        let start = |s: &Sample| graph.inputs.iter().map(|&v| (v, s[&graph.value(v).name].clone())).collect();
        let mut states: Vec<HashMap<ValueId, Tensor>> = samples.iter().map(start).collect();
        let pieces = pieces(graph);
        let last_use = last_uses(graph, &pieces);
        for (i, nodes) in pieces.iter().enumerate() {
            let name = format!("{part}-{i:03}");
            let made: Vec<ValueId> = nodes.iter().map(|&n| graph.node(n).output).collect();
            let mut piece = graph.subgraph(&name, nodes, &made);
            let own: HashSet<ValueId> = made.iter().copied().collect();
            let mut inputs: Vec<ValueId> = Vec::new();
            for &v in nodes.iter().flat_map(|&n| &graph.node(n).inputs) {
                if graph.constant(v).is_none() && !own.contains(&v) && !inputs.contains(&v) {
                    inputs.push(v);
                }
            }
            tile_attention(&mut piece, Tile::Auto, self.npu)?;
            let path = self.scratch.join(format!("{name}.onnx"));
            write_onnx(&piece, &path).map_err(ConvertError::io(&path))?;
            drop(piece);
            (self.release)();
            let shard = ShardFile { name, path: path.clone(), inputs: unscaled(graph, &inputs), outputs: unscaled(graph, &made) };
            let mut session = self.device.open(&shard, CoreId::Npu(0))?;
            for state in &mut states {
                let given: Vec<Tensor> = inputs.iter().map(|v| state[v].clone()).collect();
                state.retain(|v, _| last_use.get(v).is_some_and(|&last| last > i));
                let results = session.run(&given)?.outputs;
                drop(given);
                for (&value, tensor) in made.iter().zip(results) {
                    see(&graph.value(value).name, &tensor);
                    if last_use.get(&value).is_some_and(|&last| last > i) {
                        state.insert(value, tensor);
                    }
                }
            }
            drop(session);
            for file in [path.clone(), path.with_extension("onnx_data")] {
                let _ = std::fs::remove_file(file);
            }
        }
        Ok(())
    }
}

/// Runs of nodes that stay under the budget.
fn pieces(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut pieces: Vec<Vec<NodeId>> = Vec::new();
    let (mut weights, mut results) = (0, 0);
    for id in graph.node_ids() {
        let node = graph.node(id);
        let more_weights: usize = node.inputs.iter().filter_map(|&v| graph.constant(v)).map(|t| t.bytes().len()).sum();
        let more_results = graph.value(node.output).shape.iter().product::<usize>() * size_of::<f32>();
        if pieces.is_empty() || weights + more_weights > BUDGET || results + more_results > BUDGET {
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
fn last_uses(graph: &Graph, pieces: &[Vec<NodeId>]) -> HashMap<ValueId, usize> {
    let mut last = HashMap::new();
    for (i, nodes) in pieces.iter().enumerate() {
        last.extend(nodes.iter().flat_map(|&n| &graph.node(n).inputs).map(|&v| (v, i)));
    }
    last
}
