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

    /// Mode and cores that are best for all models together: by the sum over the models of what the picks aim at.
    pub fn together(&self) -> Option<(Parallel, u8)> {
        let figures = &self.models.first()?.figures;
        let sum = |i: usize| {
            let all = self.models.iter().map(|m| aims(&m.figures[i], self.optimise));
            all.fold([0.0; 2], |sum, aim| [sum[0] + aim[0], sum[1] + aim[1]])
        };
        let sums: Vec<[f64; 2]> = (0..figures.len()).map(sum).collect();
        figures.get(best(figures, &sums)).map(|f| (f.mode, f.cores))
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
    let aims: Vec<[f64; 2]> = found.iter().map(|f| aims(f, optimise)).collect();
    let picked = best(&found, &aims);
    ModelPlan {
        model: cost.name.clone(),
        resolution: cost.resolution,
        unchanged_us: None,
        figures: found,
        picked,
    }
}

/// What is to be small, and what decides where that is the same.
fn aims(f: &Figures, optimise: Optimise) -> [f64; 2] {
    match optimise {
        Optimise::Latency => [f.latency_us, f.interval_us],
        Optimise::Throughput => [f.interval_us, f.latency_us],
        Optimise::Memory => [f.resident_bytes as f64, f.latency_us],
    }
}

/// Index of the figures with the least aims; the first of several, as more cores that bring nothing are none the better. The vendor's mask is
/// left out, as the runtime does not use it.
fn best(figures: &[Figures], aims: &[[f64; 2]]) -> usize {
    let better = |&a: &usize, &b: &usize| {
        let ([a0, a1], [b0, b1]) = (aims[a], aims[b]);
        let same = |x: f64, y: f64| (x - y).abs() <= 1e-9 * x.abs().max(y.abs());
        if same(a0, b0) {
            if same(a1, b1) { std::cmp::Ordering::Equal } else { a1.total_cmp(&b1) }
        } else {
            a0.total_cmp(&b0)
        }
    };
    let runs = (0..figures.len()).filter(|&i| figures[i].mode != Parallel::Mask);
    runs.min_by(better).unwrap_or(0)
}
