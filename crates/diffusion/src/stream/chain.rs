//! The way of some frames that entered together through the rows of the U-Net: one level after the other.
//!
//! In a stream batch (Kodaira et al. 2023) row i is the frame that has had i steps, so that a call of the U-Net has frames at all levels. What
//! a frame is given depends on nothing of the others: its latent, its residual, and the noise of each level, which is the same for every
//! frame. So each frame goes its own way, and rows of several frames run on whatever cores are free.

use super::{CfgType, Level};
use std::sync::Arc;

/// How the prompt steers a chain's rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steer {
    /// Kind of guidance.
    pub cfg: CfgType,
    /// Guidance scale; up to 1 there is none, whatever the kind.
    pub scale: f64,
    /// Factor on the residual that stands for the negative prediction.
    pub delta: f64,
    /// Whether noise is added between levels.
    pub add_noise: bool,
}

/// A row for the U-Net.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainRow<'a> {
    /// Noisy latent.
    pub latent: &'a [f32],
    /// Its timestep.
    pub timestep: i64,
    /// Whether it is predicted with the negative prompt.
    pub away: bool,
}

/// One frame on its way.
#[derive(Clone, Debug)]
struct OnItsWay {
    latent: Vec<f32>,
    /// The noise that is virtually left in the latent: (x - alpha x0) / beta.
    residual: Vec<f32>,
    /// Standard normal noise of each level.
    noise: Arc<Vec<Vec<f32>>>,
}

/// Frames that entered together.
#[derive(Clone, Debug)]
pub struct Chain {
    levels: Arc<Vec<Level>>,
    steer: Steer,
    step: usize,
    frames: Vec<OnItsWay>,
}

impl Steer {
    /// Whether predictions are guided.
    pub fn guides(&self) -> bool {
        self.cfg != CfgType::None && self.scale > 1.0
    }

    /// How many rows the U-Net does for a frame at a level.
    pub fn rows(&self, step: usize) -> usize {
        1 + usize::from(self.needs_away(step))
    }

    /// Whether a level's rows need the negative prompt.
    fn needs_away(&self, step: usize) -> bool {
        match self.cfg {
            CfgType::Full => self.guides(),
            CfgType::Initialize => self.guides() && step == 0,
            CfgType::None | CfgType::SelfNegative => false,
        }
    }
}

impl Chain {
    /// Nothing yet, on levels.
    pub fn new(levels: Arc<Vec<Level>>, steer: Steer) -> Self {
        Chain { levels, steer, step: 0, frames: Vec::new() }
    }

    /// Let a picture's latent enter, with the noise of each level.
    pub fn enter_latent(&mut self, clean: &[f32], noise: Arc<Vec<Vec<f32>>>) {
        let (first, level) = (&noise[0], self.levels[0]);
        let latent = clean.iter().zip(first).map(|(&c, &n)| level.noisy(c, n)).collect();
        self.frames.push(OnItsWay { latent, residual: first.clone(), noise });
    }

    /// Let pure noise enter: a picture is made of the prompt alone. All that is left in it is residual.
    pub fn enter_noise(&mut self, latent: Vec<f32>, noise: Arc<Vec<Vec<f32>>>) {
        let beta = self.levels[0].beta;
        let residual = latent.iter().map(|&x| (f64::from(x) / beta) as f32).collect();
        self.frames.push(OnItsWay { latent, residual, noise });
    }

    /// The rows of the level it has come to; those with the negative prompt are first.
    pub fn rows(&self) -> Vec<ChainRow<'_>> {
        let Some(level) = self.levels.get(self.step) else { return Vec::new() };
        let row = |away| {
            let timestep = level.timestep;
            self.frames.iter().map(move |f| ChainRow { latent: &f.latent, timestep, away })
        };
        let away = self.steer.needs_away(self.step).then(|| row(true));
        away.into_iter().flatten().chain(row(false)).collect()
    }

    /// Take what the U-Net predicts for [`Chain::rows`], as noise, and go on to the next level. Whether it was the last: the latents are
    /// clean then.
    ///
    /// # Panics
    /// There are fewer predictions than rows.
    pub fn advance(&mut self, mut predictions: Vec<Vec<f32>>) -> bool {
        let away = self.steer.needs_away(self.step).then(|| {
            let to = predictions.split_off(self.frames.len());
            std::mem::replace(&mut predictions, to)
        });
        let next = self.levels.get(self.step + 1);
        let step = Advance {
            level: self.levels[self.step],
            next,
            steer: self.steer,
            following: (self.step + 1) % self.levels.len(),
        };
        for (i, frame) in self.frames.iter_mut().enumerate() {
            step.frame(frame, away.as_ref().map(|a| &a[i][..]), &predictions[i]);
        }
        self.step += 1;
        next.is_none()
    }

    /// The latents as they are, in the order in which frames entered.
    pub fn latents(self) -> Vec<Vec<f32>> {
        self.frames.into_iter().map(|f| f.latent).collect()
    }

    /// The levels that are behind its frames.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Latent and residual of each frame.
    pub fn state(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        self.frames.iter().map(|f| (&f.latent[..], &f.residual[..]))
    }
}

/// One level's arithmetic.
struct Advance<'a> {
    level: Level,
    next: Option<&'a Level>,
    steer: Steer,
    /// Index of the noise that the frame is given next.
    following: usize,
}

impl Advance<'_> {
    fn frame(&self, frame: &mut OnItsWay, away: Option<&[f32]>, to: &[f32]) {
        let Steer { cfg, scale, delta, add_noise } = self.steer;
        let guides = self.steer.guides();
        let (next_alpha, next_beta) = self.next.map_or((1.0, 1.0), |n| (n.alpha, n.beta));
        let residual_lives = guides && matches!(cfg, CfgType::SelfNegative | CfgType::Initialize);
        let fresh = &frame.noise[self.following];
        if cfg == CfgType::Initialize
            && let Some(away) = away
        {
            frame.residual.copy_from_slice(away);
        }
        for i in 0..frame.latent.len() {
            let x = f64::from(frame.latent[i]);
            let residual = f64::from(frame.residual[i]);
            let mut noise = f64::from(to[i]);
            if guides {
                let negative = match (cfg, away) {
                    (CfgType::Full, Some(away)) => f64::from(away[i]),
                    _ => delta * residual,
                };
                noise = negative + scale * (noise - negative);
            }
            let n = f64::from(fresh[i]);
            if residual_lives {
                let left = self.level.denoised(self.level.beta * residual, noise);
                frame.residual[i] = (n + next_alpha * left / next_beta) as f32;
            }
            let denoised = self.level.denoised(x, noise);
            frame.latent[i] = match self.next {
                None => denoised,
                Some(_) if add_noise => next_alpha * denoised + next_beta * n,
                Some(_) => next_alpha * denoised,
            } as f32;
        }
    }
}
