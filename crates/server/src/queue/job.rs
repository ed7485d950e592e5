//! A work that was taken: what is known of it, for whoever waits for it.

use crate::work::{EncodedPicture, Failure, FailureKind, Output, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::watch;

/// The name of a job: 128 random bits, which nobody guesses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobId(String);

impl JobId {
    /// A new one.
    pub fn random() -> Self {
        JobId(crate::random::word())
    }

    /// The name that somebody gave.
    pub fn given(name: &str) -> Self {
        JobId(name.to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It waits.
    #[default]
    Waiting,
    /// It is being done.
    Running,
    /// It is over.
    Over,
}

/// What is known of a job.
#[derive(Clone, Debug, Default)]
pub struct JobState {
    /// How far it is.
    pub phase: Phase,
    /// Pieces that are done.
    pub done: usize,
    /// Unfinished pictures, by how often they were shown before.
    pub previews: Vec<Arc<Vec<EncodedPicture>>>,
    /// Words so far.
    pub words: String,
    /// What came of it, once it is over.
    pub outcome: Option<Result<Arc<Output>, Failure>>,
}

/// A work that was taken.
#[derive(Debug)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// The word for its kind.
    pub kind: &'static str,
    /// Name of its pack.
    pub pack: String,
    /// Whose it is.
    pub client: String,
    /// Pieces in which its progress is counted.
    pub pieces: usize,
    /// Steps of each picture; 0 for words.
    pub steps: usize,
    /// When it was taken.
    pub created: SystemTime,
    /// The same, by the clock that waits are measured with.
    pub since: Instant,
    state: watch::Sender<JobState>,
    fetched: AtomicBool,
}

impl Job {
    /// A job that waits.
    pub fn new(work: &Work, client: &str) -> Self {
        Job {
            id: JobId::random(),
            kind: work.kind(),
            pack: work.pack().to_owned(),
            client: client.to_owned(),
            pieces: work.pieces(),
            steps: work.steps(),
            created: SystemTime::now(),
            since: Instant::now(),
            state: watch::Sender::new(JobState::default()),
            fetched: AtomicBool::new(false),
        }
    }

    /// What is known of it now.
    pub fn state(&self) -> JobState {
        self.state.borrow().clone()
    }

    /// Bytes of what came of it.
    pub fn bytes(&self) -> usize {
        let state = self.state.borrow();
        state.outcome.as_ref().and_then(|o| o.as_ref().ok()).map_or(0, |output| output.bytes())
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.state.borrow().phase == Phase::Over
    }

    /// Somebody has what came of it.
    pub fn set_fetched(&self) {
        self.fetched.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has what came of it.
    pub fn is_fetched(&self) -> bool {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Follow it.
    pub fn watch(&self) -> watch::Receiver<JobState> {
        self.state.subscribe()
    }

    /// Enter what is known; nothing changes once it is over.
    pub fn change(&self, change: impl FnOnce(&mut JobState)) {
        self.state.send_if_modified(|state| {
            let open = state.phase != Phase::Over;
            if open {
                change(state);
            }
            open
        });
    }

    /// It is over; of several ends the first counts.
    pub fn end(&self, outcome: Result<Output, Failure>) {
        self.change(|state| {
            state.phase = Phase::Over;
            if outcome.is_ok() {
                state.done = self.pieces;
            }
            state.outcome = Some(outcome.map(Arc::new));
        });
    }

    /// Wait for what comes of it.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn outcome(&self) -> Result<Arc<Output>, Failure> {
        let mut state = self.watch();
        let gone = || Failure { kind: FailureKind::Device, message: "the job was lost".into() };
        let over = state.wait_for(|state| state.phase == Phase::Over).await.map_err(|_| gone())?;
        over.outcome.clone().unwrap_or_else(|| Err(gone()))
    }
}
