//! Which models are open. All of them, where they fit the memory limit together; else a model is opened when it is run, and those
//! that were not used for longest are closed to make room.

use crate::RuntimeError;
use crate::plan::Plan;
use rockshard_pack::{Footprint, Mode};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Modelled device memory of one model.
struct Need {
    name: String,
    footprint: Footprint,
}

/// Modelled device memory, shared by the models of a runner.
pub(crate) struct Resident {
    needs: Vec<Need>,
    limit: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    models: Vec<Residence>,
    clock: u64,
    peak: u64,
    /// Someone is opening or closing models.
    busy: bool,
}

#[derive(Clone, Default)]
struct Residence {
    open: bool,
    users: usize,
    last_use: u64,
}

/// What must be done before a model can be used.
pub(crate) enum Step {
    /// Nothing: it is open, and counted as used.
    Ready,
    /// Others must finish first.
    Wait,
    /// Close these, open it, and say how that went with [`Resident::opened`]. Nobody else opens or closes anything meanwhile.
    Open { close: Vec<usize> },
}

impl Resident {
    pub fn new(plans: &[impl AsRef<Plan>], cores: usize, mode: Mode, limit: Option<u64>) -> Self {
        let needs: Vec<Need> = plans.iter().map(|p| Need::of(p.as_ref(), cores, mode)).collect();
        let state = State { models: vec![Residence::default(); needs.len()], ..State::default() };
        Resident {
            needs,
            limit: limit.unwrap_or(u64::MAX),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self, models: impl Iterator<Item = usize> + Clone) -> u64 {
        Footprint::together(models.map(|m| &self.needs[m].footprint)).bytes()
    }

    /// Whether all models fit together.
    pub fn all_fit(&self) -> bool {
        self.bytes(0..self.needs.len()) <= self.limit
    }

    /// Check that each model fits alone.
    pub fn check(&self) -> Result<(), RuntimeError> {
        match (0..self.needs.len()).find(|&m| self.bytes(std::iter::once(m)) > self.limit) {
            None => Ok(()),
            Some(model) => {
                let Need { name, footprint } = &self.needs[model];
                let (model, limit) = (name.clone(), self.limit);
                let (needed, weights) = (footprint.bytes(), footprint.weights);
                let activations = needed - weights;
                Err(RuntimeError::Memory { model, needed, weights, activations, limit })
            }
        }
    }

    /// Most bytes that were open at a time.
    pub fn peak(&self) -> u64 {
        self.state().peak
    }

    /// Begin to use a model. With `full`, the device had no memory left although the limit was kept: close one more.
    pub fn enter(&self, model: usize, full: bool) -> Step {
        let mut state = self.state();
        state.clock += 1;
        if state.models[model].open {
            let clock = state.clock;
            let residence = &mut state.models[model];
            residence.users += 1;
            residence.last_use = clock;
            return Step::Ready;
        }
        if state.busy {
            return Step::Wait;
        }
        let mut idle: Vec<usize> = (0..self.needs.len())
            .filter(|&m| state.models[m].open && state.models[m].users == 0)
            .collect();
        idle.sort_by_key(|&m| std::cmp::Reverse(state.models[m].last_use));
        let mut close = Vec::new();
        loop {
            let open = (0..self.needs.len())
                .filter(|&m| m == model || (state.models[m].open && !close.contains(&m)));
            let bytes = self.bytes(open);
            if bytes <= self.limit && !(full && close.is_empty()) {
                state.peak = state.peak.max(bytes);
                break;
            }
            match idle.pop() {
                Some(oldest) => close.push(oldest),
                None => return Step::Wait,
            }
        }
        state.busy = true;
        close.iter().for_each(|&m| state.models[m].open = false);
        Step::Open { close }
    }

    /// Whether a model that nobody uses is open.
    pub fn has_idle(&self) -> bool {
        self.state().models.iter().any(|m| m.open && m.users == 0)
    }

    /// The model is open, or could not be opened.
    pub fn opened(&self, model: usize, success: bool) {
        let mut state = self.state();
        state.busy = false;
        state.models[model].open = success;
        state.models[model].users += usize::from(success);
        state.models[model].last_use = state.clock;
        self.changed.notify_all();
    }

    /// A use has ended.
    pub fn leave(&self, model: usize) {
        self.state().models[model].users -= 1;
        self.changed.notify_all();
    }

    /// Wait until something changes, for `time` at most.
    pub fn wait(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.state(), time));
    }
}

impl Need {
    fn of(plan: &Plan, cores: usize, mode: Mode) -> Self {
        let model = &plan.model;
        Need { name: model.name.clone(), footprint: Footprint::of(model, cores, mode) }
    }
}
