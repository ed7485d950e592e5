//! The packs that are served: known from the start, loaded on first use, and dropped when the memory limit asks for it.

use rockshard::{
    Captioner, CaptionerOptions, Cores, Drawable, Error, Family, Footprint, Mode, Pack, Painter,
    PainterOptions, StreamModel, StreamOptions,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// A pack, as far as it is known without loading it.
pub struct ServedPack {
    /// The name that requests have.
    pub name: String,
    /// The pack.
    pub pack: Pack,
    /// What it is for.
    pub kind: Kind,
    /// Seconds since 1970 at which it was converted, or as near to that as is known.
    pub created: u64,
}

/// What a pack is for.
pub enum Kind {
    /// Pictures, at these sizes.
    Draws(Vec<Drawable>),
    /// Words about pictures.
    Describes,
}

impl Kind {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Draws(_) => "text-to-image",
            Kind::Describes => "vision-language",
        }
    }
}

impl ServedPack {
    /// Open a pack under a name.
    ///
    /// # Errors
    /// A pack that neither pictures can be drawn with nor described.
    pub fn open(name: String, path: &std::path::Path) -> Result<Self, Error> {
        let pack = Pack::open(path)?;
        let kind = match pack.manifest().family {
            Family::VisionLanguage => Kind::Describes,
            _ => Kind::Draws(Drawable::all(&pack)?),
        };
        let created = std::fs::metadata(path.join("manifest.json")).and_then(|m| m.modified());
        let created = created.unwrap_or(SystemTime::UNIX_EPOCH);
        let created = created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(ServedPack { name, pack, kind, created })
    }

    /// Its sizes, the first one first.
    pub fn sizes(&self) -> Vec<[u32; 2]> {
        match &self.kind {
            Kind::Draws(sizes) => sizes.iter().map(Drawable::size).collect(),
            Kind::Describes => Vec::new(),
        }
    }
}

/// What is loaded of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Use {
    Paint([u32; 2]),
    Stream([u32; 2]),
    Describe,
}

#[derive(Clone)]
enum Model {
    Painter(Arc<Painter>),
    Stream(Arc<StreamModel>),
    Captioner(Arc<Captioner>),
}

impl Model {
    fn footprint(&self) -> Footprint {
        match self {
            Model::Painter(model) => model.footprint(),
            Model::Stream(model) => model.footprint(),
            Model::Captioner(model) => model.footprint(),
        }
    }

    /// Whether only this table has it.
    fn is_idle(&self) -> bool {
        match self {
            Model::Painter(model) => Arc::strong_count(model) == 1,
            Model::Stream(model) => Arc::strong_count(model) == 1,
            Model::Captioner(model) => Arc::strong_count(model) == 1,
        }
    }
}

#[derive(Default)]
struct Slot {
    /// Held while it is loaded, so that it is loaded once.
    model: Mutex<Option<Model>>,
    used: Mutex<Option<Instant>>,
}

type Key = (String, Use);

/// The packs that are served, on the cores.
pub struct Packs {
    cores: Cores,
    mode: Option<Mode>,
    packs: Vec<ServedPack>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    /// How often models were loaded, and dropped.
    counts: Mutex<[u64; 2]>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Packs {
    /// Serve packs on cores; `mode` is how rows go through them, `None` the planner's choice.
    pub fn new(cores: Cores, mode: Option<Mode>, packs: Vec<ServedPack>) -> Self {
        Packs { cores, mode, packs, slots: Mutex::default(), counts: Mutex::default() }
    }

    /// All of them.
    pub fn all(&self) -> &[ServedPack] {
        &self.packs
    }

    /// The cores.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }

    /// The pack of a name.
    pub fn find(&self, name: &str) -> Option<&ServedPack> {
        self.packs.iter().find(|pack| pack.name == name)
    }

    /// Whether anything of a pack is loaded.
    pub fn is_loaded(&self, name: &str) -> bool {
        self.loaded().iter().any(|(key, ..)| key.0 == name)
    }

    /// How many models are loaded, and the modelled bytes that they take when all are open.
    pub fn resident(&self) -> (usize, u64) {
        let loaded = self.loaded();
        let footprints: Vec<Footprint> = loaded.iter().map(|l| l.2.footprint()).collect();
        (loaded.len(), Footprint::together(&footprints).bytes())
    }

    /// How often models were loaded, and dropped to make room.
    pub fn counts(&self) -> [u64; 2] {
        *lock(&self.counts)
    }

    /// What draws with a pack at a size.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn painter(&self, name: &str, size: [u32; 2]) -> Result<Arc<Painter>, Error> {
        match self.model(name, Use::Paint(size))? {
            Model::Painter(model) => Ok(model),
            _ => Err(wrong(name)),
        }
    }

