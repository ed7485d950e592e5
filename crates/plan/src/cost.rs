//! What a shard takes, operator by operator, from its graph and the chip.

use rockshard_clock::Phase;
use rockshard_cost::{Layer, Rk3588, layers};
use rockshard_graph::{Graph, Op};
use rockshard_import::{ImportError, ImportOptions, import_file};
use rockshard_manifest::{CoreId, Model};
use rockshard_pack::{Variant, WalkedShard, walk};
use std::path::{Path, PathBuf};

/// A shard whose graph cannot be priced.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct PlanError {
    /// The shard's graph.
    pub path: PathBuf,
    /// Cause.
    pub source: ImportError,
}

/// Microseconds of one run by what they are spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Operators that compute.
    pub compute: f64,
    /// Operators that only move elements: reshapes, transposes, slices, concatenations.
    pub moving: f64,
    /// The call, and inputs and outputs that change their layout.
    pub calls: f64,
}

/// One shard as the clock sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardCost {
    /// Name.
    pub name: String,
    /// Core it is pinned to; the host's shards take no modelled time.
    pub core: CoreId,
    /// Stage of the manifest.
    pub stage: u32,
    /// Shards of the model whose outputs it reads.
    pub needs: Vec<usize>,
    /// Its operators on one core, behind what a call costs.
    pub phases: Vec<Phase>,
    /// The same under the vendor's mask of two and of three cores.
    pub masked: [Vec<Phase>; 2],
    /// What the time on one core is spent on.
    pub work: Work,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Peak bytes of activations.
    pub internal_bytes: u64,
    /// Cycles of the matrix unit at its peak.
    pub cycles: u64,
    /// Bytes to and from the memory.
    pub moved_bytes: u64,
}

/// A model's shards.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCost {
    /// Part name.
    pub name: String,
    /// Picture size.
    pub resolution: Option<[u32; 2]>,
    /// Shards in an order in which they can run.
    pub shards: Vec<ShardCost>,
}

impl ModelCost {
    /// Price a model of the pack in a directory.
    ///
    /// # Errors
    /// A shard's graph cannot be read.
    pub fn read(root: &Path, model: &Model, chip: &Rk3588) -> Result<Self, PlanError> {
        let walked = walk(model, Variant::Device).shards;
        let stays = model.stays();
        let mut shards = Vec::new();
        for (shard, WalkedShard { needs, .. }) in model.shards.iter().zip(walked) {
            let mut cost = ShardCost {
                name: shard.name.clone(),
                core: shard.core,
                stage: shard.stage,
                needs,
                phases: Vec::new(),
                masked: Default::default(),
                work: Work::default(),
                weight_bytes: shard.weight_bytes,
                internal_bytes: shard.modelled.internal_bytes,
                cycles: 0,
                moved_bytes: 0,
            };
            if shard.core != CoreId::Host {
                let path = root.join(&shard.file);
                let graph = import_file(&path, &ImportOptions::fixed())
                    .map_err(|source| PlanError { path, source })?;
                cost.price(&graph, chip, &stays(&shard.inputs), &stays(&shard.outputs));
            }
            shards.push(cost);
        }
        Ok(ModelCost { name: model.name.clone(), resolution: model.resolution, shards })
    }
}

impl ShardCost {
    /// Price a graph of which these inputs and outputs stay on the device.
    fn price(&mut self, graph: &Graph, chip: &Rk3588, inputs: &[bool], outputs: &[bool]) {
        let boundary = chip.boundary(graph).cost_beside(inputs, outputs);
        let call = Phase { micros: boundary.micros, streaming: chip.streaming_micros(&boundary) };
        self.work.calls = boundary.micros;
        self.moved_bytes = boundary.dram_bytes;
        self.phases = vec![call];
        self.masked = [vec![call], vec![call]];
        for layer in layers(graph) {
            let cost = chip.layer(graph, &layer);
            if cost.micros <= 0.0 {
                continue;
            }
            let streaming = chip.streaming_micros(&cost);
            self.cycles += cost.cycles.unwrap_or(0);
            self.moved_bytes += cost.dram_bytes;
            *(if moves(graph, &layer) { &mut self.work.moving } else { &mut self.work.compute }) +=
                cost.micros;
            self.phases.push(Phase { micros: cost.micros, streaming });
            for (cores, masked) in (2u8..).zip(&mut self.masked) {
                // The mask's own times have the shared memory in them.
                masked.push(Phase {
                    micros: chip.masked_micros(graph, &layer, cores),
                    streaming: 0.0,
                });
            }
        }
    }

    /// Microseconds on one core, alone.
    pub fn micros(&self) -> f64 {
        self.phases.iter().map(|p| p.micros).sum()
    }
}

fn moves(graph: &Graph, layer: &Layer) -> bool {
    matches!(
        graph.node(layer.node).op,
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Concat { .. }
    )
}
