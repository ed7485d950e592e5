//! Modelled device memory, of all packs that are loaded. Models are open together where they fit the limit; else they take turns:
//! runs wait for their model in the order in which they came, the idle model that was not used for longest is closed first,
//! and one that is in use has to yield when its turn is over: its items that are under way finish, and its runs wait again.
//!
//! This module only decides; [`keeper`](crate::keeper) does.

use crate::RuntimeError;
use crate::loaded::{LoadedModel, LoadedShard};
use crate::run::Run;
use rockshard_pack::Footprint;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A model's turn lasts at least this many times what opening it took.
const TURN: u32 = 4;

/// Who waits for a model to be open.
#[derive(Clone)]
pub(crate) enum Waiting {
    /// A run.
    Run(Arc<Run>),
    /// The pack that is being loaded, told by closing a channel or sending what failed.
    Load(Arc<LoadedModel>, crossbeam_channel::Sender<Loading>),
}

/// How opening a model went: the incidents that were met, and the error.
pub(crate) type Loading = (Vec<crate::Incident>, Result<(), RuntimeError>);

impl Waiting {
    pub fn model(&self) -> &Arc<LoadedModel> {
        match self {
            Waiting::Run(run) => run.model(),
            Waiting::Load(model, _) => model,
        }
    }

    /// Whether it waits no longer.
    pub fn is_over(&self) -> bool {
        match self {
            Waiting::Run(run) => run.is_over(),
            Waiting::Load(..) => false,
        }
    }
}

/// What is to be done next.
pub(crate) enum Decision {
    /// Start it: its model is open, and counted as used if it is a run.
    Start(Waiting),
    /// Close these, open the waiting one's model, and say how that went with [`Ledger::opened`].
    Open { close: Vec<Arc<LoadedModel>>, waiting: Waiting },
    /// Close a model that was dropped.
    Forget(Arc<LoadedModel>),
    /// Nothing, until something changes or this much time has passed.
    Wait(Option<Duration>),
}

/// The memory of the devices.
pub(crate) struct Ledger {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    models: BTreeMap<usize, Residence>,
    waiting: VecDeque<Waiting>,
    clock: u64,
    peak: u64,
}

struct Residence {
    model: Arc<LoadedModel>,
    footprint: Footprint,
    open: bool,
    users: usize,
    last_use: u64,
    dropped: bool,
    turn_ends: Instant,
}

