//! Samplers: how a latent comes from noise to a picture, numerically as diffusers' schedulers in float32.
//!
//! A [`Sampler`] belongs to a model and holds its noise schedule; [`Sampler::run`] lays out the steps of one picture, and a [`History`] is what a sampler of several
//! steps keeps of those before. In all of them the U-Net's output at a step gives a clean latent and the noise in it, from which the latent of the next level is
//! put together.

mod ddim;
mod dpm;
mod euler;
mod lcm;
mod name;
mod pndm;
mod spacing;
mod tcd;

pub use lcm::{LcmSampler, Step};
pub use name::SamplerName;

use crate::{SamplerConfig, SamplerError};
use lcm::Prediction;

/// The sampler of a model.
#[derive(Clone, Debug)]
pub struct Sampler {
    name: SamplerName,
    config: SamplerConfig,
    lcm: LcmSampler,
    /// Signal shares at each level of the training.
    shares: Vec<f64>,
    prediction: Prediction,
}

/// The steps of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the U-Net is told at each step, descending.
    pub timesteps: Vec<f64>,
    /// Noise alone is this many times standard normal noise where a run starts.
    pub start: f64,
    steps: Steps,
}

/// What a run's steps are computed from.
#[derive(Clone, Debug)]
enum Steps {
    Lcm(Vec<i64>),
    Tcd(Vec<tcd::TcdStep>),
    Ddim(Vec<ddim::DdimStep>),
    Pndm(Vec<pndm::PndmStep>),
    /// Noise levels from the first step on, one more than there are steps; whether noise is added.
    Euler(Vec<f64>, bool),
    Dpm(dpm::DpmSteps),
}

/// What a sampler of several steps keeps of a latent's earlier ones.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Outputs or clean latents, the last one last.
    outputs: Vec<Vec<f32>>,
    /// The latent of a step that is taken twice.
    latent: Vec<f32>,
}

impl Sampler {
    /// The sampler that a configuration names, or another one with its noise schedule.
    ///
    /// # Errors
    /// A scheduler that is not there, or settings of it that are not supported.
    pub fn new(config: &SamplerConfig, name: Option<SamplerName>) -> Result<Self, SamplerError> {
        let name = match name {
            Some(name) => name,
            None => SamplerName::of(config)?,
        };
        spacing::check(config, name)?;
        let lcm = LcmSampler::new(config)?;
        let shares = config.signal_shares()?.into_iter().map(f64::from).collect();
        Ok(Sampler { name, config: config.clone(), prediction: lcm.prediction(), lcm, shares })
    }

    /// Which one it is.
    pub fn name(&self) -> SamplerName {
        self.name
    }

