//! Trajectory consistency (Zheng et al. 2024), as diffusers' `TCDScheduler`: each step goes below the next level, and fresh noise leads up to it.

use super::spacing::skipped;
use super::{Run, Sampler, Steps, combined};
use crate::SamplerError;

/// How far below the next level a step goes.
const GAMMA: f64 = 0.3;

/// Roots of the shares of signal and noise before a step and below the next level, and the factors of latent and noise that lead up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcdStep {
    now: (f64, f64),
    below: (f64, f64),
    up: Option<(f64, f64)>,
}

impl Sampler {
    pub(super) fn tcd(&self, steps: usize, strength: f64) -> Result<Run, SamplerError> {
        // The distillation's levels, as those of LCM.
        let timesteps = self.lcm.timesteps(steps, 1.0)?;
        let step = |i: usize| {
            let next = timesteps.get(i + 1).copied();
            let below = ((1.0 - GAMMA) * next.unwrap_or(0) as f64).floor() as i64;
            let up = next.map(|next| {
                let share = self.share(next) / self.share(below);
                (share.sqrt(), (1.0 - share).sqrt())
            });
            TcdStep { now: self.levels(timesteps[i]), below: self.levels(below), up }
        };
        let skipped = skipped(steps, strength)?;
        Ok(Run {
            timesteps: timesteps[skipped..].iter().map(|&t| t as f64).collect(),
            start: 1.0,
            steps: Steps::Tcd((skipped..steps).map(step).collect()),
        })
    }

    pub(super) fn tcd_step(
        &self,
        step: &TcdStep,
        output: &[f32],
        latent: &[f32],
        noise: &[f32],
    ) -> Vec<f32> {
        let (clean, inside) = (self.clean(step.now), self.noise(step.now));
        let (signal, sigma) = step.below;
        let factor = |at: usize| signal * clean[at] + sigma * inside[at];
        match step.up {
            Some((kept, fresh)) => {
                combined([(kept * factor(0), latent), (kept * factor(1), output), (fresh, noise)])
            }
            None => combined([(factor(0), latent), (factor(1), output)]),
        }
    }
}
