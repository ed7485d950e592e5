//! Memory of activations, one for each core. Runs on a core follow each other, so the sessions of a core need no more than the largest of
//! them; each with its own would take several times a board's memory.

use crate::CallError;
use crate::api::{Api, Context, Memory};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A core's memory of activations.
pub(crate) struct Arena {
    api: Arc<Api>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: Option<Memory>,
    /// Sessions that share it.
    sessions: usize,
}

/// A session's part in an arena.
pub(crate) struct Share {
    arena: Arc<Arena>,
    bytes: usize,
}

/// An arena that nobody else uses as long as this exists.
pub(crate) struct Turn<'a> {
    state: MutexGuard<'a, State>,
    bytes: usize,
}

impl Arena {
    pub(crate) fn new(api: &Arc<Api>) -> Arc<Self> {
        Arc::new(Arena { api: api.clone(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have room for a session that needs this many bytes.
    pub(crate) fn share(self: &Arc<Self>, bytes: usize) -> Result<Share, CallError> {
        let mut state = self.state();
        if bytes > state.memory.as_ref().map_or(0, Memory::bytes) {
            // Sessions that ran on the smaller one change over with their next run.
            state.memory = None;
            state.memory = Some(Memory::new(&self.api, bytes)?);
        }
        state.sessions += 1;
        Ok(Share { arena: self.clone(), bytes })
    }
}

impl Share {
    /// Wait until nobody else uses the arena.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { state: self.arena.state(), bytes: self.bytes }
    }
}

impl Turn<'_> {
    /// Let the arena stand for a context's activations.
    pub(crate) fn bind(&self, context: &mut Context) -> Result<(), CallError> {
        match &self.state.memory {
            Some(memory) if self.bytes > 0 => context.bind_internal(memory, self.bytes),
            _ => Ok(()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.arena.state();
        state.sessions -= 1;
        if state.sessions == 0 {
            state.memory = None;
        }
    }
}
