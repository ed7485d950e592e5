//! The one owner of the cores. Packs are loaded into it and dropped from it while others run; runs are submitted and give tickets.

use crate::cancel::Stop;
use crate::executor::Lanes;
use crate::keeper::Keeper;
use crate::ledger::{Ledger, Waiting};
use crate::loaded::LoadedModel;
use crate::run::{Outcome, Run};
use crate::shared::Shared;
use crate::{CoresOptions, Incident, RunOptions, RuntimeError, TensorMap};
use crossbeam_channel::bounded;
use rockshard_manifest::Model;
use rockshard_pack::{Devices, Footprint, Mode, Pack, Variant};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// The devices' cores, with the threads that own them. Clones are the same cores; they are given back when the last clone, loaded pack
/// and ticket are gone. A process should have one.
#[derive(Clone)]
pub struct Cores(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    variant: Variant,
    options: CoresOptions,
    keeper: Option<JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.bell.close();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        self.shared.lanes.stop();
    }
}

/// Models of a pack on the cores, ready to run. When it is dropped they are closed, as soon as the runs that were submitted have ended.
pub struct LoadedPack {
    cores: Cores,
    models: Vec<Arc<LoadedModel>>,
    incidents: Vec<Incident>,
}

/// A run that was submitted. Dropped, it is cancelled.
pub struct Ticket {
    run: Arc<Run>,
    _cores: Cores,
}

impl Cores {
    /// Take the cores of devices.
    ///
    /// # Errors
    /// More cores than there are, none, or threads that cannot be started.
    pub fn new(devices: &Devices, options: CoresOptions) -> Result<Self, RuntimeError> {
        let (available, asked) = (devices.npu.cores(), options.cores);
        if asked == 0 || asked > available {
            return Err(RuntimeError::Cores { asked, device: devices.npu.name(), available });
        }
        let lanes = Lanes::start(devices, asked, options.time_limit)?;
        let ledger = Ledger::new(options.memory_limit);
        let shared = Arc::new(Shared::new(lanes, ledger));
        let variant = devices.variant;
        let mut owner = Owner { shared: shared.clone(), variant, options, keeper: None };
        let thread = std::thread::Builder::new().name("keeper".into());
        let keeper = thread.spawn(move || Keeper(shared).serve());
        owner.keeper = Some(keeper.map_err(|e| RuntimeError::Executor(format!("keeper ({e})")))?);
        Ok(Cores(Arc::new(owner)))
    }

    /// How they are used.
    pub fn options(&self) -> &CoresOptions {
        &self.0.options
    }

    /// Most modelled device memory, in bytes, that models took at a time so far.
    pub fn resident_peak(&self) -> u64 {
        self.shared().ledger.peak()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Load the models of a pack for which `wanted` holds, to be run in a mode. They are opened at once where they fit the memory
    /// limit beside all others that are loaded, else when they are run.
    ///
    /// # Errors
    /// A file that was altered, a model that does not fit the memory limit alone, a shard that does not open on any core.
    pub fn load(
        &self,
        pack: &Pack,
        mode: Mode,
        wanted: impl Fn(&Model) -> bool,
    ) -> Result<LoadedPack, RuntimeError> {
        let shared = self.shared();
        let cores = shared.lanes.cores();
        let mut models = Vec::new();
        for model in pack.manifest().models.iter().filter(|m| wanted(m)) {
            let base = shared.take_keys(model.shards.len());
            let model = LoadedModel::new(pack, model, mode, base, self.0.variant)?;
            shared.ledger.check(&model, cores)?;
            models.push(Arc::new(model));
        }
        let fit = shared.ledger.add(&models, cores);
        let mut loaded = LoadedPack { cores: self.clone(), models, incidents: Vec::new() };
        for model in loaded.models.iter().filter(|_| fit) {
            let (reply, opened) = bounded(1);
            shared.ledger.enter(Waiting::Load(model.clone(), reply));
            shared.bell.ring();
            let gone = || RuntimeError::Executor("the cores".into());
            let (incidents, result) = opened.recv().map_err(|_| gone())?;
            loaded.incidents.extend(incidents);
            result?;
        }
        Ok(loaded)
    }
}

impl LoadedPack {
    /// The models.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().map(|loaded| &loaded.model)
    }

    /// The modelled device memory that they take when all of them are open.
    pub fn footprint(&self) -> Footprint {
        let cores = self.cores.shared().lanes.cores();
        let each = self.models.iter().map(|m| Footprint::of(&m.model, cores, m.mode));
        Footprint::together(&each.collect::<Vec<_>>())
    }

    /// The cores they run on.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }

    /// Faults that were met while they were opened at once, and what was done about each.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// Submit items for a model; where it was converted for several resolutions, for that of the first item's shapes. Several items are
    /// under way at a time.
    ///
    /// # Errors
    /// There is no such model, or an item does not have its inputs. What goes wrong later is in the outcome.
    pub fn submit(
        &self,
        model: &str,
        items: Vec<TensorMap>,
        options: &RunOptions,
    ) -> Result<Ticket, RuntimeError> {
        let model = self.pick(model, items.first())?;
        let items = items.into_iter().enumerate().map(|(i, item)| model.inputs_of(i, item));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let shared = self.cores.shared();
        let run = Run::new(shared, model, items, options.clone());
        let stop: Weak<dyn Stop> = Arc::<Run>::downgrade(&run);
        options.cancel.watch(stop);
        shared.watch_deadline(&run);
        shared.wait_for(run.clone());
        Ok(Ticket { run, _cores: self.cores.clone() })
    }

    /// Submit items and wait for the outcome.
    ///
    /// # Errors
    /// As [`LoadedPack::submit`].
    pub fn run(
        &self,
        model: &str,
        items: Vec<TensorMap>,
        options: &RunOptions,
    ) -> Result<Outcome, RuntimeError> {
        Ok(self.submit(model, items, options)?.wait())
    }

    /// The model of a name whose input shapes are the item's, where there are several resolutions.
    fn pick(
        &self,
        name: &str,
        item: Option<&TensorMap>,
    ) -> Result<&Arc<LoadedModel>, RuntimeError> {
        let named = || self.models.iter().filter(|loaded| loaded.model.name == name);
        let fitting = named().find(|loaded| item.is_some_and(|i| loaded.fits(i)));
        fitting.or(named().next()).ok_or_else(|| {
            let known = self.models().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
            RuntimeError::NoModel { name: name.to_owned(), known }
        })
    }
}

impl Drop for LoadedPack {
    fn drop(&mut self) {
        let shared = self.cores.shared();
        self.models.iter().for_each(|model| shared.ledger.abandon(model));
        shared.bell.ring();
    }
}

impl Ticket {
    /// Number of the run, which traces and incidents have.
    pub fn number(&self) -> u64 {
        self.run.number()
    }

    /// Whether [`Ticket::wait`] would return at once.
    pub fn is_over(&self) -> bool {
        self.run.is_over()
    }

    /// Stop the run between shards; its outcome is [`RuntimeError::Cancelled`] unless it had ended.
    pub fn cancel(&self) {
        self.run.stop();
    }

    /// Wait for the outcome.
    pub fn wait(self) -> Outcome {
        self.run.wait()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.run.stop();
    }
}
