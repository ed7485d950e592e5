//! Sessions: places among those that draw, a line for the others, and those whose connection was lost.

use super::engine::Engine;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a session is kept when its connection is lost.
pub const KEPT: Duration = Duration::from_secs(30);
/// Most sessions that wait, and that are kept.
const MOST_WAITING: usize = 64;
const MOST_KEPT: usize = 64;

/// A session.
pub struct Session {
    /// What draws.
    pub engine: Engine,
    /// Name of the model.
    pub model: String,
    /// Size of the pictures.
    pub size: [u32; 2],
}

#[derive(Default)]
struct State {
    active: usize,
    /// Those that wait, by number.
    line: VecDeque<u64>,
    numbers: u64,
    kept: HashMap<String, (Instant, Session)>,
    closed: bool,
}

/// All sessions.
#[derive(Clone)]
pub struct Sessions {
    places: usize,
    state: Arc<Mutex<State>>,
}

/// A place in line, or among those that draw; given back when it is dropped.
pub struct Place {
    sessions: Sessions,
    number: u64,
    active: bool,
}

impl Sessions {
    /// With places for so many that draw at a time.
    pub fn new(places: usize) -> Self {
        Sessions { places: places.max(1), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Get in line; `None` where it is too long, or the server stops.
    pub fn enter(&self) -> Option<Place> {
        let mut state = self.state();
        if state.closed || state.line.len() >= MOST_WAITING {
            return None;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.line.push_back(number);
        Some(Place { sessions: self.clone(), number, active: false })
    }

    /// Sessions that draw, and that wait.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.active, state.line.len())
    }

    /// Sessions whose connection was lost.
    pub fn away(&self) -> usize {
        self.state().kept.len()
    }

    /// Keep a session for its client to come back. Those that were kept too long are dropped.
    pub fn keep(&self, token: String, session: Session) {
        session.engine.pause();
        let old = {
            let mut state = self.state();
            let old = state.take_old();
            if state.closed || state.kept.len() >= MOST_KEPT {
                drop(state);
                drop(session);
                return;
            }
            state.kept.insert(token, (Instant::now(), session));
            old
        };
        drop(old);
    }

    /// The session of a token.
    pub fn take(&self, token: &str) -> Option<Session> {
        let (old, found) = {
            let mut state = self.state();
            (state.take_old(), state.kept.remove(token))
        };
        drop(old);
        found.map(|(_, session)| session)
    }

    /// Drop sessions that were kept too long. Dropping waits for their threads: this is not for an async task.
    pub fn sweep(&self) {
        let old = self.state().take_old();
        drop(old);
    }

    /// Let nobody in any more.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Whether nobody is let in any more.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }
}

impl State {
    fn take_old(&mut self) -> Vec<Session> {
        let old = self.kept.iter().filter(|(_, (since, _))| since.elapsed() > KEPT);
        let old: Vec<String> = old.map(|(token, _)| token.clone()).collect();
        old.iter().filter_map(|token| Some(self.kept.remove(token)?.1)).collect()
    }
}

impl Place {
    /// Its place in line, counted from 1; 0 once it draws.
    pub fn position(&mut self) -> usize {
        if self.active {
            return 0;
        }
        let mut state = self.sessions.state();
        let at = state.line.iter().position(|number| *number == self.number).unwrap_or(0);
        if at == 0 && state.active < self.sessions.places {
            state.line.pop_front();
            state.active += 1;
            self.active = true;
            return 0;
        }
        at + 1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.sessions.state();
        if self.active {
            state.active -= 1;
        } else {
            state.line.retain(|number| *number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_in_order_and_given_back() {
        let sessions = Sessions::new(1);
        let mut first = sessions.enter().unwrap();
        let (mut second, mut third) = (sessions.enter().unwrap(), sessions.enter().unwrap());
        assert_eq!((first.position(), second.position(), third.position()), (0, 1, 2));
        assert_eq!(sessions.counts(), (1, 2));
        drop(second);
        assert_eq!(third.position(), 1);
        drop(first);
        assert_eq!((third.position(), sessions.counts()), (0, (1, 0)));
        sessions.close();
        assert!(sessions.enter().is_none());
    }
}
