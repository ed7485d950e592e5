//! The latent consistency sampler (Luo et al. 2023), numerically as diffusers' `LCMScheduler` in float32.
//!
//! At timestep t with signal share a = alphas_cumprod\[t\], the U-Net's output gives a clean latent x0; the consistency function
//! mixes it with the noisy one, `c_out x0 + c_skip x`; between steps fresh noise brings it to the next level,
//! `sqrt(a') denoised + sqrt(1 - a') noise`.

use crate::stream::Level;
use crate::{SamplerConfig, SamplerError};

/// Standard deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f32 = 0.5;

/// Largest number of training levels that is believed.
const MOST_LEVELS: usize = 100_000;

/// What a U-Net's output is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prediction {
    Epsilon,
    Sample,
    Velocity,
}

/// Result of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Latent the next step starts from; equal to `denoised` at the last step.
    pub previous: Vec<f32>,
    /// The model's estimate of the clean latent.
    pub denoised: Vec<f32>,
}

/// The sampler of one model; holds its noise schedule and no state of a run.
#[derive(Clone, Debug)]
pub struct LcmSampler {
    shares: Vec<f32>,
    prediction: Prediction,
    original_steps: usize,
    scaling: f32,
    clip: Option<f32>,
}

impl LcmSampler {
    /// The sampler a configuration describes.
    ///
    /// # Errors
    /// Values that are out of range or name something not supported.
    pub fn new(config: &SamplerConfig) -> Result<Self, SamplerError> {
        let refuse =
            |field, value: String, expected| Err(SamplerError::Config { field, value, expected });
        let levels = config.trained_betas.as_ref().map_or(config.num_train_timesteps, Vec::len);
        if !(1..=MOST_LEVELS).contains(&levels) {
            return refuse(
                "num_train_timesteps",
                levels.to_string(),
                "it must be between 1 and 100000",
            );
        }
        if !(1..=levels).contains(&config.original_inference_steps) {
            let value = config.original_inference_steps.to_string();
            return refuse(
                "original_inference_steps",
                value,
                "it must be between 1 and num_train_timesteps",
            );
        }
        if !(config.timestep_scaling.is_finite() && config.timestep_scaling > 0.0) {
            return refuse(
                "timestep_scaling",
                config.timestep_scaling.to_string(),
                "it must be a positive number",
            );
        }
        if config.clip_sample
            && !(config.clip_sample_range.is_finite() && config.clip_sample_range > 0.0)
        {
            return refuse(
                "clip_sample_range",
                config.clip_sample_range.to_string(),
                "it must be a positive number",
            );
        }
        if config.thresholding {
            return refuse(
                "thresholding",
                "true".into(),
                "dynamic thresholding is not supported, it does not suit latents; set it to false",
            );
        }
        if config.rescale_betas_zero_snr {
            return refuse(
                "rescale_betas_zero_snr",
                "true".into(),
                "rescaled schedules are not supported; set it to false",
            );
        }
        let prediction = match config.prediction_type.as_str() {
            "epsilon" => Prediction::Epsilon,
            "sample" => Prediction::Sample,
            "v_prediction" => Prediction::Velocity,
            other => {
                let expected = "supported are \"epsilon\", \"sample\" and \"v_prediction\"";
                return refuse("prediction_type", format!("{other:?}"), expected);
            }
        };
        Ok(LcmSampler {
            shares: config.signal_shares()?,
            prediction,
            original_steps: config.original_inference_steps,
            scaling: config.timestep_scaling as f32,
            clip: config.clip_sample.then_some(config.clip_sample_range as f32),
        })
    }

