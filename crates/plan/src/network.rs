//! What one run of a whole network takes on one core.

use crate::PlanError;
use rockshard_clock::Phase;
use rockshard_cost::{OpCost, Rk3588, layers};
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::{CoreId, Model};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One item of a network on one core; of a network for several items at once, its share of their run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkCost {
    /// Its operators and what its calls cost, in order: microseconds alone, and of these waiting for the memory.
    pub phases: Vec<[f64; 2]>,
    /// Cycles of the matrix unit at its peak.
    pub cycles: u64,
    /// Bytes to and from the memory.
    pub bytes: u64,
}

impl NetworkCost {
    /// Price the shards of a model of the pack in a directory.
    ///
    /// # Errors
    /// A shard's graph cannot be read.
    pub fn read(root: &Path, model: &Model, chip: &Rk3588) -> Result<Self, PlanError> {
        let mut cost = NetworkCost::default();
        let stays = model.stays();
        for shard in model.shards.iter().filter(|s| s.core != CoreId::Host) {
            let path = root.join(&shard.file);
            let graph = import_file(&path, &ImportOptions::fixed())
                .map_err(|source| PlanError { path, source })?;
            let boundary = chip.boundary(&graph);
            cost.add(&boundary.cost_beside(&stays(&shard.inputs), &stays(&shard.outputs)), chip);
            layers(&graph).iter().for_each(|layer| cost.add(&chip.layer(&graph, layer), chip));
        }
        Ok(cost.of_one(model))
    }

    /// A network of which only the time is known.
    pub fn of_us(micros: f64) -> Self {
        NetworkCost { phases: vec![[micros, 0.0]], ..NetworkCost::default() }
    }

    /// The share of one of the items that the model takes at once.
    fn of_one(mut self, model: &Model) -> Self {
        let items = model.inputs.first().and_then(|t| t.shape.first()).map_or(1, |&b| b.max(1));
        self.phases.iter_mut().flatten().for_each(|us| *us /= items as f64);
        self.cycles /= items as u64;
        self.bytes /= items as u64;
        self
    }

    fn add(&mut self, cost: &OpCost, chip: &Rk3588) {
        if cost.micros > 0.0 {
            self.phases.push([cost.micros, chip.streaming_micros(cost)]);
        }
        self.cycles += cost.cycles.unwrap_or(0);
        self.bytes += cost.dram_bytes;
    }

    /// Microseconds alone.
    pub fn micros(&self) -> f64 {
        self.phases.iter().map(|[micros, _]| micros).sum()
    }

    /// Its phases, for the clock.
    pub fn clocked(&self) -> Vec<Phase> {
        self.phases.iter().map(|&[micros, streaming]| Phase { micros, streaming }).collect()
    }
}
