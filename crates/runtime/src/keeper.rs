//! The thread that keeps the cores going: it replaces lanes that hang, ends runs at their deadline, opens models for runs that wait,
//! and closes those that nobody needs. It sleeps while nothing is under way, until its bell rings.

use crate::RuntimeError;
use crate::executor::{Closing, Lanes, Opening, Order};
use crate::fault::{Cause, Next, Tries};
use crate::incident::{Action, Incident};
use crate::ledger::{Decision, Waiting};
use crate::loaded::{LoadedModel, LoadedShard};
use crate::shared::Shared;
use crossbeam_channel::{RecvTimeoutError, bounded};
use rockshard_device::{DeviceError, DeviceErrorKind};
use rockshard_manifest::CoreId;
use rockshard_pack::Mode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wakes the keeper.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    rung: Condvar,
    /// The keeper sleeps until it is woken.
    idle: AtomicBool,
}

#[derive(Default)]
struct Rung {
    rung: bool,
    closing: bool,
}

impl Bell {
    /// There may be something to do.
    pub fn ring(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rung = true;
        self.rung.notify_one();
    }

    /// Something is under way, which has to be watched.
    pub fn wake_if_idle(&self) {
        if self.idle.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// Let the keeper end.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.ring();
    }

    fn is_closing(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closing
    }

