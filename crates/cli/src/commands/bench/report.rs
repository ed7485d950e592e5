//! What `bench` found, as text.

use super::Row;
use super::measured::{Intervals, Still};
use super::modelled::Roof;
use crate::output::time;
use rockshard_plan::StreamFigures;
use serde::Serialize;

/// Everything that was found.
#[derive(Serialize)]
pub struct Report {
    pub measured_pack: String,
    pub measured_tiny: bool,
    pub modelled_pack: String,
    pub modelled_tiny: bool,
    /// Cores of the stream.
    pub cores: u8,
    pub rows: Vec<Row>,
    pub still: Still,
    pub hidden: Vec<Hidden>,
    pub throughput: Vec<Throughput>,
    pub roofs: Vec<Roof>,
}

/// Frames a second of a stream of so many levels over those of its rows alone.
#[derive(Serialize)]
pub struct Hidden {
    pub steps: usize,
    pub measured: f64,
    pub modelled: f64,
}

/// One way to let frames through.
#[derive(Serialize)]
pub struct Throughput {
    pub name: &'static str,
    pub measured: Intervals,
    pub modelled: StreamFigures,
}

impl Report {
    /// As blocks of text.
    pub fn text(&self) -> String {
        let mut blocks: Vec<String> = self.rows.iter().map(block).collect();
        let Still { given, drawn } = self.still;
        blocks.push(format!(
            "=== Similarity Filter ===\nEvery frame: {given} of {given} drawn\nStill scene: {drawn} of {given} drawn\nLess work: {:.2}x (counted)",
            given as f64 / drawn.max(1) as f64
        ));
        let mut hidden =
            "=== Encode and Decode ===\nFrames a second over those of the rows alone".to_owned();
        for Hidden { steps, measured, modelled } in &self.hidden {
            hidden +=
                &format!("\n{steps}-step stream: measured {measured:.3}, modelled {modelled:.3}");
        }
        blocks.push(hidden);
        blocks.extend(self.throughput.iter().map(Throughput::text));
        blocks.push(self.roofline());
        let tiny = |tiny| if tiny { "tiny autoencoder" } else { "whole VAE" };
        blocks.push(format!(
            "Measured on this machine: {} ({}). Modelled for {} cores of the RK3588: {} ({}).",
            self.measured_pack,
            tiny(self.measured_tiny),
            self.cores,
            self.modelled_pack,
            tiny(self.modelled_tiny),
        ));
        blocks.join("\n\n")
    }

    fn roofline(&self) -> String {
        let mut text = "=== Roofline (modelled) ===".to_owned();
        for Roof { steps, compute, memory, reached } in &self.roofs {
            let roof = compute.min(*memory);
            text += &format!(
                "\n{steps}-step stream: {reached:.3} frames a second of at most {roof:.3}, {:.0} %: arithmetic allows {compute:.3}, the memory {memory:.3}",
                reached / roof * 100.0,
            );
        }
        text + "\nStreamDiffusion's 91 frames a second (1 step) are an RTX 4090's."
    }
}

fn block(row: &Row) -> String {
    let mut text = format!("=== {} ===\n", row.name);
    for (side, word) in row.words.iter().enumerate() {
        let on = if side == 0 && row.unchanged_on_one_core {
            " on one core (measured: the pack as it is, a frame at a time)"
        } else {
            ""
        };
        text += &format!(
            "{word}: measured {}, modelled {}{on}\n",
            time(row.measured_us[side]),
            time(row.modelled_us[side]),
        );
    }
    text + &format!(
        "Speedup: measured {:.2}x, modelled {:.2}x",
        row.measured_ratio, row.modelled_ratio
    )
}

impl Throughput {
    fn text(&self) -> String {
        let Intervals { average_us, least_us, most_us, std_us } = self.measured;
        let fps = 1e6 / average_us;
        format!(
            "=== Throughput, {} ===\nAverage time: measured {}, modelled {}\nAverage FPS: measured {fps:.2}, modelled {:.3}\nBetween frames: measured {} to {}, standard deviation {}\nLatency: modelled {}",
            self.name,
            time(average_us),
            time(self.modelled.interval_us),
            1e6 / self.modelled.interval_us,
            time(least_us),
            time(most_us),
            time(std_us),
            time(self.modelled.latency_us),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let pair =
            |name, unchanged_on_one_core, measured_us: [f64; 2], modelled_us: [f64; 2]| Row {
                name,
                words: ["Sequential", "Stream"],
                measured_us,
                measured_ratio: measured_us[0] / measured_us[1],
                modelled_us,
                modelled_ratio: modelled_us[0] / modelled_us[1],
                unchanged_on_one_core,
            };
        let measured = Intervals { average_us: 5e4, least_us: 10.0, most_us: 9e4, std_us: 2e4 };
        let modelled = StreamFigures { interval_us: 4e6, latency_us: 2e7, busy: 2.9 };
        Report {
            measured_pack: "out/pack".into(),
            measured_tiny: true,
            modelled_pack: "SD 1.5".into(),
            modelled_tiny: false,
            cores: 3,
            rows: vec![
                pair("Stream Batch", false, [9e4, 6e4], [2e7, 8e6]),
                pair("Combined Pipeline", true, [1e6, 5e4], [5.6e8, 8e6]),
            ],
            still: Still { given: 110, drawn: 10 },
            hidden: vec![Hidden { steps: 4, measured: 0.7, modelled: 0.986 }],
            throughput: vec![Throughput { name: "multi", measured, modelled }],
            roofs: vec![Roof { steps: 1, compute: 3.2, memory: 0.9, reached: 0.45 }],
        }
    }

    /// Every figure has its block and both its sides, and says which of them is modelled.
    #[test]
    fn blocks_state_both_sides() {
        let text = report().text();
        for part in [
            "=== Stream Batch ===\nSequential: measured 90.00 ms, modelled 20.00 s\nStream: measured 60.00 ms, modelled 8.00 s\nSpeedup: measured 1.50x, modelled 2.50x",
            "modelled 560.00 s on one core (measured: the pack as it is, a frame at a time)",
            "Speedup: measured 20.00x, modelled 70.00x",
            "Still scene: 10 of 110 drawn\nLess work: 11.00x (counted)",
            "4-step stream: measured 0.700, modelled 0.986",
            "=== Throughput, multi ===\nAverage time: measured 50.00 ms, modelled 4.00 s\nAverage FPS: measured 20.00, modelled 0.250",
            "1-step stream: 0.450 frames a second of at most 0.900, 50 %",
            "out/pack (tiny autoencoder). Modelled for 3 cores of the RK3588: SD 1.5 (whole VAE).",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_chart_has_every_block() {
        let svg = super::super::chart::svg(&report()).unwrap();
        for part in ["<svg", "Stream Batch", "Combined Pipeline", "2.50x", "70.00x", "</svg>"] {
            assert!(svg.contains(part), "{part}");
        }
    }
}
