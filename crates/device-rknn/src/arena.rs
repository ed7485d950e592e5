//! Memory of activations, one for each core. Runs on a core follow each other, so the sessions of a core need no more than the largest of
//! them; each with its own would take several times a board's memory.

use crate::CallError;
use crate::api::{Api, Context, Memory};
use rockshard_rknn_abi::Code;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A core's memory of activations.
pub(crate) struct Arena {
    api: Arc<Api>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: Option<Memory>,
    /// What the sessions that share it need.
    needs: Vec<usize>,
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

    /// Have room for a session that needs this many bytes. Sessions that ran on a smaller memory change over with their next run.
    pub(crate) fn share(self: &Arc<Self>, bytes: usize) -> Result<Share, CallError> {
        let mut state = self.state();
        if bytes > state.memory.as_ref().map_or(0, Memory::bytes) {
            let grown = Memory::new(&self.api, bytes).or_else(|_| {
                // The smaller one may be in the way.
                state.memory = None;
                Memory::new(&self.api, bytes)
            });
            match grown {
                Ok(memory) => state.memory = Some(memory),
                Err(error) => {
                    // The others still need theirs; where that is refused too, their next run says so.
                    let largest = state.needs.iter().copied().max();
                    state.memory = largest.and_then(|bytes| Memory::new(&self.api, bytes).ok());
                    return Err(error);
                }
            }
        }
        state.needs.push(bytes);
        Ok(Share { arena: self.clone(), bytes })
    }

    /// Give up memory that no session shares.
    pub(crate) fn trim(&self) {
        let mut state = self.state();
        if state.needs.is_empty() {
            state.memory = None;
        }
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
            _ if self.bytes == 0 => Ok(()),
            Some(memory) if memory.bytes() >= self.bytes => {
                context.bind_internal(memory, self.bytes)
            }
            _ => Err(CallError { function: "rknn_create_mem2", raw: Code::Malloc.raw() }),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.arena.state();
        let own = state.needs.iter().position(|&need| need == self.bytes);
        own.map(|at| state.needs.swap_remove(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    fn arena() -> (Arc<Arena>, Arc<Pool>) {
        let api = Arc::new(
            Api::load(&std::env::current_exe().unwrap().with_file_name("librknnrt.so")).unwrap(),
        );
        (Arena::new(&api), Pool::new(api))
    }

    fn bytes(arena: &Arc<Arena>) -> usize {
        arena.state().memory.as_ref().map_or(0, Memory::bytes)
    }

    #[test]
    fn an_arena_is_never_smaller_than_its_sessions_need() {
        let (arena, pool) = arena();
        let small = arena.share(1_000_000).unwrap();
        assert_eq!(bytes(&arena), 1_000_000);
        let taken = pool.take(2_500_000_000).unwrap();
        assert!(arena.share(2_000_000_000).is_err(), "the device is full");
        assert_eq!(bytes(&arena), 1_000_000, "what is open has its memory");
        let smaller = arena.share(1_000).unwrap();
        assert_eq!(bytes(&arena), 1_000_000);
        drop(taken);
        pool.trim();
        let large = arena.share(2_000_000_000).unwrap();
        drop((small, large));
        arena.trim();
        assert_eq!(bytes(&arena), 2_000_000_000, "a session shares it");
        drop(smaller);
        arena.trim();
        assert_eq!(bytes(&arena), 0);
    }
}