    /// Sleep until it rings, or for `time`; `None` is as long as nothing is busy.
    fn wait(&self, time: Option<Duration>, busy: impl Fn() -> bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.idle.store(time.is_none(), Ordering::SeqCst);
        let awake = state.rung || state.closing || (time.is_none() && busy());
        if !awake {
            state = match time {
                Some(time) => {
                    self.rung.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.rung.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        self.idle.store(false, Ordering::SeqCst);
        state.rung = false;
    }
}

pub(crate) struct Keeper(pub Arc<Shared>);

impl Keeper {
    /// Work until the bell is closed.
    pub fn serve(&self) {
        let shared = &self.0;
        while !shared.bell.is_closing() {
            self.tend();
            let pause = self.decide();
            let (_, deadline) = shared.due();
            let until = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let tick = shared.is_busy().then(|| shared.lanes.tick());
            let time = [pause, until, tick].into_iter().flatten().min();
            shared.bell.wait(time, || shared.is_busy());
        }
    }

    fn lanes(&self) -> &Arc<Lanes> {
        &self.0.lanes
    }

    /// What cannot wait until a model is open.
    fn tend(&self) {
        self.lanes().watch();
        let (due, _) = self.0.due();
        due.iter().for_each(|run| run.fail(RuntimeError::Deadline));
    }

    /// Do what the ledger decides, until there is nothing to do for now; then how long, if it knows.
    fn decide(&self) -> Option<Duration> {
        loop {
            match self.0.ledger.decide(false) {
                Decision::Start(waiting) => start(waiting, (Vec::new(), Ok(()))),
                Decision::Forget(model) => self.close(&model),
                Decision::Wait(time) => return time,
                Decision::Open { close, waiting } => {
                    let began = Instant::now();
                    close.iter().for_each(|model| self.close(model));
                    let (incidents, result) = self.open_with_room(&waiting);
                    self.0.ledger.opened(&waiting, result.is_ok(), began);
                    start(waiting, (incidents, result));
                }
            }
        }
    }

    /// While a core opens or closes something: watch it, and start what can start.
    fn meanwhile(&self) {
        self.tend();
        while let Decision::Start(waiting) = self.0.ledger.decide(true) {
            start(waiting, (Vec::new(), Ok(())));
        }
    }

    /// Open a model; where the device has no memory left, close models that nobody uses and try again.
    fn open_with_room(&self, waiting: &Waiting) -> (Vec<Incident>, Result<(), RuntimeError>) {
        let model = waiting.model();
        let mut incidents = Vec::new();
        let run = if let Waiting::Run(run) = waiting { Some(run.number()) } else { None };
        loop {
            let mut met = Vec::new();
            let result = self.open(waiting, &mut met);
            if result.is_err() {
                self.close(model);
            }
            let short = result.as_ref().err().and_then(RuntimeError::memory);
            let short = short.filter(|_| self.0.ledger.has_idle()).cloned();
            incidents.extend(met.into_iter().map(|incident| incident.of(run, None)));
            let Some(DeviceError { shard, core, detail, .. }) = short else {
                return (incidents, result);
            };
            let close = self.0.ledger.make_room(model);
            if close.is_empty() {
                return (incidents, result);
            }
            close.iter().for_each(|model| self.close(model));
            incidents.push(Incident::new(&shard, core, detail, Action::MadeRoom).of(run, None));
        }
    }

    fn open(&self, waiting: &Waiting, met: &mut Vec<Incident>) -> Result<(), RuntimeError> {
        let model = waiting.model();
        let cores = self.lanes().cores();
        for (index, shard) in model.shards.iter().enumerate() {
            if waiting.is_over() || self.0.bell.is_closing() {
                return Err(RuntimeError::Cancelled);
            }
            let key = model.base + index;
            if shard.core == CoreId::Host || model.mode == Mode::Pipeline {
                let candidates = self.0.candidates(shard, model.mode, 0);
                self.open_shard(key, shard, &candidates, met)?;
                continue;
            }
            // Every core should have it; one must.
            let opened: Vec<_> =
                (0..cores).map(|lane| self.open_shard(key, shard, &[lane], met)).collect();
            if opened.iter().all(Result::is_err) {
                opened.into_iter().take(1).collect::<Result<(), _>>()?;
            }
        }
        Ok(())
    }

    /// Open a shard on one of `candidates`.
    fn open_shard(
        &self,
        key: usize,
        shard: &LoadedShard,
        candidates: &[usize],
        met: &mut Vec<Incident>,
    ) -> Result<(), RuntimeError> {
        let mut tries = Tries::default();
        let mut lane = candidates[0];
        loop {
            let Err(cause) = self.try_open(key, shard, lane) else { return Ok(()) };
            let (core, text) = (self.lanes().core(lane), cause.to_string());
            let name = &shard.file.name;
            let error = |detail: &str| DeviceError::new(DeviceErrorKind::Run, name, core, detail);
            let next = tries.next(lane, cause, candidates, error);
            let action = match &next {
                Next::Try(to) if *to == lane => Action::Retried,
                Next::Try(to) => Action::Moved(self.lanes().core(*to)),
                _ => Action::GaveUp,
            };
            met.push(Incident::new(name, core, text, action));
            if action != Action::Retried {
                shard.shut_out(lane);
            }
            match next {
                Next::Try(to) => lane = to,
                Next::PassOn(_) => return Ok(()),
                Next::GiveUp(error) => return Err(error),
            }
        }
    }

    fn try_open(&self, key: usize, shard: &LoadedShard, lane: usize) -> Result<(), Cause> {
        let (reply, answer) = bounded(1);
        let opening = Opening { key, file: shard.file.clone(), reply };
        self.lanes().order(lane, Order::Open(Arc::new(opening)));
        loop {
            match answer.recv_timeout(self.lanes().tick()) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => self.meanwhile(),
                Err(RecvTimeoutError::Disconnected) => {
                    let (name, core) = (&shard.file.name, self.lanes().core(lane));
                    let detail = "its thread ended";
                    let error = DeviceError::new(DeviceErrorKind::Run, name, core, detail);
                    return Err(Cause::Failed(error));
                }
            }
        }
    }

    /// Close a model's sessions on all lanes, and wait until that is done.
    fn close(&self, model: &LoadedModel) {
        let (reply, closed) = bounded(0);
        let keys = model.base..model.base + model.shards.len();
        let closing = Arc::new(Closing { keys, reply });
        let lanes = 0..=self.lanes().cores();
        lanes.for_each(|lane| self.lanes().order(lane, Order::Close(closing.clone())));
        drop(closing);
        while closed
            .recv_timeout(self.lanes().tick())
            .is_err_and(|e| e == RecvTimeoutError::Timeout)
        {
            self.meanwhile();
        }
        // With memory freed, a core may have room for what it refused.
        self.0.ledger.let_in();
    }
}

/// Let what waited go on: its model is open, or could not be opened.
fn start(waiting: Waiting, (incidents, result): (Vec<Incident>, Result<(), RuntimeError>)) {
    match waiting {
        Waiting::Load(_, reply) => drop(reply.send((incidents, result))),
        Waiting::Run(run) => {
            run.add_incidents(incidents);
            match result {
                Ok(()) => run.start(),
                Err(error) => run.fail(error),
            }
        }
    }
}
