//! What a stream is asked to draw, and how. All of it may change while the stream runs.

use super::chain::Steer;
use crate::Error;

/// Timesteps that a t-index list counts in: StreamDiffusion's `num_inference_steps`.
pub const INFERENCE_STEPS: usize = 50;

/// Most levels.
pub const MOST_LEVELS: usize = 50;
/// Most frames that enter together.
pub const MOST_FRAMES: usize = 64;

/// Kind of guidance: StreamDiffusion's `cfg_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CfgType {
    /// The prompt alone.
    None,
    /// Classifier-free guidance: each row once more with the negative prompt.
    Full,
    /// Residual guidance without a negative prompt ("self"): the residual stands for the negative prediction, at no cost.
    #[default]
    SelfNegative,
    /// Residual guidance from the negative prompt ("initialize", one-time negative): one more row a frame, at its first level.
    Initialize,
}

impl CfgType {
    /// All of them.
    pub const ALL: [CfgType; 4] =
        [CfgType::None, CfgType::Full, CfgType::SelfNegative, CfgType::Initialize];

    /// StreamDiffusion's word.
    pub fn word(self) -> &'static str {
        match self {
            CfgType::None => "none",
            CfgType::Full => "full",
            CfgType::SelfNegative => "self",
            CfgType::Initialize => "initialize",
        }
    }
}

/// How a stream works; fixed while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamConfig {
    /// Frames that enter together.
    pub frame_buffer_size: usize,
    /// Whether frames follow each other through the levels with the same noise (a stream batch), or go through them one after the other
    /// with fresh noise.
    pub use_denoising_batch: bool,
    /// Whether noise is added between levels.
    pub do_add_noise: bool,
    /// Whether the prediction itself is the clean latent (SD-Turbo), without the boundary condition of a consistency model.
    pub turbo: bool,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig {
            frame_buffer_size: 1,
            use_denoising_batch: true,
            do_add_noise: true,
            turbo: false,
        }
    }
}

/// What a stream draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Prompts with their weights, which are divided by their sum. One prompt of weight 1 is the usual case.
    pub prompts: Vec<(String, f32)>,
    /// What to keep away from, under guidance that takes it.
    pub negative_prompt: String,
    /// Indices of the levels in a schedule of [`INFERENCE_STEPS`], ascending: a low first one changes the picture more.
    pub t_index_list: Vec<usize>,
    /// Kind of guidance.
    pub cfg_type: CfgType,
    /// Guidance scale; up to 1 there is none.
    pub guidance_scale: f64,
    /// Factor on the residual in residual guidance: below 1 it is milder.
    pub delta: f64,
    /// Seed of all noise.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            prompts: Vec::new(),
            negative_prompt: String::new(),
            t_index_list: vec![32, 45],
            cfg_type: CfgType::default(),
            guidance_scale: 1.2,
            delta: 1.0,
            seed: 2,
        }
    }
}

impl Settings {
    /// The defaults with a prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Settings { prompts: vec![(prompt.into(), 1.0)], ..Settings::default() }
    }

    /// As many levels as now, for another strength: above 0, and 1 leaves least of the picture. The first level is that share of the schedule
    /// before its end, the others are spread evenly after it.
    ///
    /// # Errors
    /// A strength outside (0, 1], or one that has fewer levels.
    pub fn with_strength(mut self, strength: f64) -> Result<Self, Error> {
        let levels = self.t_index_list.len();
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(crate::SamplerError::Strength(strength).into());
        }
        let available = (INFERENCE_STEPS as f64 * strength).ceil() as usize;
        if levels > available {
            let error = crate::SamplerError::TooManySteps { steps: levels, strength, available };
            return Err(error.into());
        }
        let first = INFERENCE_STEPS - available;
        self.t_index_list = (0..levels).map(|i| first + i * available / levels).collect();
        Ok(self)
    }

    /// Check what needs no network.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |detail: String| Err(Error::Settings(detail));
        if self.t_index_list.len() > MOST_LEVELS {
            return refuse(format!(
                "{} levels; there are at most {MOST_LEVELS}",
                self.t_index_list.len()
            ));
        }
        if !self.guidance_scale.is_finite() || !(self.guidance_scale as f32 * 1000.0).is_finite() {
            return Err(Error::Guidance(self.guidance_scale));
        }
        if !self.delta.is_finite() {
            return refuse(format!("delta {} is not a finite number", self.delta));
        }
        let total: f32 = self.prompts.iter().map(|p| p.1).sum();
        let weights = self.prompts.iter().all(|p| p.1.is_finite() && p.1 >= 0.0);
        if !(weights && total.is_finite() && total > 0.0) {
            return refuse("weights of prompts must be finite, not negative, and not all 0".into());
        }
        Ok(())
    }

    /// The steering of rows.
    pub fn steer(&self, config: &StreamConfig) -> Steer {
        let (scale, delta) = (self.guidance_scale, self.delta);
        Steer { cfg: self.cfg_type, scale, delta, add_noise: config.do_add_noise }
    }
}

impl StreamConfig {
    /// Check it.
    pub(super) fn check(&self) -> Result<(), Error> {
        if (1..=MOST_FRAMES).contains(&self.frame_buffer_size) {
            return Ok(());
        }
        let found = self.frame_buffer_size;
        Err(Error::Settings(format!("a frame buffer of {found}; it must be 1 to {MOST_FRAMES}")))
    }
}
