//! The noise schedule of a `scheduler_config.json`.

use crate::SamplerName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields of diffusers' `scheduler_config.json` that samplers read, with the defaults of its LCM scheduler; others are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplerConfig {
    /// diffusers' class of the scheduler; LCM where there is none.
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Number of noise levels the model was trained on.
    pub num_train_timesteps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// `scaled_linear` (linear in the square root) or `linear`.
    pub beta_schedule: String,
    /// Betas given one by one instead of by formula.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f32>>,
    /// Levels the distillation used; the levels of a run are chosen from them.
    pub original_inference_steps: usize,
    /// What the U-Net predicts: `epsilon`, `sample` or `v_prediction`.
    pub prediction_type: String,
    /// Factor on the timestep in the boundary condition.
    pub timestep_scaling: f64,
    /// Limit the predicted latent to `clip_sample_range`.
    pub clip_sample: bool,
    /// Largest magnitude under `clip_sample`.
    pub clip_sample_range: f64,
    /// Behind the last level there is no noise; else as much as at the first level of the training.
    pub set_alpha_to_one: bool,
    /// Dynamic thresholding; refused, it does not suit latents.
    pub thresholding: bool,
    /// Zero terminal signal; refused.
    pub rescale_betas_zero_snr: bool,
    /// `leading`, `trailing` or `linspace`; absent, what is usual with a sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<String>,
    /// Added to every level by `leading`.
    pub steps_offset: usize,
    /// Noise levels by Karras et al. 2022.
    pub use_karras_sigmas: bool,
    /// Other noise levels; refused.
    pub use_exponential_sigmas: bool,
    /// Other noise levels; refused.
    pub use_beta_sigmas: bool,
    /// Other noise levels; refused.
    pub use_lu_lambdas: bool,
    /// Other noise levels; refused.
    pub use_flow_sigmas: bool,
    /// Least of Karras' noise levels; absent, the training's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Largest of Karras' noise levels; absent, the training's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Noise behind the last step: `zero` or `sigma_min`.
    pub final_sigmas_type: String,
    /// Of DPM-Solver: `dpmsolver++`.
    pub algorithm_type: String,
    /// Of DPM-Solver: 1 or 2.
    pub solver_order: usize,
    /// Of DPM-Solver: `midpoint` or `heun`.
    pub solver_type: String,
    /// Of DPM-Solver: short runs end with a step of first order.
    pub lower_order_final: bool,
    /// Of DPM-Solver: all runs do.
    pub euler_at_final: bool,
    /// Of PNDM: no Runge-Kutta steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_prk_steps: Option<bool>,
}

