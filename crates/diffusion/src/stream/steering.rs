//! Changing what a stream draws while it runs: settings are made ready beside the frames, and taken up at the next one that enters.

use super::prepared::Prepared;
use crate::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The settings that the next frame is drawn with.
pub(super) struct Steering(Mutex<State>);

struct State {
    now: Arc<Prepared>,
    /// Where frames are going from, how many have gone, and how many it takes.
    from: Option<(Arc<Prepared>, usize, usize)>,
}

impl Steering {
    pub fn new(first: Prepared) -> Self {
        Steering(Mutex::new(State { now: Arc::new(first), from: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings that were asked for last.
    pub fn latest(&self) -> Arc<Prepared> {
        self.state().now.clone()
    }

    /// Go to other settings within `frames` frames; 0 and 1 are at once.
    pub fn go(&self, to: Prepared, frames: usize) -> Result<u64, Error> {
        let mut state = self.state();
        let from = if frames > 1 { Some((state.taken(0)?, 0, frames)) } else { None };
        let generation = state.now.generation + 1;
        *state = State { now: Arc::new(Prepared { generation, ..to }), from };
        Ok(generation)
    }

    /// The settings of the next `frames` frames.
    pub fn take(&self, frames: usize) -> Result<Arc<Prepared>, Error> {
        let mut state = self.state();
        let taken = state.taken(1)?;
        if let Some((_, gone, all)) = &mut state.from {
            *gone += frames;
            if *gone >= *all {
                state.from = None;
            }
        }
        Ok(taken)
    }
}

impl State {
    /// The settings of the frame that is `ahead` of those that have gone.
    fn taken(&self, ahead: usize) -> Result<Arc<Prepared>, Error> {
        match &self.from {
            Some((from, gone, all)) => {
                let share = (gone + ahead) as f32 / *all as f32;
                Ok(Arc::new(from.towards(&self.now, share.min(1.0))?))
            }
            None => Ok(self.now.clone()),
        }
    }
}
