//! Settings made ready: encoded prompts, levels, noise. A frame is drawn with one of these from its first row to its last.

use super::{CfgType, Level, Settings, StreamConfig, settings::INFERENCE_STEPS};
use crate::noise::standard_normal;
use crate::{Conditioner, Error, LcmSampler, Rows, TensorMap, mix};
use rockshard_tensor::Tensor;
use std::sync::Arc;

/// The item of [`standard_normal`] whose noise all frames of a stream share. Frames count from 1.
const SHARED: u32 = 0;

/// Settings made ready.
#[derive(Clone)]
pub(super) struct Prepared {
    pub settings: Settings,
    /// Changes of settings so far.
    pub generation: u64,
    pub levels: Arc<Vec<Level>>,
    /// The noise of each level.
    pub noise: Arc<Vec<Vec<f32>>>,
    pub prompt: TensorMap,
    /// Where guidance needs it.
    pub away: Option<TensorMap>,
    /// The scale, for a U-Net that takes it.
    pub guidance: Option<Tensor>,
    /// Ids that prompts lost.
    pub dropped_tokens: usize,
}

impl Prepared {
    /// Encode, draw noise, look up levels. `before` saves what has not changed.
    pub fn new(
        settings: Settings,
        config: &StreamConfig,
        (conditioner, rows, sampler): (&Conditioner, &Rows, &LcmSampler),
        before: Option<&Prepared>,
    ) -> Result<Self, Error> {
        settings.check()?;
        let kept = before.filter(|b| {
            b.settings.seed == settings.seed && b.settings.t_index_list == settings.t_index_list
        });
        let (levels, noise) = match kept {
            Some(b) => (b.levels.clone(), b.noise.clone()),
            None => {
                let list = &settings.t_index_list;
                let mut levels = Level::all(sampler, INFERENCE_STEPS, list)?;
                if config.turbo {
                    levels.iter_mut().for_each(|l| (l.skip, l.out) = (0.0, 1.0));
                }
                let values = rows.latent_shape().iter().product();
                let noise = |level| standard_normal(settings.seed, SHARED, level, values);
                let noise = (0..levels.len() as u32).map(noise).collect();
                (Arc::new(levels), Arc::new(noise))
            }
        };
        let steer = settings.steer(config);
        let negative =
            steer.guides() && matches!(settings.cfg_type, CfgType::Full | CfgType::Initialize);
        let mut texts: Vec<&str> = settings.prompts.iter().map(|p| p.0.as_str()).collect();
        texts.extend(negative.then_some(settings.negative_prompt.as_str()));
        let mut encoded = conditioner.encode(&texts)?;
        let dropped_tokens = encoded.iter().map(|c| c.dropped_tokens).max().unwrap_or(0);
        let away = if negative { encoded.pop().map(|c| c.prompt) } else { None };
        let total: f32 = settings.prompts.iter().map(|p| p.1).sum();
        let weights = settings.prompts.iter().map(|p| p.1 / total);
        let parts: Vec<(&TensorMap, f32)> =
            encoded.iter().map(|c| &c.prompt).zip(weights).collect();
        let prompt = mixed(&parts)?;
        // Where rows are guided by arithmetic, the scale is not the U-Net's business.
        let own = if steer.guides() { 1.0 } else { settings.guidance_scale };
        let guidance = rows.embed_guidance(own.max(1.0))?;
        Ok(Prepared {
            settings,
            generation: 0,
            levels,
            noise,
            prompt,
            away,
            guidance,
            dropped_tokens,
        })
    }

    /// The way from these settings to others, `share` of it behind: prompts go linearly, noise so that it keeps its variance; all else is the
    /// other's.
    pub fn towards(&self, to: &Prepared, share: f32) -> Result<Prepared, Error> {
        let parts = [(&self.prompt, 1.0 - share), (&to.prompt, share)];
        let away = match (&self.away, &to.away) {
            (Some(a), Some(b)) => Some(mixed(&[(a, 1.0 - share), (b, share)])?),
            _ => to.away.clone(),
        };
        let noise = if Arc::ptr_eq(&self.noise, &to.noise) || self.noise.len() != to.noise.len() {
            to.noise.clone()
        } else {
            let pairs = self.noise.iter().zip(to.noise.iter());
            Arc::new(pairs.map(|(a, b)| between(a, b, share)).collect())
        };
        Ok(Prepared { prompt: mixed(&parts)?, away, noise, ..to.clone() })
    }

    /// Rows of the U-Net for a frame.
    pub fn rows_of_a_frame(&self, config: &StreamConfig) -> usize {
        let steer = self.settings.steer(config);
        (0..self.levels.len()).map(|step| steer.rows(step)).sum()
    }
}

fn mixed(parts: &[(&TensorMap, f32)]) -> Result<TensorMap, Error> {
    mix(parts)
        .map_err(|source| Error::Tensor { role: rockshard_manifest::Role::TextEncoder, source })
}

/// Standard normal noise between two independent ones.
fn between(a: &[f32], b: &[f32], share: f32) -> Vec<f32> {
    let length = ((1.0 - share).powi(2) + share.powi(2)).sqrt();
    let (x, y) = ((1.0 - share) / length, share / length);
    a.iter().zip(b).map(|(a, b)| x * a + y * b).collect()
}
