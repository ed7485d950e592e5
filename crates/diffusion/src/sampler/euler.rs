//! Euler's method over noise levels, plain and ancestral, as diffusers' `EulerDiscreteScheduler` and `EulerAncestralDiscreteScheduler` (Karras et al. 2022). Latents
//! are signal plus noise of the level here, and are scaled for the U-Net.

use super::lcm::Prediction;
use super::spacing::{Spacing, skipped};
use super::{Run, Sampler, Steps, combined};
use crate::SamplerError;

impl Sampler {
    pub(super) fn euler(
        &self,
        steps: usize,
        strength: f64,
        ancestral: bool,
    ) -> Result<Run, SamplerError> {
        let mut timesteps = self.spaced(steps);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| self.sigma(t)).collect();
        if self.config.use_karras_sigmas && !ancestral {
            sigmas = self.karras(sigmas[0], sigmas[steps - 1], steps);
            timesteps = sigmas.iter().map(|&sigma| self.level(sigma)).collect();
        }
        sigmas.push(if ancestral { 0.0 } else { self.last_sigma() });
        let most = sigmas.iter().copied().fold(0.0, f64::max);
        let start = match self.spacing() {
            Spacing::Leading => (most * most + 1.0).sqrt(),
            Spacing::Trailing | Spacing::Linspace => most,
        };
        let skipped = skipped(steps, strength)?;
        timesteps.drain(..skipped);
        sigmas.drain(..skipped);
        Ok(Run { timesteps, start, steps: Steps::Euler(sigmas, ancestral) })
    }

    pub(super) fn euler_step(
        &self,
        [now, next]: [f64; 2],
        ancestral: bool,
        output: &[f32],
        latent: &[f32],
        noise: &[f32],
    ) -> Vec<f32> {
        // Of latent and output in the clean latent.
        let clean = match self.prediction {
            Prediction::Epsilon => [1.0, -now],
            Prediction::Sample => [0.0, 1.0],
            Prediction::Velocity => {
                let square = now * now + 1.0;
                [1.0 / square, -now / square.sqrt()]
            }
        };
        let up = if ancestral {
            (next * next * (now * now - next * next) / (now * now)).max(0.0).sqrt()
        } else {
            0.0
        };
        let down = (next * next - up * up).max(0.0).sqrt();
        let far = (down - now) / now;
        let (of_latent, of_output) = (1.0 + far * (1.0 - clean[0]), -far * clean[1]);
        if up > 0.0 {
            combined([(of_latent, latent), (of_output, output), (up, noise)])
        } else {
            combined([(of_latent, latent), (of_output, output)])
        }
    }
}
