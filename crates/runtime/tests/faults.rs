//! Faults one by one: what is done about them, what it says, and that results are those of a run without faults.

mod common;

use common::{items, load, run as run_m};
use rockshard_device::{Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_device_kit::packs::{devices, pack};
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice, Place};
use rockshard_manifest::CoreId;
use rockshard_pack::Mode;
use rockshard_runtime::{Action, Cores, CoresOptions, Incident, Outcome, RuntimeError, TensorMap};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHARDS: usize = 6;
const ITEMS: usize = 4;
/// Longest run where runs hang, which they do until they are released.
const LIMIT: Duration = Duration::from_millis(200);
const RUN: DeviceErrorKind = DeviceErrorKind::Run;

fn expected() -> Vec<TensorMap> {
    let (_folder, pack) = pack(SHARDS);
    let loaded = load(&pack, &devices(&MockDevice::new(1)), 1, Mode::Pipeline).unwrap();
    run_m(&loaded, items(ITEMS)).outputs.unwrap()
}

/// Run with these faults on `cores` cores.
fn run(
    cores: u8,
    faults: &[(Place, Fault, u64)],
) -> (Result<Vec<TensorMap>, RuntimeError>, Vec<Incident>) {
    let (_folder, pack) = pack(SHARDS);
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    for (place, fault, times) in faults {
        device.inject(place.clone(), *fault, *times);
    }
    let mut options = CoresOptions::new(cores);
    if faults.iter().any(|(_, fault, _)| *fault == Fault::Hang) {
        options.time_limit = LIMIT;
    }
    let cores = Cores::new(&devices(&device), options).unwrap();
    let result = match cores.load(&pack, Mode::Pipeline, |_| true) {
        Err(error) => (Err(error), Vec::new()),
        Ok(loaded) => {
            let Outcome { outputs, trace } = run_m(&loaded, items(ITEMS));
            (outputs, [loaded.incidents().to_vec(), trace.incidents].concat())
        }
    };
    device.release();
    result
}

fn core(n: u8) -> CoreId {
    CoreId::Npu(n)
}

fn on(shard: &str, n: u8) -> Place {
    Place { shard: Some(shard.into()), core: Some(core(n)) }
}

#[test]
fn a_fault_is_overcome_and_reported() {
    use Action::{Moved, Retried};
    let expected = expected();
    let unavailable = DeviceErrorKind::Unavailable;
    // shard4 is pinned to core 1.
    let cases: &[(&str, u8, Fault, u64, &[Action])] = &[
        ("fails once", 3, Fault::Run(RUN), 1, &[Retried]),
        ("fails for good", 3, Fault::Run(RUN), u64::MAX, &[Retried, Moved(core(2))]),
        ("panics once", 3, Fault::Panic, 1, &[Retried]),
        ("panics for good", 2, Fault::Panic, u64::MAX, &[Retried, Moved(core(0))]),
        ("NaN once", 3, Fault::NotANumber, 1, &[Retried]),
        ("NaN for good on one core", 3, Fault::NotANumber, u64::MAX, &[Retried, Moved(core(2))]),
        ("hangs", 3, Fault::Hang, 1, &[Moved(core(2))]),
        ("is gone", 3, Fault::Run(unavailable), u64::MAX, &[Moved(core(2))]),
        (
            "out of memory on open",
            3,
            Fault::Open(DeviceErrorKind::Memory),
            u64::MAX,
            &[Moved(core(2))],
        ),
        ("gone on open", 2, Fault::Open(unavailable), u64::MAX, &[Moved(core(0))]),
        ("fails once on open", 2, Fault::Open(RUN), 1, &[Retried]),
    ];
    for (name, cores, fault, times, actions) in cases {
        let home = 4 % 3 % cores;
        let (result, incidents) = run(*cores, &[(on("shard4", home), *fault, *times)]);
        assert_eq!(result.unwrap(), expected, "{name}");
        // A busy machine may make another run look as if it hung.
        let ours = incidents.iter().filter(|i| i.shard == "shard4" && i.core == core(home));
        let found: Vec<Action> = ours.map(|i| i.action).collect();
        assert!(found.starts_with(actions), "{name}: {incidents:?}");
        assert!(*fault == Fault::Hang || found.len() == incidents.len(), "{name}: {incidents:?}");
    }
}

#[test]
fn with_one_core_there_is_one_more_try() {
    let expected = expected();
    for fault in [
        Fault::Run(RUN),
        Fault::Panic,
        Fault::NotANumber,
        Fault::Hang,
        Fault::Run(DeviceErrorKind::Unavailable),
    ] {
        let (result, incidents) = run(1, &[(Place::shard("shard4"), fault, 1)]);
        assert_eq!(result.unwrap(), expected, "{fault:?}");
        assert_eq!(
            incidents.iter().map(|i| i.action).collect::<Vec<_>>(),
            [Action::Retried],
            "{fault:?}"
        );
    }
}

