//! A stream of frames on the virtual clock: each frame is encoded, goes through rows of the U-Net, and is decoded, on whichever core has
//! the fewest before it; so many frames are on their way at a time.

use crate::network::items;
use crate::{NetworkCost, PlanError};
use rockshard_clock::{Memory, Task, simulate_replicated};
use rockshard_cost::Rk3588;
use rockshard_manifest::{Manifest, Role};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the networks of a text-to-image model take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamCosts {
    /// What the pack was made of.
    pub title: String,
    /// A row.
    pub unet: NetworkCost,
    /// The VAE's encoder and decoder.
    pub whole: [NetworkCost; 2],
    /// The tiny autoencoder's, where there is one.
    pub tiny: Option<[NetworkCost; 2]>,
    /// Microseconds of the graphs as they came to the converter, in the same order.
    pub unchanged: UnchangedCosts,
}

/// Microseconds of networks as they came to the converter, each on one core in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnchangedCosts {
    /// A row.
    pub unet: f64,
    /// The VAE's encoder and decoder.
    pub whole: [f64; 2],
    /// The tiny autoencoder's.
    pub tiny: Option<[f64; 2]>,
}

/// What a frame takes.
#[derive(Clone, Debug)]
pub struct FrameCost<'a> {
    /// What makes its latent.
    pub encoder: &'a NetworkCost,
    /// What does its rows.
    pub unet: &'a NetworkCost,
    /// What makes its picture.
    pub decoder: &'a NetworkCost,
    /// Rows of each of its levels, which do not wait for each other.
    pub rows: Vec<usize>,
}

/// Modelled figures of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StreamFigures {
    /// Microseconds from one frame to the next, in steady state.
    pub interval_us: f64,
    /// Microseconds from a frame's start to its picture, in steady state.
    pub latency_us: f64,
    /// Cores' worth of work alone that is done at a time: below their number by what they wait for each other and for the memory.
    pub busy: f64,
}

/// Frames that are simulated for each that is on its way, and that are not counted at either end.
const ROUNDS: usize = 20;
const WARM: usize = 2;

impl StreamCosts {
    /// SD 1.5 LCM with TAESD at 512x512 as `convert --placement replicate` makes it, recorded by the example `record_costs`.
    ///
    /// # Panics
    /// Never: a test reads the record.
    pub fn sd15() -> Self {
        serde_json::from_str(include_str!("sd15.json")).expect("the record is read by a test")
    }

    /// Price the pack in a directory.
    ///
    /// # Errors
    /// It has no U-Net, VAE encoder or decoder, or a shard's graph cannot be read.
    pub fn read(root: &Path, manifest: &Manifest, chip: &Rk3588) -> Result<Self, StreamCostError> {
        let find = |role| manifest.models.iter().find(|m| m.role == role);
        let known = |role| find(role).ok_or(StreamCostError::Missing(role));
        let price = |role| Ok::<_, StreamCostError>(NetworkCost::read(root, known(role)?, chip)?);
        let unchanged = |role| {
            let model = known(role)?;
            let us = model.unchanged_us.ok_or(StreamCostError::Unpriced(role))?;
            Ok::<_, StreamCostError>(us / items(model) as f64)
        };
        let [encoder, decoder] = [Role::TinyEncoder, Role::TinyDecoder];
        let has_tiny = find(encoder).is_some() && find(decoder).is_some();
        let tiny = if has_tiny { Some([price(encoder)?, price(decoder)?]) } else { None };
        let unchanged_tiny =
            if has_tiny { Some([unchanged(encoder)?, unchanged(decoder)?]) } else { None };
        Ok(StreamCosts {
            title: root.display().to_string(),
            unet: price(Role::Unet)?,
            whole: [price(Role::VaeEncoder)?, price(Role::VaeDecoder)?],
            tiny,
            unchanged: UnchangedCosts {
                unet: unchanged(Role::Unet)?,
                whole: [unchanged(Role::VaeEncoder)?, unchanged(Role::VaeDecoder)?],
                tiny: unchanged_tiny,
            },
        })
    }
}

/// A pack whose streams cannot be priced.
#[derive(Debug, thiserror::Error)]
pub enum StreamCostError {
    /// A network is missing.
    #[error("it has no {0}")]
    Missing(Role),
    /// The pack is of an older version, which did not price the graphs that it was given.
    #[error("it does not say what its {0} takes unchanged; convert the model again")]
    Unpriced(Role),
    /// A graph cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Let frames stream over `cores` cores, `on_their_way` of them at a time, each row whole on one core.
pub fn stream(
    cost: &FrameCost<'_>,
    cores: u8,
    on_their_way: usize,
    memory: Memory,
) -> StreamFigures {
    let on_their_way = on_their_way.max(1);
    let count = ROUNDS * on_their_way.max(usize::from(cores));
    let rows = cost.rows.iter().map(|&rows| (cost.unet, rows));
    let stages: Vec<(&NetworkCost, usize)> =
        [(cost.encoder, 1)].into_iter().chain(rows).chain([(cost.decoder, 1)]).collect();
    let phases: Vec<_> = stages.iter().map(|(network, _)| network.clocked()).collect();
    let mut tasks: Vec<Task> = Vec::new();
    // The first and the last tasks of each frame.
    let mut frames: Vec<(usize, Vec<usize>)> = Vec::new();
    for n in 0..count {
        let first = tasks.len();
        // A frame is admitted when the one that makes room for it is over.
        let mut last = n.checked_sub(on_their_way).map_or(Vec::new(), |b| frames[b].1.clone());
        for ((_, items), phases) in stages.iter().zip(&phases) {
            let task = Task { item: n, needs: last, phases: phases.clone(), ..Task::default() };
            last = (tasks.len()..tasks.len() + items).collect();
            tasks.extend(std::iter::repeat_n(task, *items));
        }
        frames.push((first, last));
    }
    let schedule = simulate_replicated(&tasks, cores, memory);
    let end = |(_, last): &(usize, Vec<usize>)| {
        last.iter().map(|&t| schedule.spans[t].end_us).fold(0.0, f64::max)
    };
    let mut ends: Vec<f64> = frames.iter().map(end).collect();
    let latencies = frames.iter().map(|f| end(f) - schedule.spans[f.0].start_us);
    let warm = WARM * on_their_way.max(usize::from(cores));
    let counted = count - 2 * warm;
    let latency_us = latencies.skip(warm).take(counted).sum::<f64>() / counted as f64;
    ends.sort_by(f64::total_cmp);
    let interval_us = (ends[count - warm - 1] - ends[warm - 1]) / counted as f64;
    let work: f64 = stages.iter().map(|(n, items)| n.micros() * *items as f64).sum();
    StreamFigures { interval_us, latency_us, busy: work / interval_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_of_sd_15() {
        let costs = StreamCosts::sd15();
        let seconds = |n: &NetworkCost| n.micros() / 1e6;
        assert!((4.5..6.0).contains(&seconds(&costs.unet)), "{}", seconds(&costs.unet));
        assert!((5.0e6..6.0e6).contains(&costs.unchanged.unet));
        assert!(costs.tiny.is_some_and(|tiny| tiny.iter().all(|n| seconds(n) < 0.5)));
    }
}
