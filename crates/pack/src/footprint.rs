//! The one formula of the device memory that models take.

use crate::Mode;
use rockshard_manifest::{CoreId, Manifest, Model};

/// Modelled device memory of a model: its weights, which cores share, and for each core the activations of its largest shard, since
/// a core runs one shard at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of activations, by core.
    pub activations: Vec<u64>,
}

impl Footprint {
    /// That of a model in a mode on `cores` cores.
    pub fn of(model: &Model, cores: usize, mode: Mode) -> Self {
        let shards = model.shards.iter().filter(|shard| shard.core != CoreId::Host);
        Self::sum(
            cores,
            shards.map(|shard| {
                let on = (0..cores).filter(|&lane| mode.holds(lane, shard.core, cores)).collect();
                (shard.weight_bytes, shard.modelled.internal_bytes, on)
            }),
        )
    }

    /// That of all models of a resolution (and those that have none), open together in the mode that the pack was converted for.
    pub fn of_all(manifest: &Manifest, resolution: Option<[u32; 2]>, cores: usize) -> Self {
        let mode = Mode::of(manifest.conversion.placement);
        let at_once = |m: &&Model| m.resolution.is_none() || m.resolution == resolution;
        let models = manifest.models.iter().filter(at_once);
        let all: Vec<_> = models.map(|m| Footprint::of(m, cores, mode)).collect();
        Footprint::together(&all)
    }

    /// That of shards, given as bytes of weights, bytes of activations, and the cores that hold them.
    pub fn sum(cores: usize, shards: impl IntoIterator<Item = (u64, u64, Vec<usize>)>) -> Self {
        let mut sum = Footprint { weights: 0, activations: vec![0; cores] };
        for (weights, activations, on) in shards {
            sum.weights += weights;
            for lane in on {
                sum.activations[lane] = sum.activations[lane].max(activations);
            }
        }
        sum
    }

    /// That of models which are open together: the sessions of a core share one memory of activations.
    pub fn together<'a>(models: impl IntoIterator<Item = &'a Footprint>) -> Self {
        let mut all = Footprint::default();
        for model in models {
            all.weights += model.weights;
            let lanes = all.activations.len().max(model.activations.len());
            all.activations.resize(lanes, 0);
            for (most, &own) in all.activations.iter_mut().zip(&model.activations) {
                *most = own.max(*most);
            }
        }
        all
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.weights + self.activations.iter().sum::<u64>()
    }
}
