//! Pseudo linear multi-step (Liu et al. 2022), as diffusers' `PNDMScheduler` without Runge-Kutta steps: outputs of up to four steps are averaged, and the
//! run's second level is looked at twice.

use super::spacing::{Spacing, skipped};
use super::{History, Run, Sampler, Steps, combined};
use crate::SamplerError;

/// The levels of the training before a step and behind it, and whether the step repeats the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct PndmStep {
    now: i64,
    next: i64,
    repeats: bool,
}

/// Factors of the outputs, the last one first, by how many there are (Adams-Bashforth).
const FACTORS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

impl Sampler {
    pub(super) fn pndm(&self, steps: usize, strength: f64) -> Result<Run, SamplerError> {
        let mut timesteps = self.spaced(steps);
        if self.spacing() == Spacing::Linspace {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        if steps > 1 {
            timesteps.insert(1, timesteps[1]);
        }
        timesteps.drain(..skipped(steps, strength)?);
        let stride = (self.shares.len() / steps) as i64;
        let step = |(index, &t): (usize, &f64)| {
            let (t, repeats) = (t as i64, index == 1);
            if repeats {
                PndmStep { now: t + stride, next: t, repeats }
            } else {
                PndmStep { now: t, next: t - stride, repeats }
            }
        };
        let steps = Steps::Pndm(timesteps.iter().enumerate().map(step).collect());
        Ok(Run { timesteps, start: 1.0, steps })
    }

    pub(super) fn pndm_step(
        &self,
        step: &PndmStep,
        history: &mut History,
        output: &[f32],
        latent: &[f32],
    ) -> Vec<f32> {
        let kept = &mut history.outputs;
        let (direction, from) = if step.repeats {
            // The mean of both looks, from where the first one began.
            let mean = combined([(0.5, output), (0.5, kept[kept.len() - 1].as_slice())]);
            (mean, std::mem::take(&mut history.latent))
        } else {
            if kept.is_empty() {
                history.latent = latent.to_vec();
            }
            kept.push(output.to_vec());
            let surplus = kept.len().saturating_sub(FACTORS.len());
            kept.drain(..surplus);
            let factors = FACTORS[kept.len() - 1];
            let value = |at: usize| {
                let terms = factors.iter().zip(kept.iter().rev());
                terms.map(|(factor, values)| factor * f64::from(values[at])).sum::<f64>() as f32
            };
            ((0..output.len()).map(value).collect(), latent.to_vec())
        };
        let (now, next) = (self.share(step.now), self.share(step.next));
        let noise = self.noise((now.sqrt(), (1.0 - now).sqrt()));
        let below = now * (1.0 - next).sqrt() + (now * (1.0 - now) * next).sqrt();
        let far = -(next - now) / below;
        combined([((next / now).sqrt() + far * noise[0], &from), (far * noise[1], &direction)])
    }
}
