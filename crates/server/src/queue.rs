//! What waits for the board. Routes know the [`Queue`] and its [`Job`]s only; [`local`] does the work in this process.

pub mod fair;
mod job;
pub mod local;

use crate::work::{Terms, Work};
pub use job::{Job, JobId, JobState, Phase};
use std::sync::Arc;
use std::time::Duration;

/// Takes work, and tells of it through jobs. Nothing here assumes that work is done in this process.
pub trait Queue: Send + Sync {
    /// Take a work, or refuse it.
    ///
    /// # Errors
    /// No room for it, or no work is taken any more.
    fn submit(&self, work: Work, terms: Terms) -> Result<Arc<Job>, Refusal>;

    /// A job that was taken and not forgotten yet.
    fn find(&self, id: &JobId) -> Option<Arc<Job>>;

    /// Give a job up, wherever it is.
    fn cancel(&self, id: &JobId);

    /// Forget a job that is over.
    fn forget(&self, id: &JobId);

    /// Jobs of a client that are not over.
    fn jobs_of(&self, client: &str) -> Vec<Arc<Job>>;

    /// Where a waiting job stands: jobs before it, and about how long they take.
    fn position(&self, id: &JobId) -> Option<Position>;

    /// How much there is to do.
    fn load(&self) -> Load;

    /// Take no more work; what was taken is done.
    fn drain(&self);

    /// What clients still wait for.
    fn owed(&self) -> Owed;
}

/// What clients wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Jobs that are not over.
    pub running: usize,
    /// Jobs that are kept, and that nobody has fetched.
    pub unfetched: usize,
}

/// Why a work is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The queue is full; there may be room after this time.
    Full(Duration),
    /// This client has too many jobs that wait.
    TooMany(Duration),
    /// The server is about to stop.
    Draining,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Jobs that are begun before it.
    pub ahead: usize,
    /// About how long until it is begun.
    pub wait: Duration,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that are being done.
    pub running: usize,
    /// Jobs that may wait.
    pub limit: usize,
    /// About how long until all of them are done.
    pub wait: Duration,
    /// Whether no more work is taken.
    pub draining: bool,
}