    /// What the U-Net predicts.
    pub(super) fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Timesteps of a run, descending. `strength` below 1 starts nearer to the clean latent (image to image).
    ///
    /// # Errors
    /// No steps, more steps than levels, or a strength outside (0, 1].
    pub fn timesteps(&self, steps: usize, strength: f64) -> Result<Vec<i64>, SamplerError> {
        if steps == 0 {
            return Err(SamplerError::NoSteps);
        }
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(SamplerError::Strength(strength));
        }
        let available = (self.original_steps as f64 * strength) as usize;
        if steps > available {
            return Err(SamplerError::TooManySteps { steps, strength, available });
        }
        let spacing = self.shares.len() / self.original_steps;
        let stride = available as f64 / steps as f64;
        let timestep = |i: usize| {
            let chosen = (i as f64 * stride).floor() as usize;
            ((available - chosen) * spacing - 1) as i64
        };
        Ok((0..steps).map(timestep).collect())
    }

    /// One step of the run over `timesteps`, from the U-Net's output at `timesteps[index]`. `noise` is standard normal; the
    /// last step does not use it.
    ///
    /// # Errors
    /// An index or timestep out of range, or latents of different lengths.
    pub fn step(
        &self,
        timesteps: &[i64],
        index: usize,
        output: &[f32],
        sample: &[f32],
        noise: &[f32],
    ) -> Result<Step, SamplerError> {
        let &timestep =
            timesteps.get(index).ok_or(SamplerError::Index { index, steps: timesteps.len() })?;
        let denoised = self.denoise(timestep, output, sample)?;
        let previous = match timesteps.get(index + 1) {
            Some(&next) => self.add_noise(next, &denoised, noise)?,
            None => denoised.clone(),
        };
        Ok(Step { previous, denoised })
    }

    /// The clean latent that the consistency function gives for the U-Net's output on `sample` at `timestep`.
    ///
    /// # Errors
    /// A timestep out of range, or latents of different lengths.
    pub fn denoise(
        &self,
        timestep: i64,
        output: &[f32],
        sample: &[f32],
    ) -> Result<Vec<f32>, SamplerError> {
        same_length("the U-Net's output", sample, output)?;
        let (signal, sigma) = self.levels(timestep)?;
        let (skip, out) = self.boundary(timestep);
        let clean = |(&x, &f): (&f32, &f32)| {
            let clean = match self.prediction {
                Prediction::Epsilon => (x - sigma * f) / signal,
                Prediction::Sample => f,
                Prediction::Velocity => signal * x - sigma * f,
            };
            let clean = self.clip.map_or(clean, |range| clean.clamp(-range, range));
            out * clean + skip * x
        };
        Ok(sample.iter().zip(output).map(clean).collect())
    }

    /// A clean latent with noise of the level of `timestep`.
    ///
    /// # Errors
    /// A timestep out of range, or noise of another length.
    pub fn add_noise(
        &self,
        timestep: i64,
        clean: &[f32],
        noise: &[f32],
    ) -> Result<Vec<f32>, SamplerError> {
        same_length("the noise", clean, noise)?;
        let (signal, sigma) = self.levels(timestep)?;
        Ok(clean.iter().zip(noise).map(|(c, n)| signal * c + sigma * n).collect())
    }

    /// `(sqrt(a), sqrt(1 - a))` with a the signal share at a timestep.
    ///
    /// # Errors
    /// A timestep out of range.
    pub fn levels(&self, timestep: i64) -> Result<(f32, f32), SamplerError> {
        let share = usize::try_from(timestep).ok().and_then(|t| self.shares.get(t));
        let share = share.ok_or(SamplerError::Timestep { timestep, levels: self.shares.len() })?;
        Ok((share.sqrt(), (1.0 - share).sqrt()))
    }

    /// `(c_skip, c_out)` of the consistency function at a timestep.
    pub fn boundary(&self, timestep: i64) -> (f32, f32) {
        let scaled = timestep as f32 * self.scaling;
        let square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        (SIGMA_DATA * SIGMA_DATA / square, scaled / square.sqrt())
    }
}

impl LcmSampler {
    /// What a stream needs to know of a timestep.
    ///
    /// # Errors
    /// A timestep out of range.
    pub fn level(&self, timestep: i64) -> Result<Level, SamplerError> {
        self.levels(timestep)?;
        let share = f64::from(self.shares[timestep as usize]);
        let scaled = timestep as f64 * f64::from(self.scaling);
        let sigma = f64::from(SIGMA_DATA);
        let square = scaled * scaled + sigma * sigma;
        Ok(Level {
            timestep,
            alpha: share.sqrt(),
            beta: (1.0 - share).sqrt(),
            skip: sigma * sigma / square,
            out: scaled / square.sqrt(),
            clip: self.clip.map(f64::from),
        })
    }

    /// The noise that the U-Net's output says is in a latent.
    pub fn noise_in(&self, level: &Level, mut output: Vec<f32>, latent: &[f32]) -> Vec<f32> {
        let Level { alpha, beta, .. } = *level;
        for (f, &x) in output.iter_mut().zip(latent) {
            let (given, x) = (f64::from(*f), f64::from(x));
            *f = match self.prediction {
                Prediction::Epsilon => given,
                Prediction::Sample => (x - alpha * given) / beta,
                Prediction::Velocity => alpha * given + beta * x,
            } as f32;
        }
        output
    }
}

pub(super) fn same_length(
    what: &'static str,
    latent: &[f32],
    other: &[f32],
) -> Result<(), SamplerError> {
    if latent.len() == other.len() {
        return Ok(());
    }
    Err(SamplerError::Length { what, expected: latent.len(), found: other.len() })
}
