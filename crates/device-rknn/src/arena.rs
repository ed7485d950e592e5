//! Memory of activations, one for each core. Runs on a core follow each other, so the sessions of a core need no more than the largest of
//! them; each with its own would take several times a board's memory.
//!
//! A run has the memory to itself for its [`Turn`]; everything else about an arena is known without waiting for one. A run may never
//! return from the runtime, and its turn then never ends, so whoever needs the memory waits for [`PATIENCE`] and is told that
//! it is [`NoRoom::Held`].

use crate::CallError;
use crate::api::{Api, Context, Memory};
use rockshard_rknn_abi::Code;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a turn is waited for. One thread runs a core's sessions, so that there is nothing to wait for unless a run hangs or two
/// programs' threads share a device.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A core's memory of activations.
pub(crate) struct Arena {
    api: Arc<Api>,
    state: Mutex<State>,
    turn_ended: Condvar,
}

#[derive(Default)]
struct State {
    memory: Option<Memory>,
    /// What the sessions that share it need.
    needs: Vec<usize>,
    /// Whether a run has its turn; `memory` stays as it is until that ends.
    held: bool,
}

/// Why a session does not get the memory it needs.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    /// The runtime refused a call.
    #[error(transparent)]
    Refused(#[from] CallError),
    /// A run has the memory and does not return.
    #[error(
        "a run that has not returned holds this core's memory of activations; the other cores have their own"
    )]
    Held,
}

/// A session's part in an arena.
pub(crate) struct Share {
    arena: Arc<Arena>,
    bytes: usize,
}

/// An arena that no other run uses as long as this exists.
pub(crate) struct Turn<'a> {
    share: &'a Share,
}

impl Arena {
    pub(crate) fn new(api: &Arc<Api>) -> Arc<Self> {
        Arc::new(Arena { api: api.clone(), state: Mutex::default(), turn_ended: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state while no run has its turn.
    fn free<'a>(&self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>, NoRoom> {
        let (state, _) = self
            .turn_ended
            .wait_timeout_while(state, PATIENCE, |state| state.held)
            .unwrap_or_else(PoisonError::into_inner);
        if state.held { Err(NoRoom::Held) } else { Ok(state) }
    }

    /// Have room for a session that needs this many bytes. Sessions that ran on a smaller memory change over with their next run.
    pub(crate) fn share(self: &Arc<Self>, bytes: usize) -> Result<Share, NoRoom> {
        let mut state = self.state();
        if bytes > state.bytes() {
            state = self.free(state)?;
        }
        if bytes > state.bytes() {
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
                    return Err(error.into());
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

impl State {
    fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::bytes)
    }
}

impl Share {
    /// Have the arena for a run, once no other run does.
    pub(crate) fn turn(&self) -> Result<Turn<'_>, NoRoom> {
        self.arena.free(self.arena.state())?.held = true;
        Ok(Turn { share: self })
    }
}

impl Turn<'_> {
    /// Let the arena stand for a context's activations.
    pub(crate) fn bind(&self, context: &mut Context) -> Result<(), CallError> {
        let bytes = self.share.bytes;
        match &self.share.arena.state().memory {
            _ if bytes == 0 => Ok(()),
            Some(memory) if memory.bytes() >= bytes => context.bind_internal(memory, bytes),
            _ => Err(CallError { function: "rknn_create_mem2", raw: Code::Malloc.raw() }),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.share.arena.state().held = false;
        self.share.arena.turn_ended.notify_one();
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
    use std::time::Instant;

    fn arena() -> (Arc<Arena>, Arc<Pool>) {
        let api = Arc::new(
            Api::load(&std::env::current_exe().unwrap().with_file_name("librknnrt.so")).unwrap(),
        );
        (Arena::new(&api), Pool::new(api))
    }

    fn bytes(arena: &Arc<Arena>) -> usize {
        arena.state().bytes()
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

    #[test]
    fn a_turn_that_does_not_end_is_told_to_those_who_need_it_and_to_nobody_else() {
        let (arena, _pool) = arena();
        let (hung, other) = (arena.share(1_000_000).unwrap(), arena.share(1_000).unwrap());
        let turn = hung.turn().unwrap();
        let began = Instant::now();
        assert!(matches!(other.turn(), Err(NoRoom::Held)));
        assert!(matches!(arena.share(2_000_000), Err(NoRoom::Held)), "its memory cannot grow");
        assert!(began.elapsed() < 3 * PATIENCE);
        let began = Instant::now();
        drop((arena.share(500_000).unwrap(), other));
        arena.trim();
        assert!(began.elapsed() < PATIENCE / 2, "sharing, leaving and trimming wait for no turn");
        assert_eq!(bytes(&arena), 1_000_000);
        let waiting = arena.share(10).unwrap();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| waiting.turn().is_ok());
            std::thread::sleep(PATIENCE / 10);
            drop(turn);
            assert!(next.join().unwrap(), "a turn that ends in time is followed by the next");
        });
    }
}