    /// The steps of a run. `strength` below 1 starts nearer to the clean latent (image to image).
    ///
    /// # Errors
    /// No steps, more than the schedule has levels, or a strength outside (0, 1] or that leaves no step.
    pub fn run(&self, steps: usize, strength: f64) -> Result<Run, SamplerError> {
        if self.name == SamplerName::Lcm {
            let timesteps = self.lcm.timesteps(steps, strength)?;
            let told = timesteps.iter().map(|&t| t as f64).collect();
            return Ok(Run { timesteps: told, start: 1.0, steps: Steps::Lcm(timesteps) });
        }
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(SamplerError::Strength(strength));
        }
        let levels = self.shares.len();
        if steps > levels {
            return Err(SamplerError::TooManySteps { steps, strength, available: levels });
        }
        match self.name {
            SamplerName::Lcm | SamplerName::Tcd => self.tcd(steps, strength),
            SamplerName::Ddim => self.ddim(steps, strength),
            SamplerName::Pndm => self.pndm(steps, strength),
            SamplerName::Euler => self.euler(steps, strength, false),
            SamplerName::EulerAncestral => self.euler(steps, strength, true),
            SamplerName::Dpm => self.dpm(steps, strength, self.config.use_karras_sigmas),
            SamplerName::DpmKarras => self.dpm(steps, strength, true),
        }
    }

    /// A clean latent with noise of the level that a run has before step `index`; behind its last step there is none.
    ///
    /// # Errors
    /// Noise of another length.
    pub fn noised(
        &self,
        run: &Run,
        index: usize,
        clean: &[f32],
        noise: &[f32],
    ) -> Result<Vec<f32>, SamplerError> {
        lcm::same_length("the noise", clean, noise)?;
        if index >= run.timesteps.len() {
            return Ok(clean.to_vec());
        }
        if let Steps::Lcm(timesteps) = &run.steps {
            return self.lcm.add_noise(timesteps[index], clean, noise);
        }
        let (signal, sigma) = self.levels_of(run, index);
        Ok(combined([(signal, clean), (sigma, noise)]))
    }

    /// The clean latent that the U-Net's output at a step stands for.
    ///
    /// # Errors
    /// An index out of range, or an output of another length.
    pub fn guess(
        &self,
        run: &Run,
        index: usize,
        output: &[f32],
        latent: &[f32],
    ) -> Result<Vec<f32>, SamplerError> {
        let steps = run.timesteps.len();
        if index >= steps {
            return Err(SamplerError::Index { index, steps });
        }
        lcm::same_length("the U-Net's output", latent, output)?;
        if let Steps::Lcm(timesteps) = &run.steps {
            return Ok(self.lcm.step(timesteps, index, output, latent, latent)?.denoised);
        }
        let (signal, sigma) = self.levels_of(run, index);
        // Latents whose signal is whole are scaled to those of a share first.
        let norm = (signal * signal + sigma * sigma).sqrt();
        let [of_latent, of_output] = self.clean((signal / norm, sigma / norm));
        Ok(combined([(of_latent / norm, latent), (of_output, output)]))
    }

    /// Factors of signal and noise in a latent before a step.
    fn levels_of(&self, run: &Run, index: usize) -> (f64, f64) {
        match &run.steps {
            Steps::Euler(sigmas, _) => (1.0, sigmas[index]),
            Steps::Dpm(steps) => steps.levels(index),
            Steps::Lcm(_) | Steps::Tcd(_) | Steps::Ddim(_) | Steps::Pndm(_) => {
                self.levels(run.timesteps[index] as i64)
            }
        }
    }

    /// A latent as the U-Net takes it at a step.
    pub fn scaled(&self, run: &Run, index: usize, latent: &[f32]) -> Vec<f32> {
        match &run.steps {
            Steps::Euler(sigmas, _) => {
                let scale = (sigmas[index] * sigmas[index] + 1.0).sqrt().recip();
                combined([(scale, latent)])
            }
            _ => latent.to_vec(),
        }
    }

    /// The latent behind a step of the run, from the U-Net's output at it. `noise` is standard normal; a step that needs none does not look at it.
    ///
    /// # Errors
    /// An index out of range, or latents of different lengths.
    pub fn step(
        &self,
        run: &Run,
        index: usize,
        history: &mut History,
        output: &[f32],
        latent: &[f32],
        noise: &[f32],
    ) -> Result<Vec<f32>, SamplerError> {
        let steps = run.timesteps.len();
        if index >= steps {
            return Err(SamplerError::Index { index, steps });
        }
        if let Steps::Lcm(timesteps) = &run.steps {
            return Ok(self.lcm.step(timesteps, index, output, latent, noise)?.previous);
        }
        lcm::same_length("the U-Net's output", latent, output)?;
        if self.needs_noise(run, index) {
            lcm::same_length("the noise", latent, noise)?;
        }
        Ok(match &run.steps {
            Steps::Lcm(_) => Vec::new(),
            Steps::Tcd(steps) => self.tcd_step(&steps[index], output, latent, noise),
            Steps::Ddim(steps) => self.ddim_step(&steps[index], output, latent),
            Steps::Pndm(steps) => self.pndm_step(&steps[index], history, output, latent),
            Steps::Euler(sigmas, ancestral) => {
                let between = [sigmas[index], sigmas[index + 1]];
                self.euler_step(between, *ancestral, output, latent, noise)
            }
            Steps::Dpm(steps) => self.dpm_step(steps, index, history, output, latent),
        })
    }

    /// Whether a step adds fresh noise.
    pub fn needs_noise(&self, run: &Run, index: usize) -> bool {
        let last = index + 1 == run.timesteps.len();
        match run.steps {
            Steps::Lcm(_) | Steps::Tcd(_) => !last,
            Steps::Euler(_, ancestral) => ancestral,
            Steps::Ddim(_) | Steps::Pndm(_) | Steps::Dpm(_) => false,
        }
    }

    /// Roots of the shares of signal and of noise at a level of the training.
    fn levels(&self, timestep: i64) -> (f64, f64) {
        let share = self.share(timestep);
        (share.sqrt(), (1.0 - share).sqrt())
    }

    /// The share of signal at a level of the training; behind the last one, that of a finished picture.
    fn share(&self, timestep: i64) -> f64 {
        match usize::try_from(timestep) {
            Ok(timestep) => self.shares[timestep.min(self.shares.len() - 1)],
            Err(_) if self.config.set_alpha_to_one => 1.0,
            Err(_) => self.shares[0],
        }
    }

    /// Factors of latent and output in the clean latent, where signal and noise have these shares' roots.
    fn clean(&self, (signal, sigma): (f64, f64)) -> [f64; 2] {
        match self.prediction {
            Prediction::Epsilon => [1.0 / signal, -sigma / signal],
            Prediction::Sample => [0.0, 1.0],
            Prediction::Velocity => [signal, -sigma],
        }
    }

    /// The same in the noise.
    fn noise(&self, (signal, sigma): (f64, f64)) -> [f64; 2] {
        match self.prediction {
            Prediction::Epsilon => [0.0, 1.0],
            Prediction::Sample => [1.0 / sigma, -signal / sigma],
            Prediction::Velocity => [sigma, signal],
        }
    }
}

/// The sum of latents times factors.
fn combined<const N: usize>(parts: [(f64, &[f32]); N]) -> Vec<f32> {
    let value = |at: usize| parts.iter().map(|(f, v)| f * f64::from(v[at])).sum::<f64>() as f32;
    (0..parts[0].1.len()).map(value).collect()
}
