//! The levels of noise that a stream's frames go through, in float64.

use crate::{LcmSampler, SamplerError};

/// One entry of the t-index list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Timestep, in the steps of training.
    pub timestep: i64,
    /// Share of the signal: sqrt(alphas_cumprod).
    pub alpha: f64,
    /// Share of the noise: sqrt(1 - alphas_cumprod).
    pub beta: f64,
    /// `c_skip` of the consistency function.
    pub skip: f64,
    /// `c_out` of it.
    pub out: f64,
    /// Largest magnitude of a predicted latent, for a sampler that clips.
    pub clip: Option<f64>,
}

impl Level {
    /// The levels at indices into a schedule of `steps` timesteps.
    ///
    /// # Errors
    /// No index, one that is beyond the schedule, or that does not ascend.
    pub fn all(
        sampler: &LcmSampler,
        steps: usize,
        indices: &[usize],
    ) -> Result<Vec<Level>, SamplerError> {
        if indices.is_empty() {
            return Err(SamplerError::NoSteps);
        }
        let timesteps = sampler.timesteps(steps, 1.0)?;
        let mut before = None;
        let level = |&index: &usize| {
            let timestep = *timesteps.get(index).ok_or(SamplerError::Index { index, steps })?;
            if before.is_some_and(|b| b >= index) {
                return Err(SamplerError::NotAscending(indices.to_vec()));
            }
            before = Some(index);
            sampler.level(timestep)
        };
        indices.iter().map(level).collect()
    }

    /// What the consistency function gives for a value with this noise in it.
    pub fn denoised(&self, value: f64, noise: f64) -> f64 {
        let clean = (value - self.beta * noise) / self.alpha;
        let clean = self.clip.map_or(clean, |range| clean.clamp(-range, range));
        self.out * clean + self.skip * value
    }

    /// A clean value with noise.
    pub fn noisy(&self, clean: f32, noise: f32) -> f32 {
        (self.alpha * f64::from(clean) + self.beta * f64::from(noise)) as f32
    }
}
