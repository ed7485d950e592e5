//! Frames that wait, frames that are on their way, and drawn frames, which leave in the order in which they came.

use super::QueueOptions;
use crate::Error;
use rockshard_diffusion::Picture;
use rockshard_diffusion::stream::FrameSource;
use rockshard_manifest::CoreId;
use rockshard_runtime::{Incident, Trace};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A frame of a stream.
#[derive(Clone, Debug)]
pub struct StreamFrame {
    /// Its place among those that were given to the stream, from 0; numbers that are missing were dropped.
    pub number: u64,
    /// What was drawn; for a skipped frame, that of the one before.
    pub picture: Arc<Picture>,
    /// Whether the similarity filter skipped it.
    pub skipped: bool,
    /// How often settings had changed when it, or the one that it repeats, entered.
    pub generation: u64,
    /// From when it was given to when it was drawn.
    pub latency: Duration,
}

/// What has happened in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct StreamStats {
    /// Frames that were given.
    pub given: u64,
    /// Of these, dropped because newer ones came.
    pub dropped: u64,
    /// Skipped by the similarity filter.
    pub skipped: u64,
    /// Drawn.
    pub drawn: u64,
    /// That could not be drawn.
    pub failed: u64,
    /// Microseconds in which cores were busy, measured.
    pub busy_us: f64,
    /// The same, modelled; 0 where the device models nothing.
    pub modelled_busy_us: f64,
}

/// A frame that is taken from the queue.
pub(super) struct Taken {
    pub number: u64,
    /// Place among those that leave.
    pub order: u64,
    pub source: FrameSource,
    pub since: Instant,
}

/// What becomes of a frame.
pub(super) enum End {
    Drawn(Picture, u64),
    Skipped,
    Failed(Error),
}

struct Leaving {
    number: u64,
    since: Instant,
    end: End,
    at: Instant,
}

struct State {
    waiting: VecDeque<(u64, FrameSource, Instant)>,
    closed: bool,
    stopped: bool,
    /// Frames that were taken, and that have left.
    taken: u64,
    left: u64,
    leaving: BTreeMap<u64, Leaving>,
    last: Option<(Arc<Picture>, u64)>,
    stats: StreamStats,
    incidents: Vec<Incident>,
}

pub(super) struct Queue {
    options: QueueOptions,
    /// Frames that may be on their way or drawn before the first of them leaves.
    room: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// Incidents that are kept until they are asked for.
const MOST_INCIDENTS: usize = 1000;

impl Queue {
    pub fn new(options: QueueOptions, room: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            closed: false,
            stopped: false,
            taken: 0,
            left: 0,
            leaving: BTreeMap::new(),
            last: None,
            stats: StreamStats::default(),
            incidents: Vec::new(),
        };
        let options = QueueOptions { capacity: options.capacity.max(1), ..options };
        Queue { options, room, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a frame that is given; `None` when it is too late.
    pub fn push(&self, source: FrameSource) -> Option<u64> {
        let mut state = self.state();
        while !self.options.drop_stale
            && state.waiting.len() >= self.options.capacity
            && !state.closed
        {
            state = self.wait(state);
        }
        if state.closed {
            return None;
        }
        if state.waiting.len() >= self.options.capacity {
            state.waiting.pop_front();
            state.stats.dropped += 1;
        }
        let number = state.stats.given;
        state.stats.given += 1;
        state.waiting.push_back((number, source, Instant::now()));
        self.changed.notify_all();
        Some(number)
    }

    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Close, and forget what waits.
    pub fn stop(&self) {
        let mut state = self.state();
        (state.closed, state.stopped) = (true, true);
        state.waiting.clear();
        self.changed.notify_all();
    }

    /// The next frame that waits, when there is room for it; `None` when no more come.
    pub fn take(&self) -> Option<Taken> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            let room = state.taken - state.left < self.room as u64;
            if room && let Some((number, source, since)) = state.waiting.pop_front() {
                let order = state.taken;
                state.taken += 1;
                self.changed.notify_all();
                return Some(Taken { number, order, source, since });
            }
            if state.closed && state.waiting.is_empty() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// A frame is done.
    pub fn done(&self, order: u64, number: u64, since: Instant, end: End) {
        let mut state = self.state();
        match end {
            End::Drawn(..) => state.stats.drawn += 1,
            End::Skipped => state.stats.skipped += 1,
            End::Failed(_) => state.stats.failed += 1,
        }
        state.leaving.insert(order, Leaving { number, since, end, at: Instant::now() });
        self.changed.notify_all();
    }

    /// Count what ran.
    pub fn ran(&self, trace: Trace) {
        let mut state = self.state();
        for run in trace.shard_runs.iter().filter(|r| r.core != CoreId::Host) {
            state.stats.busy_us += run.end_us - run.start_us;
            state.stats.modelled_busy_us += run.modelled_us.unwrap_or(0.0);
        }
        state.incidents.extend(trace.incidents);
        let surplus = state.incidents.len().saturating_sub(MOST_INCIDENTS);
        state.incidents.drain(..surplus);
    }

    /// The next frame to leave.
    pub fn next(&self) -> Option<Result<StreamFrame, Error>> {
        let mut state = self.state();
        loop {
            let order = state.left;
            if let Some(Leaving { number, since, end, at }) = state.leaving.remove(&order) {
                state.left += 1;
                self.changed.notify_all();
                let skipped = matches!(end, End::Skipped);
                match end {
                    End::Drawn(picture, generation) => {
                        state.last = Some((Arc::new(picture), generation));
                    }
                    End::Skipped => {}
                    End::Failed(error) => return Some(Err(error)),
                }
                // Nothing to repeat: the frame that it is like could not be drawn, which was said.
                let Some((picture, generation)) = state.last.clone() else { continue };
                let latency = at.duration_since(since);
                return Some(Ok(StreamFrame { number, picture, skipped, generation, latency }));
            }
            if state.stopped
                || state.closed && state.waiting.is_empty() && state.left == state.taken
            {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Frames that were given and have neither left nor been dropped.
    pub fn outstanding(&self) -> usize {
        let state = self.state();
        state.waiting.len() + (state.taken - state.left) as usize
    }

    pub fn stats(&self) -> StreamStats {
        self.state().stats
    }

    pub fn take_incidents(&self) -> Vec<Incident> {
        std::mem::take(&mut self.state().incidents)
    }
}
