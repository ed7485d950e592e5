//! Figures of every model of a pack in every parallel mode, and the best of them.

use crate::{Figures, ModelCost, Parallel, PlanError, figures};
use rockshard_cost::Rk3588;
use rockshard_manifest::{Manifest, Optimise};
use serde::Serialize;
use std::path::Path;

/// A model's figures in all modes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelPlan {
    /// Part name.
    pub model: String,
    /// Picture size.
    pub resolution: Option<[u32; 2]>,
    /// Microseconds of the graph as it came to the converter, on one core in one run; speed-ups are against it where it is known.
    pub unchanged_us: Option<f64>,
    /// Figures in each mode, on one core up to all of them.
    pub figures: Vec<Figures>,
    /// Index of the figures that were picked.
    pub picked: usize,
}

/// A pack's plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What the picks aim at.
    pub optimise: Optimise,
    /// Models in the pack's order.
    pub models: Vec<ModelPlan>,
    /// Prices the figures were made from.
    #[serde(skip)]
    pub costs: Vec<ModelCost>,
}

impl Plan {
    /// Plan every model of the pack in a directory, on at most `cores` cores.
    ///
    /// # Errors
    /// A shard's graph cannot be read.
    pub fn of(
        root: &Path,
        manifest: &Manifest,
        chip: &Rk3588,
        cores: u8,
        optimise: Optimise,
    ) -> Result<Self, PlanError> {
        let costs = manifest
            .models
            .iter()
            .map(|m| ModelCost::read(root, m, chip))
            .collect::<Result<Vec<_>, _>>()?;
        let models = (costs.iter().zip(&manifest.models))
            .map(|(cost, model)| {
                let unchanged_us = model.unchanged_us;
                ModelPlan { unchanged_us, ..plan(cost, chip, cores, optimise) }
            })
            .collect();
        Ok(Plan { optimise, models, costs })
    }
}

impl ModelPlan {
    /// The figures that were picked.
    pub fn best(&self) -> &Figures {
        &self.figures[self.picked]
    }

    /// Microseconds that speed-ups are against: those of the unchanged graph, or of the pack, on one core.
    pub fn baseline_us(&self) -> f64 {
        self.unchanged_us.unwrap_or(self.figures[0].latency_us)
    }
}

fn plan(cost: &ModelCost, chip: &Rk3588, cores: u8, optimise: Optimise) -> ModelPlan {
    let memory = chip.memory();
    let mut found = vec![figures(cost, Parallel::Replicate, 1, memory)];
    for n in 2..=cores {
        found.extend(Parallel::ALL.map(|mode| figures(cost, mode, n, memory)));
    }
    let aim = |f: &Figures| match optimise {
        Optimise::Latency => [f.latency_us, f.interval_us],
        Optimise::Throughput => [f.interval_us, f.latency_us],
        Optimise::Memory => [f.resident_bytes as f64, f.latency_us],
    };
    // The runtime does not use the vendor's mask. Fewer cores where more bring nothing.
    let runs = found.iter().enumerate().filter(|(_, f)| f.mode != Parallel::Mask);
    let better = |a: &(usize, &Figures), b: &(usize, &Figures)| {
        let ([a0, a1], [b0, b1]) = (aim(a.1), aim(b.1));
        let same = |x: f64, y: f64| (x - y).abs() <= 1e-9 * x.abs().max(y.abs());
        if same(a0, b0) {
            if same(a1, b1) { std::cmp::Ordering::Equal } else { a1.total_cmp(&b1) }
        } else {
            a0.total_cmp(&b0)
        }
    };
    let picked = runs.min_by(better).map_or(0, |(i, _)| i);
    ModelPlan {
        model: cost.name.clone(),
        resolution: cost.resolution,
        unchanged_us: None,
        figures: found,
        picked,
    }
}
