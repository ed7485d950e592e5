//! Models take turns where they do not fit the memory limit together.

use rockshard_device::{Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_device_kit::packs::{chain, devices, pack_of};
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice, Place};
use rockshard_manifest::CoreId;
use rockshard_pack::{Mode, Pack};
use rockshard_runtime::{Action, Options, Runner, RuntimeError, TensorMap};
use rockshard_tensor::Tensor;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Shards of each model, with the bytes of weights and activations of each shard.
const MODELS: [(&str, usize, u64, u64); 3] =
    [("text", 2, 100, 10), ("unet", 4, 300, 50), ("vae", 3, 100, 80)];

/// A device that keeps count of the bytes of the shards that are open: cores share weights, and each has room for its largest shard.
#[derive(Clone)]
struct Counting {
    inner: Arc<dyn Device>,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    sessions: HashMap<(String, CoreId), usize>,
    peak: u64,
}

struct CountingSession {
    inner: Box<dyn Session>,
    open: Arc<Mutex<Open>>,
    key: (String, CoreId),
}

fn bytes(shard: &str) -> (u64, u64) {
    let (_, _, weights, activations) =
        MODELS.iter().find(|(name, ..)| shard.starts_with(name)).unwrap();
    (*weights, *activations)
}

impl Open {
    fn bytes(&self) -> u64 {
        let (mut weights, mut arenas) = (HashMap::new(), HashMap::new());
        for (shard, core) in self.sessions.keys() {
            weights.insert(shard, bytes(shard).0);
            let arena: &mut u64 = arenas.entry(core).or_default();
            *arena = bytes(shard).1.max(*arena);
        }
        weights.values().sum::<u64>() + arenas.values().sum::<u64>()
    }
}

impl Counting {
    fn new(inner: Arc<dyn Device>) -> Self {
        Counting { inner, open: Arc::default() }
    }
}

impl Device for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn cores(&self) -> u8 {
        self.inner.cores()
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let inner = self.inner.open(shard, core)?;
        let key = (shard.name.clone(), core);
        let mut open = self.open.lock().unwrap();
        *open.sessions.entry(key.clone()).or_default() += 1;
        open.peak = open.bytes().max(open.peak);
        Ok(Box::new(CountingSession { inner, open: self.open.clone(), key }))
    }
}

impl Session for CountingSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<rockshard_device::Completion, DeviceError> {
        self.inner.run(inputs)
    }
}

impl Drop for CountingSession {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap();
        let count = open.sessions.get_mut(&self.key).unwrap();
        *count -= 1;
        if *count == 0 {
            open.sessions.remove(&self.key);
        }
    }
}

fn pack() -> (tempfile::TempDir, Pack) {
    pack_of(
        MODELS
            .iter()
            .map(|&(name, count, weights, activations)| chain(name, count, weights, activations))
            .collect(),
    )
}

fn items() -> Vec<TensorMap> {
    (0..3)
        .map(|i| [("v0".to_owned(), Tensor::from_f32([1, 8], vec![i as f32; 8]))].into())
        .collect()
}

fn limited(cores: u8, mode: Mode, limit: u64) -> Options {
    Options { memory_limit: Some(limit), ..Options::new(cores, mode) }
}

#[test]
fn models_take_turns_within_the_limit() {
    let (_folder, pack) = pack();
    let mock = Arc::new(MockDevice::new(3));
    let free = Runner::new(&pack, &[], &devices(&*mock), 1, Mode::Pipeline).unwrap();
    let order = ["text", "unet", "unet", "vae", "text", "unet", "vae", "vae"];
    // Alone, the U-Net needs 1200 bytes and 50 for each core; the other two need 200 and 300, and 10 and 80 for each core.
    for (cores, placement) in [(1, Mode::Pipeline), (3, Mode::Pipeline), (3, Mode::Replicate)] {
        for (limit, all_fit) in [(1350, false), (1640, false), (2000, true)] {
            let counting = Counting::new(mock.clone());
            let runner = Runner::with_options(
                &pack,
                |_| true,
                &devices(&counting),
                &limited(cores, placement, limit),
            )
            .unwrap();
            assert_eq!(counting.open.lock().unwrap().sessions.is_empty(), !all_fit);
            for model in order {
                assert_eq!(
                    runner.run(model, items()).unwrap(),
                    free.run(model, items()).unwrap(),
                    "{model}"
                );
            }
            std::thread::scope(|scope| {
                for i in 0..4 {
                    let (runner, free) = (&runner, &free);
                    scope.spawn(move || {
                        for model in order.iter().cycle().skip(i).take(8) {
                            assert_eq!(
                                runner.run(model, items()).unwrap(),
                                free.run(model, items()).unwrap(),
                                "{model}"
                            );
                        }
                    });
                }
            });
            assert_eq!(runner.incidents(), []);
            let peak = counting.open.lock().unwrap().peak;
            assert!(
                peak <= limit && peak <= runner.resident_peak() && runner.resident_peak() <= limit,
                "{peak} of {limit}"
            );
            drop(runner);
            assert!(counting.open.lock().unwrap().sessions.is_empty());
        }
    }
}

#[test]
fn a_model_that_does_not_fit_alone_is_an_error() {
    let (_folder, pack) = pack();
    let device = devices(&MockDevice::new(3));
    let refused = |wanted: &str, options| {
        Runner::with_options(&pack, |m| m.name == wanted, &device, &options).err()
    };
    let error = refused("unet", limited(3, Mode::Replicate, 1349)).unwrap();
    assert!(
        matches!(
            error,
            RuntimeError::Memory { needed: 1350, weights: 1200, activations: 150, limit: 1349, .. }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("model unet needs 1350 bytes")
            && error.to_string().contains("--tile rows:R"),
        "{error}"
    );
    assert!(refused("unet", limited(1, Mode::Replicate, 1349)).is_none());
    assert!(refused("vae", limited(3, Mode::Replicate, 1349)).is_none());
}

#[test]
fn a_full_device_makes_room_by_closing_what_is_idle() {
    let (_folder, pack) = pack();
    let device = FaultyDevice::new(Arc::new(MockDevice::new(1)));
    let counting = Counting::new(Arc::new(device.clone()));
    // Any two fit the limit, so that text is open when the U-Net finds no memory.
    let runner = Runner::with_options(
        &pack,
        |_| true,
        &devices(&counting),
        &limited(1, Mode::Pipeline, 1640),
    )
    .unwrap();
    runner.run("text", items()).unwrap();
    device.inject(Place::shard("unet2"), Fault::Open(DeviceErrorKind::Memory), 1);
    runner.run("unet", items()).unwrap();
    assert!(
        counting.open.lock().unwrap().sessions.keys().all(|(shard, _)| shard.starts_with("unet"))
    );
    assert_eq!(
        runner.incidents().iter().map(|i| i.action).collect::<Vec<_>>(),
        [Action::GaveUp, Action::MadeRoom]
    );
    device.inject(Place::shard("vae0"), Fault::Open(DeviceErrorKind::Memory), u64::MAX);
    assert!(
        runner
            .run("vae", items())
            .unwrap_err()
            .to_string()
            .contains("shard vae0 on core 0: injected fault on open")
    );
}
