//! What a caller says of the cores and of a run.

use crate::{Cancel, ShardRun, TensorMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How the cores are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoresOptions {
    /// NPU cores to use.
    pub cores: u8,
    /// Longest time that opening or running one shard may take. After it the core counts as hanging: its thread is replaced, and the
    /// shard is tried elsewhere. Waiting for a core, or for memory, is not part of it.
    pub time_limit: Duration,
    /// Most modelled device memory, in bytes, of models that are open together; `None` is no limit.
    pub memory_limit: Option<u64>,
}

impl CoresOptions {
    /// The NPU's driver waits for a core three times six seconds and then resets all of them; this is above that.
    const TIME_LIMIT: Duration = Duration::from_secs(30);

    /// These cores, 30 seconds for a shard, and no limit of memory.
    pub fn new(cores: u8) -> Self {
        CoresOptions { cores, time_limit: Self::TIME_LIMIT, memory_limit: None }
    }
}

/// Who submits runs. Clients that wait for a core get equal shares of it, however much each has submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client(pub(crate) u64);

impl Client {
    /// A client like no other. `Client::default()` is one that all share who do not care.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Client(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How large a run's share of a core is beside those of others. Nobody waits for ever: the shares are as 1 to 4 to 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Work that nobody waits for.
    Low,
    /// The usual one.
    #[default]
    Normal,
    /// Someone is looking.
    High,
}

impl Priority {
    /// How large the share is beside that of others.
    pub fn weight(self) -> f64 {
        match self {
            Priority::Low => 0.25,
            Priority::Normal => 1.0,
            Priority::High => 4.0,
        }
    }
}

/// What happens to a run.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A shard has run for an item.
    Shard(&'a ShardRun),
    /// An item has all its outputs, unscaled.
    Item {
        /// Its place among the run's items.
        item: usize,
        /// Outputs by name.
        outputs: &'a TensorMap,
    },
    /// The run is over; [`Ticket::wait`](crate::Ticket::wait) returns at once.
    Ended,
}

/// Is told of a run's events, mostly on the thread of a core: it must be quick, and must not wait for a run.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Event<'_>) + Send + Sync>);

impl Observer {
    /// An observer that calls a function.
    pub fn new(tell: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Observer(Arc::new(tell))
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// What a run is submitted with.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Stops it.
    pub cancel: Cancel,
    /// For whom it is.
    pub client: Client,
    /// Its share beside others.
    pub priority: Priority,
    /// When it is given up if it has not ended.
    pub deadline: Option<Instant>,
    /// Is told how it goes.
    pub observer: Option<Observer>,
}
