//! Which models are open. All of them, where they fit the memory limit together; else a model is opened when it is run, and those
//! that were not used for longest are closed to make room.

use crate::plan::Plan;
use crate::{Placement, RuntimeError};
use rockshard_manifest::{CoreId, Model};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Modelled device memory of one model.
struct Need {
    name: String,
    /// Bytes of weights; cores share them.
    weights: u64,
    /// Bytes of activations of the largest shard of each core.
    arenas: Vec<u64>,
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
    pub fn new(
        plans: &[impl AsRef<Plan>],
        cores: usize,
        placement: Placement,
        limit: Option<u64>,
    ) -> Self {
        let needs: Vec<Need> =
            plans.iter().map(|p| Need::of(&p.as_ref().model, cores, placement)).collect();
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
        let weights: u64 = models.clone().map(|m| self.needs[m].weights).sum();
        let lanes = self.needs.first().map_or(0, |n| n.arenas.len());
        let arenas = (0..lanes)
            .map(|lane| models.clone().map(|m| self.needs[m].arenas[lane]).max().unwrap_or(0));
        weights + arenas.sum::<u64>()
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
                let Need { name, weights, arenas } = &self.needs[model];
                let activations = arenas.iter().sum();
                let (model, weights, limit) = (name.clone(), *weights, self.limit);
                Err(RuntimeError::Memory {
                    model,
                    needed: weights + activations,
                    weights,
                    activations,
                    limit,
                })
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

/// Modelled device memory, in bytes, of a model that is open alone on `cores` cores: its weights, which cores share, and for each
/// core the activations of its largest shard.
pub fn modelled_bytes(model: &Model, cores: u8, placement: Placement) -> u64 {
    let need = Need::of(model, usize::from(cores).max(1), placement);
    need.weights + need.arenas.iter().sum::<u64>()
}

impl Need {
    fn of(model: &Model, cores: usize, placement: Placement) -> Self {
        let mut arenas = vec![0; cores];
        let mut weights = 0;
        for shard in &model.shards {
            let CoreId::Npu(core) = shard.core else { continue };
            weights += shard.weight_bytes;
            for (lane, arena) in arenas.iter_mut().enumerate() {
                if placement == Placement::Replicate || lane == usize::from(core) % cores {
                    *arena = shard.modelled.internal_bytes.max(*arena);
                }
            }
        }
        Need { name: model.name.clone(), weights, arenas }
    }
}
