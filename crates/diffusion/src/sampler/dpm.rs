//! DPM-Solver++ of second order, multi-step (Lu et al. 2022), as diffusers' `DPMSolverMultistepScheduler`.

use super::spacing::{Spacing, linspace, skipped, trailing};
use super::{History, Run, Sampler, Steps, combined};
use crate::SamplerError;

/// Runs below this length end with a step of first order.
const SHORT: usize = 15;

/// Noise over signal at each level, one more than there are steps; the step that is the run's first of all.
#[derive(Clone, Debug)]
pub(super) struct DpmSteps {
    sigmas: Vec<f64>,
    /// Whether the last step is of first order.
    first_order_last: bool,
}

impl DpmSteps {
    /// Roots of the shares of signal and noise.
    pub fn levels(&self, at: usize) -> (f64, f64) {
        let signal = (self.sigmas[at] * self.sigmas[at] + 1.0).sqrt().recip();
        (signal, self.sigmas[at] * signal)
    }

    /// Half the logarithm of the ratio of signal to noise.
    fn lambda(&self, at: usize) -> f64 {
        -self.sigmas[at].ln()
    }
}

impl Sampler {
    pub(super) fn dpm(
        &self,
        steps: usize,
        strength: f64,
        karras: bool,
    ) -> Result<Run, SamplerError> {
        let levels = self.shares.len();
        let mut timesteps: Vec<f64> = match self.spacing() {
            Spacing::Linspace => {
                let spaced = linspace(0.0, (levels - 1) as f64, steps + 1).into_iter().rev();
                spaced.take(steps).map(f64::round_ties_even).collect()
            }
            Spacing::Leading => {
                let stride = levels / (steps + 1);
                let level = |i: usize| (i * stride + self.config.steps_offset) as f64;
                (1..=steps).rev().map(level).collect()
            }
            Spacing::Trailing => trailing(levels, steps),
        };
        let mut sigmas: Vec<f64>;
        if karras {
            sigmas = self.karras(self.sigma((levels - 1) as f64), self.sigma(0.0), steps);
            timesteps = sigmas.iter().map(|&s| self.level(s).round_ties_even()).collect();
        } else {
            sigmas = timesteps.iter().map(|&t| self.sigma(t)).collect();
        }
        sigmas.push(self.last_sigma());
        let config = &self.config;
        let first_order_last = config.euler_at_final
            || (config.lower_order_final && steps < SHORT)
            || config.final_sigmas_type == "zero";
        let skipped = skipped(steps, strength)?;
        timesteps.drain(..skipped);
        sigmas.drain(..skipped);
        Ok(Run { timesteps, start: 1.0, steps: Steps::Dpm(DpmSteps { sigmas, first_order_last }) })
    }

    pub(super) fn dpm_step(
        &self,
        steps: &DpmSteps,
        index: usize,
        history: &mut History,
        output: &[f32],
        latent: &[f32],
    ) -> Vec<f32> {
        let clean = self.clean(steps.levels(index));
        let denoised = combined([(clean[0], latent), (clean[1], output)]);
        let (signal, sigma) = steps.levels(index + 1);
        let last = index + 2 == steps.sigmas.len();
        // The step in lambda; infinite where no noise is left.
        let far = steps.lambda(index + 1) - steps.lambda(index);
        let gone = signal * (1.0 - (-far).exp());
        let kept = sigma / steps.levels(index).1;
        let first_order =
            self.config.solver_order == 1 || index == 0 || (last && steps.first_order_last);
        let next = match history.outputs.last().filter(|_| !first_order) {
            None => combined([(kept, latent), (gone, &denoised)]),
            Some(before) => {
                let ratio = (steps.lambda(index) - steps.lambda(index - 1)) / far;
                let slope = match self.config.solver_type.as_str() {
                    "heun" => signal * ((1.0 - (-far).exp()) / -far + 1.0),
                    _ => 0.5 * gone,
                } / ratio;
                combined([(kept, latent), (gone + slope, &denoised), (-slope, before)])
            }
        };
        history.outputs = vec![denoised];
        next
    }
}