    /// What draws streams with a pack at a size.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn stream(&self, name: &str, size: [u32; 2]) -> Result<Arc<StreamModel>, Error> {
        match self.model(name, Use::Stream(size))? {
            Model::Stream(model) => Ok(model),
            _ => Err(wrong(name)),
        }
    }

    /// What describes images with a pack.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn captioner(&self, name: &str) -> Result<Arc<Captioner>, Error> {
        match self.model(name, Use::Describe)? {
            Model::Captioner(model) => Ok(model),
            _ => Err(wrong(name)),
        }
    }

    fn model(&self, name: &str, use_: Use) -> Result<Model, Error> {
        let served = self.find(name).ok_or_else(|| wrong(name))?;
        let key = (name.to_owned(), use_.clone());
        let slot = lock(&self.slots).entry(key).or_default().clone();
        *lock(&slot.used) = Some(Instant::now());
        let mut held = lock(&slot.model);
        if let Some(model) = &*held {
            return Ok(model.clone());
        }
        let model = self.load(served, &use_)?;
        *held = Some(model.clone());
        drop(held);
        lock(&self.counts)[0] += 1;
        Ok(model)
    }

    fn load(&self, served: &ServedPack, use_: &Use) -> Result<Model, Error> {
        let (pack, cores) = (&served.pack, usize::from(self.cores.options().cores));
        let size = match use_ {
            Use::Paint(size) | Use::Stream(size) => Some(*size),
            Use::Describe => None,
        };
        self.make_room(&Footprint::of_all(pack.manifest(), size, cores));
        let from_pictures = match &served.kind {
            Kind::Draws(sizes) => sizes.iter().any(Drawable::takes_pictures),
            Kind::Describes => false,
        };
        let mode = self.mode;
        tracing::info!("loading {} for {use_:?}", served.name);
        Ok(match use_ {
            Use::Paint(_) => {
                let options = PainterOptions {
                    size,
                    from_pictures,
                    mode,
                    together: cores,
                    ..PainterOptions::default()
                };
                Model::Painter(Arc::new(Painter::load(&self.cores, pack, &options)?))
            }
            Use::Stream(_) => {
                let options =
                    StreamOptions { size, from_pictures, mode, ..StreamOptions::default() };
                Model::Stream(Arc::new(StreamModel::load(&self.cores, pack, &options)?))
            }
            Use::Describe => {
                let options = CaptionerOptions { mode, ..CaptionerOptions::default() };
                Model::Captioner(Arc::new(Captioner::load(&self.cores, pack, &options)?))
            }
        })
    }

    /// Drop the models that were not used for longest, and by nobody now, until one of this footprint fits.
    fn make_room(&self, needed: &Footprint) {
        let Some(limit) = self.cores.options().memory_limit else { return };
        loop {
            let mut loaded = self.loaded();
            let mut footprints: Vec<Footprint> = loaded.iter().map(|l| l.2.footprint()).collect();
            footprints.push(needed.clone());
            if Footprint::together(&footprints).bytes() <= limit {
                return;
            }
            loaded.sort_by_key(|l| l.1);
            // The list here has each model once more.
            let mut candidates = loaded.into_iter().map(|(key, ..)| key);
            if !candidates.any(|key| self.drop_idle(&key)) {
                return;
            }
        }
    }

    fn drop_idle(&self, key: &Key) -> bool {
        let Some(slot) = lock(&self.slots).get(key).cloned() else { return false };
        let Ok(mut held) = slot.model.try_lock() else { return false };
        if !held.as_ref().is_some_and(Model::is_idle) {
            return false;
        }
        tracing::info!("dropping {} ({:?}) to make room", key.0, key.1);
        *held = None;
        lock(&self.counts)[1] += 1;
        true
    }

    /// What is loaded, with its last use.
    fn loaded(&self) -> Vec<(Key, Option<Instant>, Model)> {
        let slots: Vec<(Key, Arc<Slot>)> =
            lock(&self.slots).iter().map(|(key, slot)| (key.clone(), slot.clone())).collect();
        let model = |(key, slot): (Key, Arc<Slot>)| {
            // One that is being loaded is not there yet.
            let model = slot.model.try_lock().ok()?.clone()?;
            let used = *lock(&slot.used);
            Some((key, used, model))
        };
        slots.into_iter().filter_map(model).collect()
    }
}

fn wrong(name: &str) -> Error {
    Error::NotDrawable { pack: name.into(), problem: "it is not for this".into() }
}
