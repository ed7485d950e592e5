//! Denoising diffusion implicit models (Song et al. 2021), without noise between steps (eta 0), as diffusers' `DDIMScheduler`.

use super::spacing::{Spacing, skipped};
use super::{Run, Sampler, Steps};
use crate::SamplerError;

/// Roots of the shares of signal and noise before a step and behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DdimStep {
    now: (f64, f64),
    next: (f64, f64),
}

impl Sampler {
    pub(super) fn ddim(&self, steps: usize, strength: f64) -> Result<Run, SamplerError> {
        let mut timesteps = self.spaced(steps);
        if self.spacing() == Spacing::Linspace {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        timesteps.drain(..skipped(steps, strength)?);
        let stride = (self.shares.len() / steps) as i64;
        let step = |&t: &f64| DdimStep {
            now: self.levels(t as i64),
            next: self.levels(t as i64 - stride),
        };
        let steps = Steps::Ddim(timesteps.iter().map(step).collect());
        Ok(Run { timesteps, start: 1.0, steps })
    }

    pub(super) fn ddim_step(&self, step: &DdimStep, output: &[f32], latent: &[f32]) -> Vec<f32> {
        let (clean, noise) = (self.clean(step.now), self.noise(step.now));
        let value = |(&x, &f): (&f32, &f32)| {
            let (x, f) = (f64::from(x), f64::from(f));
            let mut denoised = clean[0] * x + clean[1] * f;
            if self.config.clip_sample {
                let range = self.config.clip_sample_range;
                denoised = denoised.clamp(-range, range);
            }
            let noise = noise[0] * x + noise[1] * f;
            (step.next.0 * denoised + step.next.1 * noise) as f32
        };
        latent.iter().zip(output).map(value).collect()
    }
}
