//! The stream batch restated in float64, a call at a time, from the paper and StreamDiffusion's documentation: all rows of a call together,
//! a buffer of latents and one of residuals that shift by a frame buffer with each call.

/// One level: alpha, beta, c_skip, c_out.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub timestep: i64,
    pub alpha: f64,
    pub beta: f64,
    pub skip: f64,
    pub out: f64,
}

/// Levels of Stable Diffusion's schedule at indices into 50 timesteps.
pub fn levels(indices: &[usize]) -> Vec<Level> {
    let (start, end) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let mut product = 1.0;
    let shares: Vec<f64> = (0..1000)
        .map(|i| {
            let root = start + (end - start) * i as f64 / 999.0;
            product *= 1.0 - root * root;
            product
        })
        .collect();
    let level = |&i: &usize| {
        let timestep = 999 - 20 * i as i64;
        let (share, s) = (shares[timestep as usize], 10.0 * timestep as f64);
        let length = s * s + 0.25;
        Level {
            timestep,
            alpha: share.sqrt(),
            beta: (1.0 - share).sqrt(),
            skip: 0.25 / length,
            out: s / length.sqrt(),
        }
    };
    indices.iter().map(level).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cfg {
    /// Without guidance.
    None,
    Full,
    Own,
    Initialize,
}

pub struct Batch {
    pub levels: Vec<Level>,
    /// Frames that enter together.
    pub f: usize,
    pub cfg: Cfg,
    pub g: f64,
    pub delta: f64,
    pub add_noise: bool,
    /// Noise of each level.
    pub noise: Vec<Vec<f64>>,
    /// Latents and residuals, newest frames first: f rows a level.
    pub buffer: Vec<Vec<f64>>,
    pub residual: Vec<Vec<f64>>,
}

/// What a call was given and gave.
pub struct Call {
    pub rows: Vec<Vec<f64>>,
    pub predicted: Vec<Vec<f64>>,
    pub away: Vec<Vec<f64>>,
    /// Clean latents of the frames that leave.
    pub out: Vec<Vec<f64>>,
    /// Latents and residuals of the next call.
    pub next: Vec<Vec<f64>>,
    pub next_residual: Vec<Vec<f64>>,
}

type UNet<'a> = &'a mut dyn FnMut(&[f64], i64, bool) -> Vec<f64>;

impl Batch {
    pub fn call(&mut self, entering: &[Vec<f64>], unet: UNet<'_>) -> Call {
        let (t, f) = (self.levels.len(), self.f);
        let rows: Vec<Vec<f64>> = entering.iter().cloned().chain(self.buffer.clone()).collect();
        // The residual of a frame travels with it, and begins as the first level's noise.
        let mut residual: Vec<Vec<f64>> =
            (0..f).map(|_| self.noise[0].clone()).chain(self.residual.clone()).collect();
        let at = |row: usize| self.levels[row / f];
        let predicted: Vec<Vec<f64>> =
            rows.iter().enumerate().map(|(i, x)| unet(x, at(i).timestep, false)).collect();
        let away_rows = match self.cfg {
            Cfg::Full if self.g > 1.0 => t * f,
            Cfg::Initialize if self.g > 1.0 => f,
            _ => 0,
        };
        let away: Vec<Vec<f64>> =
            (0..away_rows).map(|i| unet(&rows[i], at(i).timestep, true)).collect();
        if self.cfg == Cfg::Initialize && self.g > 1.0 {
            residual[..f].clone_from_slice(&away);
        }
        let mut clean = Vec::new();
        for (i, x) in rows.iter().enumerate() {
            let Level { alpha, beta, skip, out, .. } = at(i);
            let eps: Vec<f64> = (0..x.len())
                .map(|k| {
                    let c = predicted[i][k];
                    let u = match self.cfg {
                        _ if self.g <= 1.0 => return c,
                        Cfg::None => return c,
                        Cfg::Full => away[i][k],
                        Cfg::Own | Cfg::Initialize => self.delta * residual[i][k],
                    };
                    u + self.g * (c - u)
                })
                .collect();
            let denoise = |x: f64, e: f64| out * ((x - beta * e) / alpha) + skip * x;
            clean.push(x.iter().zip(&eps).map(|(&x, &e)| denoise(x, e)).collect::<Vec<f64>>());
            let last = i / f + 1 == t;
            let (next_alpha, next_beta) =
                if last { (1.0, 1.0) } else { (at(i + f).alpha, at(i + f).beta) };
            for (k, s) in residual[i].iter_mut().enumerate() {
                let d = denoise(beta * *s, eps[k]);
                *s = self.noise[(i / f + 1) % t][k] + next_alpha * d / next_beta;
            }
        }
        let out = clean.split_off((t - 1) * f);
        self.buffer = clean
            .iter()
            .enumerate()
            .map(|(i, x0)| {
                let next = at(i + f);
                let n = &self.noise[i / f + 1];
                let noise = if self.add_noise { next.beta } else { 0.0 };
                x0.iter().zip(n).map(|(x0, n)| next.alpha * x0 + noise * n).collect()
            })
            .collect();
        self.residual = residual[..(t - 1) * f].to_vec();
        Call { rows, predicted, away, out, next: self.buffer.clone(), next_residual: residual }
    }
}
