//! The NPU's kernel driver, as far as a program notices it: which cores a job runs on and when, what a timeout does to the others, and
//! how much memory there is (docs/rk3588.md 1.1 and 1.4; the vendor's driver 0.9.8).
//!
//! - A job's mask is 1, 2 or 4 (one core), 3 (the first two) or 7 (all). The runtime also takes 0, with which the core that has the fewest
//!   tasks queued is picked, the lowest of several, and 0xffff, which is all cores.
//! - Each core has a queue, first in, first out. A job is started when it is at the head of the queue of each of its cores, so one
//!   for several cores keeps those that are free waiting. Nothing is interrupted, and there are no priorities.
//! - A job that does not end in time resets all cores: every job that was queued or running then fails.
//! - A process has one address space, of less than 4 GiB.
//!
//! Jobs are run by the threads that submit them; no time passes but theirs.

use rockshard_cost::Rk3588;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Mask with which the driver picks the core.
pub const AUTO: u32 = 0;
/// Mask of all cores, however many.
pub const ALL: u32 = 0xffff;
const MASKS: [u32; 5] = [1, 2, 4, 3, 7];

/// The driver of one process.
pub struct Driver {
    chip: Rk3588,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Jobs of each core and their tasks, the running one first.
    queues: Vec<VecDeque<(u64, u64)>>,
    /// Jobs submitted so far.
    jobs: u64,
    resets: u64,
    hangs: Option<u64>,
    used: u64,
}

/// Why a job gave nothing, or memory cannot be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DriverError {
    /// No mask that the driver takes.
    #[error(
        "core mask {0:#x} is none of 0, 1, 2, 4, 3, 7 and 0xffff, or of a core that is not there"
    )]
    Mask(u32),
    /// The job did not end.
    #[error("the job did not end within {0} s: all cores were reset")]
    Timeout(f64),
    /// Another job did not end.
    #[error("all cores were reset, because a job of another context did not end")]
    Reset,
    /// The address space is used up.
    #[error(
        "{asked} bytes do not fit: {used} of {space} bytes of the NPU's address space are used"
    )]
    Space {
        /// Bytes asked for.
        asked: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes there are.
        space: u64,
    },
}

/// Memory of the address space, until it is dropped.
pub struct Allocation {
    driver: Arc<Driver>,
    bytes: u64,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.driver.state().used -= self.bytes;
    }
}

/// A job in its queues. It leaves them when this is dropped, however its work ended.
struct Queued<'a> {
    driver: &'a Driver,
    job: u64,
    resets: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut state = self.driver.state();
        state.queues.iter_mut().for_each(|queue| queue.retain(|(job, _)| *job != self.job));
        drop(state);
        self.driver.changed.notify_all();
    }
}

impl Driver {
    /// A driver of a chip that nothing uses yet.
    pub fn new(chip: Rk3588) -> Self {
        let queues = vec![VecDeque::new(); chip.cores.into()];
        let state = State { queues, jobs: 0, resets: 0, hangs: None, used: 0 };
        Driver { chip, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The chip.
    pub fn chip(&self) -> &Rk3588 {
        &self.chip
    }

    /// Let a job, counted from 0 over the driver's life, never end.
    pub fn hang(&self, job: u64) {
        self.state().hangs = Some(job);
    }

    /// Bytes of the address space in use.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// Jobs queued or running on each core.
    pub fn queued(&self) -> Vec<usize> {
        self.state().queues.iter().map(VecDeque::len).collect()
    }

    /// Take memory.
    ///
    /// # Errors
    /// [`DriverError::Space`].
    pub fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Allocation, DriverError> {
        let (mut state, space) = (self.state(), self.chip.address_space);
        let used = state.used;
        state.used = used.checked_add(bytes).filter(|&u| u <= space).ok_or(DriverError::Space {
            asked: bytes,
            used,
            space,
        })?;
        Ok(Allocation { driver: self.clone(), bytes })
    }

    /// Whether [`Driver::submit`] takes a mask.
    pub fn takes(&self, mask: u32) -> bool {
        mask == AUTO || mask == ALL || (MASKS.contains(&mask) && mask < 1 << self.chip.cores)
    }

    /// Wait for the cores of a mask, do the work of a job on them, and give its result. `work` gets the cores. `tasks` is what the job
    /// counts in a queue, `modelled` how long it takes on the NPU.
    ///
    /// # Errors
    /// All but [`DriverError::Space`].
    pub fn submit<T>(
        &self,
        mask: u32,
        tasks: u64,
        modelled: Duration,
        work: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, DriverError> {
        if !self.takes(mask) {
            return Err(DriverError::Mask(mask));
        }
        let mut state = self.state();
        let cores = cores_of(mask, &state.queues);
        let (job, resets) = (state.jobs, state.resets);
        state.jobs += 1;
        cores.iter().for_each(|&core| state.queues[usize::from(core)].push_back((job, tasks)));
        let waits = |state: &mut State| {
            let first = |core: &u8| {
                state.queues[usize::from(*core)].front().is_some_and(|(front, _)| *front == job)
            };
            state.resets == resets && !cores.iter().all(first)
        };
        state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        if state.resets != resets {
            return Err(DriverError::Reset);
        }
        let limit = self.chip.submit_timeout_seconds * f64::from(self.chip.submit_tries);
        if state.hangs == Some(job) || modelled.as_secs_f64() > limit {
            state.resets += 1;
            state.queues.iter_mut().for_each(VecDeque::clear);
            drop(state);
            self.changed.notify_all();
            return Err(DriverError::Timeout(limit));
        }
        drop(state);
        let queued = Queued { driver: self, job, resets };
        let result = work(&cores);
        let reset = self.state().resets != queued.resets;
        drop(queued);
        if reset { Err(DriverError::Reset) } else { Ok(result) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cores_of(mask: u32, queues: &[VecDeque<(u64, u64)>]) -> Vec<u8> {
    let all = 0..queues.len() as u8;
    if mask == AUTO {
        let tasks =
            |core: &u8| queues[usize::from(*core)].iter().map(|(_, tasks)| tasks).sum::<u64>();
        return all.min_by_key(tasks).into_iter().collect();
    }
    all.filter(|core| mask & (1 << core) != 0).collect()
}
