//! Which levels of the training a run goes through.

use super::{Sampler, SamplerName};
use crate::{SamplerConfig, SamplerError};

/// Exponent of Karras' noise levels (Karras et al. 2022, equation 5).
const RHO: f64 = 7.0;

/// How a run's levels lie in those of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    Leading,
    Trailing,
    Linspace,
}

/// Refuse settings that this sampler would not follow.
pub(super) fn check(config: &SamplerConfig, name: SamplerName) -> Result<(), SamplerError> {
    spacing(config, name)?;
    let refuse =
        |field, value: String, expected| Err(SamplerError::Config { field, value, expected });
    let sigmas = matches!(
        name,
        SamplerName::Euler
            | SamplerName::EulerAncestral
            | SamplerName::Dpm
            | SamplerName::DpmKarras
    );
    let dpm = matches!(name, SamplerName::Dpm | SamplerName::DpmKarras);
    for (field, set) in [
        ("use_exponential_sigmas", config.use_exponential_sigmas),
        ("use_beta_sigmas", config.use_beta_sigmas),
        ("use_lu_lambdas", config.use_lu_lambdas),
        ("use_flow_sigmas", config.use_flow_sigmas),
    ] {
        if sigmas && set {
            return refuse(
                field,
                "true".into(),
                "supported are the trained noise levels and Karras'",
            );
        }
    }
    if dpm && config.algorithm_type != "dpmsolver++" {
        let expected = "supported is \"dpmsolver++\"";
        return refuse("algorithm_type", format!("{:?}", config.algorithm_type), expected);
    }
    if dpm && !(1..=2).contains(&config.solver_order) {
        return refuse("solver_order", config.solver_order.to_string(), "supported are 1 and 2");
    }
    if dpm && !["midpoint", "heun"].contains(&config.solver_type.as_str()) {
        let expected = "supported are \"midpoint\" and \"heun\"";
        return refuse("solver_type", format!("{:?}", config.solver_type), expected);
    }
    if sigmas && !["zero", "sigma_min"].contains(&config.final_sigmas_type.as_str()) {
        let expected = "supported are \"zero\" and \"sigma_min\"";
        return refuse("final_sigmas_type", format!("{:?}", config.final_sigmas_type), expected);
    }
    if name == SamplerName::Pndm && config.skip_prk_steps == Some(false) {
        let expected =
            "Runge-Kutta steps are not supported; set it to true, as Stable Diffusion has it";
        return refuse("skip_prk_steps", "false".into(), expected);
    }
    if sigmas && config.prediction_type == "sample" && name == SamplerName::EulerAncestral {
        let expected = "this sampler takes \"epsilon\" and \"v_prediction\"";
        return refuse("prediction_type", "\"sample\"".into(), expected);
    }
    if name == SamplerName::Pndm && config.prediction_type == "sample" {
        let expected = "this sampler takes \"epsilon\" and \"v_prediction\"";
        return refuse("prediction_type", "\"sample\"".into(), expected);
    }
    Ok(())
}

/// As a configuration says, or as is usual with a sampler.
fn spacing(config: &SamplerConfig, name: SamplerName) -> Result<Spacing, SamplerError> {
    match (config.timestep_spacing.as_deref(), name) {
        (Some("leading"), _) => Ok(Spacing::Leading),
        (Some("trailing"), _) => Ok(Spacing::Trailing),
        (Some("linspace"), _) => Ok(Spacing::Linspace),
        (None, SamplerName::Ddim | SamplerName::Pndm | SamplerName::Lcm | SamplerName::Tcd) => {
            Ok(Spacing::Leading)
        }
        (None, _) => Ok(Spacing::Linspace),
        (Some(other), _) => Err(SamplerError::Config {
            field: "timestep_spacing",
            value: format!("{other:?}"),
            expected: "supported are \"leading\", \"trailing\" and \"linspace\"",
        }),
    }
}

impl Sampler {
    /// The spacing of this sampler's runs.
    pub(super) fn spacing(&self) -> Spacing {
        spacing(&self.config, self.name).unwrap_or(Spacing::Leading)
    }

    /// Levels of a run, descending, whole numbers except by `linspace`.
    pub(super) fn spaced(&self, steps: usize) -> Vec<f64> {
        let levels = self.shares.len();
        match self.spacing() {
            Spacing::Leading => {
                let stride = levels / steps;
                let level = |i: usize| (i * stride + self.config.steps_offset) as f64;
                (0..steps).rev().map(level).collect()
            }
            Spacing::Trailing => trailing(levels, steps),
            Spacing::Linspace => {
                linspace(0.0, (levels - 1) as f64, steps).into_iter().rev().collect()
            }
        }
    }

    /// Noise over signal at a level between those of the training.
    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let of = |at: usize| ((1.0 - self.shares[at]) / self.shares[at]).sqrt();
        let last = self.shares.len() - 1;
        let timestep = timestep.clamp(0.0, last as f64);
        let low = timestep as usize;
        of(low) + (of((low + 1).min(last)) - of(low)) * (timestep - low as f64)
    }

    /// The level of the training that has this noise, between two of them by its logarithm.
    pub(super) fn level(&self, sigma: f64) -> f64 {
        let logarithm = |at: usize| self.sigma(at as f64).ln();
        let wanted = sigma.max(1e-10).ln();
        // The last level whose noise is no more than this.
        let low = (0..self.shares.len()).rev().find(|&at| logarithm(at) <= wanted).unwrap_or(0);
        let low = low.min(self.shares.len().saturating_sub(2));
        let between = (logarithm(low) - wanted) / (logarithm(low) - logarithm(low + 1));
        low as f64 + between.clamp(0.0, 1.0)
    }

    /// Noise levels between two, descending (Karras et al. 2022).
    pub(super) fn karras(&self, from: f64, to: f64, steps: usize) -> Vec<f64> {
        let from = self.config.sigma_max.unwrap_or(from).powf(1.0 / RHO);
        let to = self.config.sigma_min.unwrap_or(to).powf(1.0 / RHO);
        linspace(0.0, 1.0, steps).iter().map(|ramp| (from + ramp * (to - from)).powf(RHO)).collect()
    }

    /// The noise behind the last step.
    pub(super) fn last_sigma(&self) -> f64 {
        if self.config.final_sigmas_type == "sigma_min" { self.sigma(0.0) } else { 0.0 }
    }
}

/// Levels counted down from the noisiest one.
pub(super) fn trailing(levels: usize, steps: usize) -> Vec<f64> {
    let stride = levels as f64 / steps as f64;
    let level = |i: usize| levels as f64 - i as f64 * stride;
    (0..steps).map(|i| (level(i).round_ties_even() - 1.0).max(0.0)).collect()
}

/// Numbers from one to another, both included.
pub(super) fn linspace(from: f64, to: f64, count: usize) -> Vec<f64> {
    let step = if count > 1 { (to - from) / (count - 1) as f64 } else { 0.0 };
    (0..count).map(|i| from + i as f64 * step).collect()
}

/// How many of a run's first steps are left out at a strength.
pub(super) fn skipped(steps: usize, strength: f64) -> Result<usize, SamplerError> {
    let kept = ((steps as f64 * strength) as usize).min(steps);
    if kept == 0 {
        return Err(SamplerError::NoStepsLeft { steps, strength });
    }
    Ok(steps - kept)
}
