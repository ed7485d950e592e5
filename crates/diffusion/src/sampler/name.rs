//! The samplers there are, by the names that people know them by.

use crate::{SamplerConfig, SamplerError};
use std::fmt;
use std::str::FromStr;

/// A sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerName {
    /// Latent consistency (Luo et al. 2023).
    Lcm,
    /// Trajectory consistency (Zheng et al. 2024), with gamma 0.3.
    Tcd,
    /// Denoising diffusion implicit models (Song et al. 2021), with eta 0.
    Ddim,
    /// Pseudo linear multi-step (Liu et al. 2022), without Runge-Kutta steps.
    Pndm,
    /// Euler's method over noise levels (Karras et al. 2022).
    Euler,
    /// The same with fresh noise at each step.
    EulerAncestral,
    /// DPM-Solver++ of second order, multi-step (Lu et al. 2022).
    Dpm,
    /// The same over Karras' noise levels.
    DpmKarras,
}

/// Name to type, name in pictures, diffusers' class, usual steps, usual guidance.
type Row = (SamplerName, &'static str, &'static str, &'static str, usize, f64);
const TABLE: [Row; 8] = [
    (SamplerName::Lcm, "lcm", "LCM", "LCMScheduler", 4, 2.0),
    (SamplerName::Tcd, "tcd", "TCD", "TCDScheduler", 4, 1.0),
    (SamplerName::Ddim, "ddim", "DDIM", "DDIMScheduler", 20, 7.5),
    (SamplerName::Pndm, "pndm", "PLMS", "PNDMScheduler", 20, 7.5),
    (SamplerName::Euler, "euler", "Euler", "EulerDiscreteScheduler", 20, 7.5),
    (SamplerName::EulerAncestral, "euler-a", "Euler a", "EulerAncestralDiscreteScheduler", 20, 7.5),
    (SamplerName::Dpm, "dpm++2m", "DPM++ 2M", "DPMSolverMultistepScheduler", 20, 7.5),
    (SamplerName::DpmKarras, "dpm++2m-karras", "DPM++ 2M Karras", "", 20, 7.5),
];

impl SamplerName {
    /// All of them.
    pub const ALL: [SamplerName; 8] = [
        SamplerName::Lcm,
        SamplerName::Tcd,
        SamplerName::Ddim,
        SamplerName::Pndm,
        SamplerName::Euler,
        SamplerName::EulerAncestral,
        SamplerName::Dpm,
        SamplerName::DpmKarras,
    ];

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name that is typed.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The name that is written into pictures, as A1111 has it.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// Steps that are usual with it.
    pub fn usual_steps(self) -> usize {
        self.row().4
    }

    /// The guidance scale that is usual with it.
    pub fn usual_guidance(self) -> f64 {
        self.row().5
    }

    /// The one that a scheduler's configuration names; LCM where it names none.
    ///
    /// # Errors
    /// A scheduler that is not there.
    pub fn of(config: &SamplerConfig) -> Result<Self, SamplerError> {
        let Some(class) = config.class.as_deref() else { return Ok(SamplerName::Lcm) };
        match TABLE.iter().find(|row| row.3 == class).map(|row| row.0) {
            Some(SamplerName::Dpm) if config.use_karras_sigmas => Ok(SamplerName::DpmKarras),
            Some(name) => Ok(name),
            None => Err(SamplerError::Unknown { class: class.to_owned() }),
        }
    }

    /// The names, for a list.
    pub fn known() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for SamplerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SamplerName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.as_str() == name);
        found.ok_or_else(|| format!("no sampler is called {name:?}; there are {}", Self::known()))
    }
}
