//! What a simulation takes: tasks on lanes, with the tasks they wait for and the phases of their time.

use serde::Serialize;

/// Where a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// A core of the NPU; it does one task at a time.
    Core(u8),
    /// The host's processor, which has room for all that is ready.
    Host,
}

/// A piece of a task with one mix of work: an operator of the compiled graph, or what a call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Microseconds while nothing else runs.
    pub micros: f64,
    /// Microseconds of these in which it waits for the memory: its bytes at the rate that one core reaches alone.
    pub streaming: f64,
}

/// One run of one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Shard, for timelines.
    pub name: String,
    /// Model, for timelines.
    pub model: String,
    /// Item that it belongs to.
    pub item: usize,
    /// Cores that it takes, all at once; none for work of the host.
    pub cores: Vec<u8>,
    /// Tasks that must end first, by index; smaller than its own.
    pub needs: Vec<usize>,
    /// What it does.
    pub phases: Vec<Phase>,
}

impl Task {
    /// Microseconds it takes while nothing else runs.
    pub fn micros(&self) -> f64 {
        self.phases.iter().map(|p| p.micros).sum()
    }

    /// Where it is drawn: its first core.
    pub fn lane(&self) -> Lane {
        self.cores.first().map_or(Lane::Host, |&c| Lane::Core(c))
    }
}
