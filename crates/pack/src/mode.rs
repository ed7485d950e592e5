//! How several items go through the cores.

use rockshard_manifest::{CoreId, Placement};
use std::{fmt, str::FromStr};

/// Items of a run that are under way at a time, for each core.
pub const IN_FLIGHT_PER_CORE: usize = 2;

/// How several items of a pack go through the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each shard runs on the core that the manifest pins it to, modulo the cores in use.
    Pipeline,
    /// Every core holds every shard; an item runs on one core.
    Replicate,
}

impl Mode {
    /// The mode a pack was converted for.
    pub fn of(placement: Placement) -> Self {
        if placement == Placement::Replicate { Mode::Replicate } else { Mode::Pipeline }
    }

    /// Whether a lane, the number of an NPU core, holds a shard of `core` when `cores` are in use. Shards of the host are on no core.
    pub fn holds(self, lane: usize, core: CoreId, cores: usize) -> bool {
        match (core, self) {
            (CoreId::Host, _) => false,
            (CoreId::Npu(_), Mode::Replicate) => lane < cores,
            (CoreId::Npu(pinned), Mode::Pipeline) => lane == usize::from(pinned) % cores.max(1),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Pipeline => "pipeline",
            Mode::Replicate => "replicate",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Mode::Pipeline, Mode::Replicate];
        let found = known.into_iter().find(|mode| mode.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is neither pipeline nor replicate"))
    }
}
