//! What one run of a whole network takes on one core.

use crate::{ModelCost, PlanError};
use rockshard_clock::Phase;
use rockshard_cost::Rk3588;
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
        let items = items(model);
        let mut cost = NetworkCost::default();
        let shards = ModelCost::read(root, model, chip)?.shards;
        for shard in shards.iter().filter(|s| s.core != CoreId::Host) {
            let phases = shard.phases.iter();
            cost.phases.extend(phases.map(|p| [p.micros, p.streaming].map(|us| us / items as f64)));
            cost.cycles += shard.cycles / items;
            cost.bytes += shard.moved_bytes / items;
        }
        Ok(cost)
    }

    /// A network of which only the time is known.
    pub fn of_us(micros: f64) -> Self {
        NetworkCost { phases: vec![[micros, 0.0]], ..NetworkCost::default() }
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

/// Items that a model takes at once.
pub(crate) fn items(model: &Model) -> u64 {
    model.inputs.first().and_then(|t| t.shape.first()).map_or(1, |&items| items.max(1) as u64)
}