/// What a field that is absent means to a class of diffusers, where that is not what it means to its LCM scheduler.
const CLASS_DEFAULTS: [(&str, &str); 5] = [
    (
        "DDIMScheduler",
        r#"{"beta_start":0.0001,"beta_end":0.02,"beta_schedule":"linear","clip_sample":true}"#,
    ),
    (
        "PNDMScheduler",
        r#"{"beta_start":0.0001,"beta_end":0.02,"beta_schedule":"linear","set_alpha_to_one":false,"skip_prk_steps":false}"#,
    ),
    ("EulerDiscreteScheduler", r#"{"beta_start":0.0001,"beta_end":0.02,"beta_schedule":"linear"}"#),
    (
        "EulerAncestralDiscreteScheduler",
        r#"{"beta_start":0.0001,"beta_end":0.02,"beta_schedule":"linear"}"#,
    ),
    (
        "DPMSolverMultistepScheduler",
        r#"{"beta_start":0.0001,"beta_end":0.02,"beta_schedule":"linear"}"#,
    ),
];

impl Default for SamplerConfig {
    fn default() -> Self {
        SamplerConfig {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: "scaled_linear".to_owned(),
            trained_betas: None,
            original_inference_steps: 50,
            prediction_type: "epsilon".to_owned(),
            timestep_scaling: 10.0,
            clip_sample: false,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            thresholding: false,
            rescale_betas_zero_snr: false,
            class: None,
            timestep_spacing: None,
            steps_offset: 0,
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            use_lu_lambdas: false,
            use_flow_sigmas: false,
            sigma_min: None,
            sigma_max: None,
            final_sigmas_type: "zero".to_owned(),
            algorithm_type: "dpmsolver++".to_owned(),
            solver_order: 2,
            solver_type: "midpoint".to_owned(),
            lower_order_final: true,
            euler_at_final: false,
            skip_prk_steps: None,
        }
    }
}

/// Why a sampler cannot be made or used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// A field of the configuration has a value that is not supported.
    #[error("scheduler_config.json: {field} is {value}; {expected}")]
    Config {
        /// Field name.
        field: &'static str,
        /// Value found.
        value: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A scheduler that is not there.
    #[error(
        "the model's scheduler is {class}, which is not there; there are {}",
        SamplerName::known()
    )]
    Unknown {
        /// diffusers' class.
        class: String,
    },
    /// A strength at which nothing is left to do.
    #[error(
        "{steps} steps at strength {strength} leave none to do; ask for more steps or more strength"
    )]
    NoStepsLeft {
        /// Steps asked for.
        steps: usize,
        /// Strength asked for.
        strength: f64,
    },
    /// No steps were asked for.
    #[error("at least 1 step is needed")]
    NoSteps,
    /// More steps than the schedule has levels.
    #[error(
        "{steps} steps are too many: at strength {strength} this model's schedule has {available} levels; ask for fewer steps or more strength"
    )]
    TooManySteps {
        /// Steps asked for.
        steps: usize,
        /// Strength asked for.
        strength: f64,
        /// Levels there are.
        available: usize,
    },
    /// Strength out of range.
    #[error("strength {0} is not in 0 < strength <= 1")]
    Strength(f64),
    /// A timestep that the model was not trained on.
    #[error("timestep {timestep} is not in 0..{levels}")]
    Timestep {
        /// Timestep asked for.
        timestep: i64,
        /// Levels of the training schedule.
        levels: usize,
    },
    /// The step index is outside the schedule of the run.
    #[error("step {index} is not in a schedule of {steps} steps")]
    Index {
        /// Index asked for.
        index: usize,
        /// Steps of the schedule.
        steps: usize,
    },
    /// Levels of a stream out of order.
    #[error("t-index list {0:?}: each index must be above the one before")]
    NotAscending(Vec<usize>),
    /// Latents that must have equal sizes do not.
    #[error("{what} has {found} values, the latent has {expected}")]
    Length {
        /// Which one.
        what: &'static str,
        /// Values of the latent.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// The guidance embedding is too short for its formula.
    #[error(
        "a guidance embedding of {0} values is not possible: it needs at least 4 (time_cond_proj_dim of unet/config.json)"
    )]
    EmbeddingSize(usize),
}

impl SamplerConfig {
    /// Parse a `scheduler_config.json`: what is absent means what it means to the class that the file names. Infinities, which Python writes and JSON does not
    /// have, stand for the default.
    ///
    /// # Errors
    /// Malformed JSON, or fields of other types.
    pub fn from_scheduler(text: &str) -> Result<Self, serde_json::Error> {
        let text = text.replace("-Infinity", "null").replace("Infinity", "null");
        let given: Map<String, Value> = serde_json::from_str(&text)?;
        let class = given.get("_class_name").and_then(Value::as_str);
        let defaults = CLASS_DEFAULTS.iter().find(|(name, _)| Some(*name) == class);
        let mut fields: Map<String, Value> =
            serde_json::from_str(defaults.map_or("{}", |(_, fields)| fields))?;
        fields.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        serde_json::from_value(Value::Object(fields))
    }

    /// The share of signal (`alphas_cumprod`) at every training timestep.
    ///
    /// # Errors
    /// An unknown beta schedule, or betas that are not in 0..1.
    pub fn signal_shares(&self) -> Result<Vec<f32>, SamplerError> {
        let betas = match &self.trained_betas {
            Some(betas) => betas.clone(),
            None => self.formula()?,
        };
        if let Some(bad) = betas.iter().find(|b| !(**b > 0.0 && **b < 1.0)) {
            return Err(SamplerError::Config {
                field: "beta",
                value: bad.to_string(),
                expected: "every beta must be above 0 and below 1",
            });
        }
        // PyTorch accumulates float32 products on the CPU in float64.
        let mut product = 1.0f64;
        let shares = betas.iter().map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        });
        Ok(shares.collect())
    }

    fn formula(&self) -> Result<Vec<f32>, SamplerError> {
        let n = self.num_train_timesteps;
        match self.beta_schedule.as_str() {
            "linear" => Ok(linspace(self.beta_start as f32, self.beta_end as f32, n)),
            "scaled_linear" => {
                let roots = linspace(self.beta_start.sqrt() as f32, self.beta_end.sqrt() as f32, n);
                Ok(roots.iter().map(|v| v * v).collect())
            }
            other => Err(SamplerError::Config {
                field: "beta_schedule",
                value: format!("{other:?}"),
                expected: "supported are \"scaled_linear\" and \"linear\"",
            }),
        }
    }
}

/// `torch.linspace` in float32: counted from both ends towards the middle.
fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 })
        .collect()
}
