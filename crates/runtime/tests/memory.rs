//! Models take turns where they do not fit the memory limit together.

mod common;

use common::counting::Counting;
use common::{items, load};
use rockshard_device::{Device, DeviceErrorKind};
use rockshard_device_kit::packs::{chain, devices, pack_of};
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice, Place};
use rockshard_pack::{Devices, Mode, Pack};
use rockshard_runtime::{
    Action, Cores, CoresOptions, Incident, LoadedPack, Outcome, RunOptions, RuntimeError, TensorMap,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shards of each model, with the bytes of weights and activations of each shard.
const MODELS: [(&str, usize, u64, u64); 3] =
    [("text", 2, 100, 10), ("unet", 4, 300, 50), ("vae", 3, 100, 80)];

fn counting(inner: Arc<dyn Device>) -> Counting {
    Counting::new(inner, |shard| {
        let mut models = MODELS.iter();
        let (_, _, weights, activations) =
            models.find(|(name, ..)| shard.starts_with(name)).unwrap();
        (*weights, *activations)
    })
}

fn pack() -> (tempfile::TempDir, Pack) {
    pack_of(
        MODELS
            .iter()
            .map(|&(name, count, weights, activations)| chain(name, count, weights, activations))
            .collect(),
    )
}

fn limited(devices: &Devices, cores: u8, limit: u64) -> Cores {
    let memory_limit = Some(limit);
    Cores::new(devices, CoresOptions { memory_limit, ..CoresOptions::new(cores) }).unwrap()
}

fn run(loaded: &LoadedPack, model: &str) -> Outcome {
    loaded.run(model, items(3), &RunOptions::default()).unwrap()
}

/// The outputs of a run that met no fault.
fn outputs(loaded: &LoadedPack, model: &str) -> Vec<TensorMap> {
    let Outcome { outputs, trace } = run(loaded, model);
    assert_eq!(trace.incidents, []);
    outputs.unwrap()
}

#[test]
fn models_take_turns_within_the_limit() {
    let (_folder, pack) = pack();
    let mock = Arc::new(MockDevice::new(3));
    let free = load(&pack, &devices(&*mock), 1, Mode::Pipeline).unwrap();
    let order = ["text", "unet", "unet", "vae", "text", "unet", "vae", "vae"];
    // Alone, the U-Net needs 1200 bytes and 50 for each core; the other two need 200 and 300, and 10 and 80 for each core.
    for (cores, mode) in [(1, Mode::Pipeline), (3, Mode::Pipeline), (3, Mode::Replicate)] {
        for (limit, all_fit) in [(1350, false), (1640, false), (2000, true)] {
            let counting = counting(mock.clone());
            let cores = limited(&devices(&counting), cores, limit);
            let loaded = cores.load(&pack, mode, |_| true).unwrap();
            assert_eq!((counting.sessions() == 0), !all_fit);
            for model in order {
                assert_eq!(outputs(&loaded, model), outputs(&free, model), "{model}");
            }
            std::thread::scope(|scope| {
                for i in 0..4 {
                    let (loaded, free) = (&loaded, &free);
                    scope.spawn(move || {
                        for model in order.iter().cycle().skip(i).take(8) {
                            assert_eq!(outputs(loaded, model), outputs(free, model), "{model}");
                        }
                    });
                }
            });
            let (peak, modelled) = (counting.peak(), cores.resident_peak());
            assert!(peak <= modelled && modelled <= limit, "{peak}, {modelled} of {limit}");
            drop((loaded, cores));
            assert!((counting.sessions() == 0));
        }
    }
}

#[test]
fn packs_share_the_memory() {
    let mock = MockDevice::new(3);
    let counting = counting(Arc::new(mock));
    let cores = limited(&devices(&counting), 3, 1700);
    let packs = [pack(), pack()];
    // The second pack's U-Net does not fit beside the first one's, so its models are opened when they run.
    let [first, second] =
        packs.each_ref().map(|(_, pack)| cores.load(pack, Mode::Pipeline, |m| m.name == "unet"));
    let (first, second) = (first.unwrap(), second.unwrap());
    for loaded in [&second, &first, &second] {
        outputs(loaded, "unet");
    }
    drop(second);
    outputs(&first, "unet");
    // Closing what was dropped is not waited for.
    let count = || counting.sessions();
    let start = Instant::now();
    while count() > 4 {
        assert!(start.elapsed() < Duration::from_secs(10), "{} sessions are left", count());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(cores.resident_peak() <= 1700);
}

#[test]
fn a_long_run_yields_its_memory_to_one_that_waits() {
    let (_folder, pack) = pack();
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    device.inject(Place::default(), Fault::Slow(Duration::from_millis(1)), u64::MAX);
    let cores = limited(&devices(&device), 1, 1350);
    let loaded = cores.load(&pack, Mode::Pipeline, |_| true).unwrap();
    let long = loaded.submit("unet", items(500), &RunOptions::default()).unwrap();
    let short = loaded.submit("vae", items(1), &RunOptions::default()).unwrap();
    short.wait().outputs.unwrap();
    assert!(!long.is_over());
    let Outcome { outputs, trace } = long.wait();
    assert_eq!((outputs.unwrap().len(), trace.shard_runs.len()), (500, 2000));
}

#[test]
fn a_model_that_does_not_fit_alone_is_an_error() {
    let (_folder, pack) = pack();
    let device = devices(&MockDevice::new(3));
    let refused = |wanted: &str, cores| {
        limited(&device, cores, 1349).load(&pack, Mode::Replicate, |m| m.name == wanted).err()
    };
    let error = refused("unet", 3).unwrap();
    assert!(
        matches!(
            error,
            RuntimeError::Memory { needed: 1350, weights: 1200, activations: 150, limit: 1349, .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("model unet needs 1350 bytes"), "{error}");
    assert!(refused("unet", 1).is_none());
    assert!(refused("vae", 3).is_none());
}

#[test]
fn a_full_device_makes_room_by_closing_what_is_idle() {
    let (_folder, pack) = pack();
    let device = FaultyDevice::new(Arc::new(MockDevice::new(1)));
    let counting = counting(Arc::new(device.clone()));
    // Any two fit the limit, so that text is open when the U-Net finds no memory.
    let cores = limited(&devices(&counting), 1, 1640);
    let loaded = cores.load(&pack, Mode::Pipeline, |_| true).unwrap();
    outputs(&loaded, "text");
    device.inject(Place::shard("unet2"), Fault::Open(DeviceErrorKind::Memory), 1);
    let Outcome { outputs, trace } = run(&loaded, "unet");
    outputs.unwrap();
    assert!(counting.shards().iter().all(|shard| shard.starts_with("unet")));
    let actions = |incidents: &[Incident]| incidents.iter().map(|i| i.action).collect::<Vec<_>>();
    assert_eq!(actions(&trace.incidents), [Action::GaveUp, Action::MadeRoom]);
    device.inject(Place::shard("vae0"), Fault::Open(DeviceErrorKind::Memory), u64::MAX);
    let error = run(&loaded, "vae").outputs.unwrap_err().to_string();
    assert!(error.contains("shard vae0 on core 0: injected fault on open"), "{error}");
}