impl Ledger {
    pub fn new(limit: Option<u64>) -> Self {
        Ledger { limit: limit.unwrap_or(u64::MAX), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Check that a model fits the limit alone.
    pub fn check(&self, model: &LoadedModel, cores: usize) -> Result<(), RuntimeError> {
        let footprint = Footprint::of(&model.model, cores, model.mode);
        let (needed, weights) = (footprint.bytes(), footprint.weights);
        if needed <= self.limit {
            return Ok(());
        }
        let (model, activations) = (model.model.name.clone(), needed - weights);
        Err(RuntimeError::Memory { model, needed, weights, activations, limit: self.limit })
    }

    /// Take in models. Gives whether they fit together with all that is there.
    pub fn add(&self, models: &[Arc<LoadedModel>], cores: usize) -> bool {
        let mut state = self.state();
        for model in models {
            let residence = Residence {
                model: model.clone(),
                footprint: Footprint::of(&model.model, cores, model.mode),
                open: false,
                users: 0,
                last_use: 0,
                dropped: false,
                turn_ends: Instant::now(),
            };
            state.models.insert(model.base, residence);
        }
        state.bytes(|_| true) <= self.limit
    }

    /// Nobody will run a model any more; it is closed when its last run has ended.
    pub fn abandon(&self, model: &LoadedModel) {
        if let Some(residence) = self.state().models.get_mut(&model.base) {
            residence.dropped = true;
        }
    }

    /// Begin to use a model, if it is open; else wait for it.
    pub fn enter(&self, waiting: Waiting) -> bool {
        let mut state = self.state();
        if matches!(waiting, Waiting::Run(_)) && state.enter(waiting.model()) {
            return true;
        }
        state.waiting.push_back(waiting);
        false
    }

    /// A use has ended. Gives whether somebody may have waited for that.
    pub fn leave(&self, model: &LoadedModel) -> bool {
        let mut state = self.state();
        let waited = !state.waiting.is_empty();
        let Some(residence) = state.models.get_mut(&model.base) else { return false };
        residence.users -= 1;
        residence.users == 0 && (waited || residence.dropped)
    }

    /// Memory was freed: every shard may be opened again where it was refused.
    pub fn let_in(&self) {
        let state = self.state();
        let shards = state.models.values().flat_map(|r| &r.model.shards);
        shards.for_each(LoadedShard::let_in);
    }

    /// Most bytes that were open at a time.
    pub fn peak(&self) -> u64 {
        self.state().peak
    }

    /// Whether a model that nobody uses is open.
    pub fn has_idle(&self) -> bool {
        self.state().models.values().any(|r| r.open && r.users == 0)
    }

    /// Whether a run that waits can start now. With `ready_only`, nothing else is looked for.
    pub fn decide(&self, ready_only: bool) -> Decision {
        let mut state = self.state();
        state.waiting.retain(|w| !w.is_over());
        let ready = (0..state.waiting.len()).find(|&i| {
            let waiting = state.waiting[i].clone();
            match &waiting {
                Waiting::Run(run) => state.enter(run.model()),
                Waiting::Load(model, _) => state.is_open(model),
            }
        });
        if let Some(waiting) = ready.and_then(|i| state.waiting.remove(i)) {
            return Decision::Start(waiting);
        }
        if ready_only {
            return Decision::Wait(None);
        }
        let gone = |s: &State, r: &Residence| {
            r.dropped && r.users == 0 && !s.waiting.iter().any(|w| w.model().base == r.model.base)
        };
        if let Some(model) =
            state.models.values().find(|&r| gone(&state, r)).map(|r| r.model.clone())
        {
            state.models.remove(&model.base);
            return Decision::Forget(model);
        }
        state.yield_to_nobody();
        let Some(first) = state.waiting.front().cloned() else { return Decision::Wait(None) };
        let model = first.model().clone();
        match state.room_for(&model, self.limit, false) {
            Room::Close(close) => {
                state.waiting.pop_front();
                state.open_after(&close, &model);
                Decision::Open { close, waiting: first }
            }
            Room::Later(at) => {
                Decision::Wait(at.map(|at| at.saturating_duration_since(Instant::now())))
            }
        }
    }

    /// The device had no memory left although the limit was kept: idle models to close before the model is tried again.
    pub fn make_room(&self, model: &Arc<LoadedModel>) -> Vec<Arc<LoadedModel>> {
        let mut state = self.state();
        match state.room_for(model, self.limit, true) {
            Room::Close(close) => {
                state.open_after(&close, model);
                close
            }
            Room::Later(_) => Vec::new(),
        }
    }

    /// The model is open since `began`, or could not be opened. A run that waited for it uses it from now on.
    pub fn opened(&self, waiting: &Waiting, success: bool, began: Instant) {
        let mut state = self.state();
        let clock = state.clock;
        if let Some(residence) = state.models.get_mut(&waiting.model().base) {
            residence.open = success;
            residence.users += usize::from(success && matches!(waiting, Waiting::Run(_)));
            residence.last_use = clock;
            residence.turn_ends = Instant::now() + began.elapsed() * TURN;
        }
    }
}

/// Where the memory for a model comes from.
enum Room {
    /// From models that nobody uses.
    Close(Vec<Arc<LoadedModel>>),
    /// From models that are in use; it is worth looking again at this time, or when something changes.
    Later(Option<Instant>),
}

impl State {
    /// Modelled bytes of the models for which `counts` holds.
    fn bytes(&self, counts: impl Fn(&Residence) -> bool) -> u64 {
        let counted = self.models.values().filter(|r| counts(r));
        Footprint::together(counted.map(|r| &r.footprint)).bytes()
    }

    fn is_open(&self, model: &LoadedModel) -> bool {
        self.models.get(&model.base).is_some_and(|r| r.open)
    }

    /// Count a use of a model that is open and does not have to yield.
    fn enter(&mut self, model: &LoadedModel) -> bool {
        self.clock += 1;
        let clock = self.clock;
        let Some(residence) = self.models.get_mut(&model.base) else { return false };
        let enters = residence.open && !model.is_yielding();
        if enters {
            residence.users += 1;
            residence.last_use = clock;
        }
        enters
    }

    fn yield_to_nobody(&self) {
        self.models.values().for_each(|r| r.model.yielding.store(false, Ordering::SeqCst));
    }

    /// Make room for a model: close idle ones, those not used for longest first, and at least one with `full`. Where that is not
    /// enough, models whose turn is over have to yield.
    fn room_for(&self, model: &LoadedModel, limit: u64, full: bool) -> Room {
        let mut open: Vec<&Residence> =
            self.models.values().filter(|r| r.open && r.model.base != model.base).collect();
        open.sort_by_key(|r| (r.users > 0, r.last_use));
        let mut gone: Vec<usize> = Vec::new();
        let fits = |gone: &[usize]| {
            let stays = |r: &Residence| r.open && !gone.contains(&r.model.base);
            self.bytes(|r| r.model.base == model.base || stays(r)) <= limit
        };
        let mut later = false;
        let mut again: Option<Instant> = None;
        let mut close = Vec::new();
        for residence in open {
            if fits(&gone) && !(full && gone.is_empty()) {
                break;
            }
            if residence.users > 0 {
                later = true;
                if residence.turn_ends > Instant::now() {
                    again =
                        Some(again.map_or(residence.turn_ends, |at| at.min(residence.turn_ends)));
                    continue;
                }
                residence.model.yielding.store(true, Ordering::SeqCst);
            }
            gone.push(residence.model.base);
            close.push(residence.model.clone());
        }
        if later || !fits(&gone) || (full && gone.is_empty()) {
            Room::Later(again)
        } else {
            Room::Close(close)
        }
    }

    /// Count some models as closed and another one as about to be open.
    fn open_after(&mut self, close: &[Arc<LoadedModel>], model: &LoadedModel) {
        for closed in close {
            if let Some(residence) = self.models.get_mut(&closed.base) {
                residence.open = false;
            }
        }
        let bytes = self.bytes(|r| r.open || r.model.base == model.base);
        self.peak = self.peak.max(bytes);
    }
}