#[test]
fn what_cannot_be_overcome_names_shard_core_cause_and_tries() {
    let forever = |fault| run(3, &[(Place::shard("shard4"), fault, u64::MAX)]);
    let text = |fault| forever(fault).0.unwrap_err().to_string();
    let tried = |cause: &str| {
        format!(
            "core 1 ({cause}), core 2 ({cause}), core 2 ({cause}), core 0 ({cause}), core 0 ({cause})"
        )
    };
    assert_eq!(
        text(Fault::Run(RUN)),
        format!(
            "shard shard4 on core 1: injected fault on run; also tried: {}",
            tried("injected fault on run")
        )
    );
    let hung = "no answer within 200ms, the run was given up";
    assert_eq!(
        text(Fault::Hang),
        format!("shard shard4 on core 1: {hung}; also tried: core 2 ({hung}), core 0 ({hung})")
    );
    // An error of the input or the model is the same everywhere.
    for kind in [DeviceErrorKind::Input, DeviceErrorKind::Limit, DeviceErrorKind::Load] {
        let (result, incidents) = forever(Fault::Run(kind));
        assert_eq!(
            result.unwrap_err().to_string(),
            "shard shard4 on core 1: injected fault on run"
        );
        assert!(incidents.iter().all(|i| i.action == Action::GaveUp), "{incidents:?}");
    }
    let (result, _) = run(2, &[(Place::default(), Fault::Open(DeviceErrorKind::Memory), u64::MAX)]);
    assert_eq!(
        result.unwrap_err().to_string(),
        "shard shard0 on core 0: injected fault on open; also tried: core 1 (injected fault on open)"
    );
}

#[test]
fn nan_on_every_core_is_the_shards_value() {
    for cores in [1, 3] {
        let (result, incidents) =
            run(cores, &[(Place::shard("shard5"), Fault::NotANumber, u64::MAX)]);
        let outputs = result.unwrap();
        assert!(
            outputs.iter().all(|o| o["v6"].to_f32().unwrap().iter().all(|v| v.is_nan())),
            "{cores} cores"
        );
        assert_eq!(
            incidents.iter().filter(|i| i.action == Action::PassedOn).count(),
            ITEMS,
            "{incidents:?}"
        );
    }
    // NaN that goes in is no fault.
    let (_folder, pack) = pack(SHARDS);
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    device.inject(Place::shard("shard0"), Fault::NotANumber, u64::MAX);
    let loaded = load(&pack, &devices(&device), 3, Mode::Pipeline).unwrap();
    let item = [("v0".to_owned(), Tensor::from_f32([1, 8], vec![f32::NAN; 8]))].into();
    let Outcome { outputs, trace } = run_m(&loaded, vec![item]);
    outputs.unwrap();
    assert_eq!(trace.incidents, []);
}

/// Gives another NaN on every core.
#[derive(Clone)]
struct Disagreeing(MockDevice);

struct DisagreeingSession(Box<dyn Session>, u32);

impl Device for Disagreeing {
    fn name(&self) -> &'static str {
        "disagreeing"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let n = if let CoreId::Npu(n) = core { n.into() } else { 7 };
        Ok(Box::new(DisagreeingSession(self.0.open(shard, core)?, n)))
    }
}

impl Session for DisagreeingSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        let mut completion = self.0.run(inputs)?;
        let nan = |t: &Tensor| {
            Tensor::from_f32(t.shape(), vec![f32::from_bits(0x7fc0_0000 + self.1); t.len()])
        };
        completion.outputs = completion.outputs.iter().map(nan).collect();
        Ok(completion)
    }
}

#[test]
fn cores_that_disagree_are_an_error() {
    let (_folder, pack) = pack(SHARDS);
    let device = devices(&Disagreeing(MockDevice::new(3)));
    let loaded = load(&pack, &device, 3, Mode::Pipeline).unwrap();
    let error = run_m(&loaded, items(1)).outputs.unwrap_err().to_string();
    assert!(
        error.starts_with("shard shard0: cores give different values with NaN")
            && error.contains("core 0, core 0, core 1"),
        "{error}"
    );
}

#[test]
fn a_reset_disturbs_all_cores() {
    let expected = expected();
    let slow = Fault::Slow(Duration::from_millis(60));
    // While core 1 hangs and is reset, the others are under way.
    let (result, incidents) = run(
        3,
        &[
            (Place::core(core(0)), slow, u64::MAX),
            (Place::core(core(2)), slow, u64::MAX),
            (on("shard4", 1), Fault::Reset, 1),
        ],
    );
    assert_eq!(result.unwrap(), expected);
    assert!(
        incidents.iter().any(|i| i.cause == "injected reset" && i.action == Action::Retried),
        "{incidents:?}"
    );
    assert!(
        incidents.iter().any(|i| i.cause == "another core's reset" && i.core != core(1)),
        "{incidents:?}"
    );
}

#[test]
fn a_core_that_keeps_failing_is_set_aside() {
    let (_folder, pack) = pack(SHARDS);
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    device.inject(Place::core(core(1)), Fault::Run(RUN), u64::MAX);
    let loaded = load(&pack, &devices(&device), 3, Mode::Pipeline).unwrap();
    let Outcome { outputs, trace } = run_m(&loaded, items(ITEMS));
    assert_eq!(outputs.unwrap(), expected());
    let aside = |i: &&Incident| i.action == Action::SetAside;
    assert_eq!(trace.incidents.iter().filter(aside).count(), 1);
    assert!(trace.shard_runs.iter().any(|r| r.tries > 1));
    let before = device.injected();
    let Outcome { outputs, trace } = run_m(&loaded, items(ITEMS));
    assert_eq!(outputs.unwrap(), expected());
    assert_eq!((device.injected(), trace.incidents), (before, vec![]));
    assert!(trace.shard_runs.iter().all(|r| r.core != core(1)));
}

#[test]
fn a_hanging_run_does_not_keep_the_cores() {
    let (_folder, pack) = pack(SHARDS);
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    device.inject(Place::default(), Fault::Hang, u64::MAX);
    let start = Instant::now();
    let options = CoresOptions { time_limit: LIMIT, ..CoresOptions::new(2) };
    let cores = Cores::new(&devices(&device), options).unwrap();
    let loaded = cores.load(&pack, Mode::Replicate, |_| true).unwrap();
    let outputs = run_m(&loaded, items(ITEMS)).outputs;
    assert!(matches!(outputs, Err(RuntimeError::Exhausted { .. })));
    drop((loaded, cores));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    device.release();
}
