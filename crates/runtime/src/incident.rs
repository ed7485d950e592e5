//! What went wrong on a core and was dealt with: kept with the run it happened to, and logged.

use rockshard_manifest::CoreId;
use serde::Serialize;

/// A fault that was met, and what was done about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Number of the run it happened to; `None` while a pack was being loaded.
    pub run: Option<u64>,
    /// Item of that run; `None` while shards were being opened.
    pub item: Option<usize>,
    /// Shard.
    pub shard: String,
    /// Core it happened on.
    pub core: CoreId,
    /// What happened.
    pub cause: String,
    /// What was done.
    pub action: Action,
}

/// What was done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "action", content = "core")]
pub enum Action {
    /// The shard was opened and run on the same core again.
    Retried,
    /// The shard was moved to this core.
    Moved(CoreId),
    /// Cores agree on the value, so it was passed on.
    PassedOn,
    /// Nothing was left to try; opening or running the shard failed.
    GaveUp,
    /// A model that was not in use was closed, and the shard's model opened again.
    MadeRoom,
    /// The core failed several times in a row; work goes to other cores as long as there is one.
    SetAside,
}

impl Incident {
    /// An incident of no run or item yet.
    pub(crate) fn new(shard: &str, core: CoreId, cause: String, action: Action) -> Self {
        Incident { run: None, item: None, shard: shard.to_owned(), core, cause, action }
    }

    /// It happened to this run and item. Logs it.
    pub(crate) fn of(mut self, run: Option<u64>, item: Option<usize>) -> Self {
        (self.run, self.item) = (run, item);
        tracing::warn!("{self}");
        self
    }
}

impl std::fmt::Display for Incident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Incident { shard, core, cause, .. } = self;
        let done = match self.action {
            Action::Retried => "trying again".to_owned(),
            Action::Moved(to) => format!("moved to {to}"),
            Action::PassedOn => "cores agree on the values, which are passed on".to_owned(),
            Action::GaveUp => "giving up".to_owned(),
            Action::MadeRoom => "closing a model that is not in use".to_owned(),
            Action::SetAside => format!("{core} is set aside"),
        };
        write!(f, "shard {shard} on {core}: {cause}; {done}")
    }
}
