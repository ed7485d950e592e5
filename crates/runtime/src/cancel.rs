//! A way to stop runs from outside. A [`Cancel`] knows the runs that were given it and stops them itself, so that what they hold is
//! freed at once and not when a core happens to look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What can be stopped.
pub(crate) trait Stop: Send + Sync {
    /// Give up what has not begun, and free what is held.
    fn stop(&self);
}

/// Stops the runs that were submitted with it, between shards. Clones belong together.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    runs: Mutex<Vec<Weak<dyn Stop>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cancelled.fmt(f)
    }
}

impl Cancel {
    /// Stop the runs: shards that are running finish and their values are dropped, no others start. Runs that are submitted with it
    /// later do not start; one that is to run needs another `Cancel`.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let runs = std::mem::take(&mut *self.0.runs.lock().unwrap_or_else(PoisonError::into_inner));
        runs.iter().filter_map(Weak::upgrade).for_each(|run| run.stop());
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Stop `run` when this is cancelled, or now if it was.
    pub(crate) fn watch(&self, run: Weak<dyn Stop>) {
        let mut runs = self.0.runs.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are dropped whenever their number may have doubled.
        if runs.len() == runs.capacity() {
            runs.retain(|run| run.strong_count() > 0);
        }
        runs.push(run.clone());
        drop(runs);
        if self.is_cancelled() {
            run.upgrade().inspect(|run| run.stop());
        }
    }
}
