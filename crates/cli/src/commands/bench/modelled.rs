//! What streams take on the chip.

use super::{Way, settings};
use rockshard::{GROUPS_BESIDE_CORES, Rk3588, StreamConfig};
use rockshard_plan::{FrameCost, NetworkCost, StreamCosts, StreamFigures, UnchangedCosts, stream};
use serde::Serialize;

/// Networks on the virtual clock.
pub struct Modelled {
    chip: Rk3588,
    costs: StreamCosts,
    cores: u8,
}

/// What the chip could do for a stream at most, and what of it is reached.
#[derive(Debug, Serialize)]
pub struct Roof {
    /// Levels of a frame.
    pub steps: usize,
    /// Frames a second if the matrix units of all cores worked at their peak all the time.
    pub compute: f64,
    /// Frames a second if the memory gave its most all the time.
    pub memory: f64,
    /// Frames a second, modelled.
    pub reached: f64,
}

impl Modelled {
    /// Model these networks on so many cores.
    pub fn new(costs: StreamCosts, cores: u8) -> Self {
        Modelled { chip: Rk3588::default(), costs, cores }
    }

    /// What is modelled.
    pub fn title(&self) -> &str {
        &self.costs.title
    }

    /// Whether it has a tiny autoencoder.
    pub fn is_tiny(&self) -> bool {
        self.costs.tiny.is_some()
    }

    /// A frame of the pack's networks.
    fn frame(&self, way: &Way) -> FrameCost<'_> {
        let [encoder, decoder] = match &self.costs.tiny {
            Some(tiny) if !way.whole_vae => tiny,
            _ => &self.costs.whole,
        };
        FrameCost { encoder, unet: &self.costs.unet, decoder, rows: rows(way) }
    }

    /// Microseconds of a frame of the unchanged graphs, one after the other on one core.
    fn unchanged(&self, way: &Way) -> StreamFigures {
        let UnchangedCosts { unet, whole, tiny } = &self.costs.unchanged;
        let ends = tiny.filter(|_| !way.whole_vae).unwrap_or(*whole);
        let [encoder, decoder] = ends.map(NetworkCost::of_us);
        let unet = NetworkCost::of_us(*unet);
        let frame =
            FrameCost { encoder: &encoder, unet: &unet, decoder: &decoder, rows: rows(way) };
        stream(&frame, 1, 1, self.chip.memory())
    }

    /// Modelled figures of a way.
    pub fn figures(&self, way: &Way) -> StreamFigures {
        if way.unchanged {
            return self.unchanged(way);
        }
        let on_their_way =
            if way.batch { usize::from(self.cores) + GROUPS_BESIDE_CORES } else { 1 };
        stream(&self.frame(way), self.cores, on_their_way, self.chip.memory())
    }

    /// Frames a second over those of the rows alone.
    pub fn hidden(&self, way: &Way) -> f64 {
        let none = NetworkCost::default();
        let whole = self.frame(way);
        let rows = FrameCost { encoder: &none, decoder: &none, ..whole.clone() };
        let on_their_way = usize::from(self.cores) + GROUPS_BESIDE_CORES;
        let interval =
            |f: &FrameCost<'_>| stream(f, self.cores, on_their_way, self.chip.memory()).interval_us;
        interval(&rows) / interval(&whole)
    }

    /// The chip's limits for a stream without guidance of so many levels.
    pub fn roof(&self, steps: usize) -> Roof {
        let way = Way { steps, ..super::USUAL };
        let FrameCost { encoder, unet, decoder, .. } = self.frame(&way);
        let sum = |of: fn(&NetworkCost) -> u64| {
            (of(encoder) + of(decoder)) as f64 + of(unet) as f64 * steps as f64
        };
        Roof {
            steps,
            compute: self.chip.clock_hz * f64::from(self.cores) / sum(|n| n.cycles),
            memory: self.chip.memory().shared_bytes_per_second / sum(|n| n.bytes),
            reached: 1e6 / self.figures(&way).interval_us,
        }
    }
}

/// Rows of each level.
fn rows(way: &Way) -> Vec<usize> {
    let steer = settings(way).steer(&StreamConfig::default());
    (0..way.steps).map(|step| steer.rows(step)).collect()
}
