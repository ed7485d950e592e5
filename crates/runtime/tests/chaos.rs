//! Ten thousand runs with faults that come by chance, on random graphs of shards, from several threads: results are those of runs
//! without faults, or there is an error that says why; nothing hangs, nothing is lost, and memory and threads stay what they were.
#![allow(clippy::print_stdout)]

mod common;

use common::random_pack;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rockshard_device::DeviceErrorKind;
use rockshard_device_kit::packs::devices;
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice};
use rockshard_pack::{Mode, Pack};
use rockshard_runtime::{Incident, Options, Runner, RuntimeError, TensorMap};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PACKS: u64 = 16;
const ROUNDS: u64 = 500;
const THREADS: u64 = 4;
const RUNS_PER_THREAD: u64 = 5;
const RUNS: u64 = ROUNDS * THREADS * RUNS_PER_THREAD;
/// Different items there are.
const ITEMS: usize = 8;
/// All of it must be done by then.
const WATCHDOG: Duration = Duration::from_secs(300);
/// Memory may grow by this after the first tenth of the rounds.
const GROWTH: u64 = 8 << 20;

fn item(i: usize) -> TensorMap {
    [("v0".to_owned(), Tensor::from_f32([1, 8], vec![i as f32; 8]))].into()
}

/// A number from `/proc/self/status`.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Memory of this process. A leak makes both grow; each alone also has what is not the program's.
struct Memory {
    /// Resident bytes; under an emulator also its own, of which threads that ended leave some behind.
    resident: u64,
    /// Bytes of writable mappings; also stacks that the C library keeps for new threads.
    writable: u64,
}

impl Memory {
    fn now() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let bytes = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
            rest.starts_with("rw").then(|| to - from)
        };
        Memory { resident: status("VmRSS") * 1024, writable: maps.lines().filter_map(bytes).sum() }
    }

    /// Bytes by which it has grown for sure.
    fn grown_since(&self, before: &Memory) -> u64 {
        self.resident
            .saturating_sub(before.resident)
            .min(self.writable.saturating_sub(before.writable))
    }
}

/// Faults in thousandths of all uses.
const FAULTS: &[(Fault, u32)] = &[
    (Fault::Open(DeviceErrorKind::Memory), 10),
    (Fault::Open(DeviceErrorKind::Unavailable), 10),
    (Fault::Open(DeviceErrorKind::Run), 10),
    (Fault::Run(DeviceErrorKind::Run), 20),
    (Fault::Run(DeviceErrorKind::Unavailable), 10),
    (Fault::Panic, 5),
    (Fault::Glitch, 10),
    (Fault::Reset, 5),
    (Fault::Hang, 1),
    (Fault::Slow(Duration::from_micros(200)), 50),
];

/// What incidents say of each of them.
const CAUSES: [&str; 6] = [
    "injected fault on run",
    "injected panic",
    "gave NaN",
    "injected reset",
    "another core's reset",
    "no answer within",
];

#[derive(Default)]
struct Counts {
    runs: u64,
    errors: u64,
    incidents: Vec<Incident>,
}

/// One runner, used by several threads.
fn round(seed: u64, pack: &Pack, expected: &[TensorMap], mock: &MockDevice) -> Counts {
    let mut rng = SmallRng::seed_from_u64(seed);
    let device = FaultyDevice::new(Arc::new(mock.clone()));
    let placement = if rng.random() { Mode::Pipeline } else { Mode::Replicate };
    let options = Options {
        time_limit: Duration::from_millis(50),
        ..Options::new(rng.random_range(1..=3), placement)
    };
    // Opening fails for good now and then: other faults, until it does not.
    let runner = loop {
        device.inject_randomly(rng.random(), FAULTS);
        match Runner::with_options(pack, |_| true, &devices(&device), &options) {
            Ok(runner) => break runner,
            Err(error) => explained(&error),
        }
    };
    let run = |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut errors = 0;
        for _ in 0..RUNS_PER_THREAD {
            let numbers: Vec<usize> =
                (0..rng.random_range(1..=4)).map(|_| rng.random_range(0..ITEMS)).collect();
            match runner.run("m", numbers.iter().map(|&i| item(i)).collect()) {
                Ok(outputs) => {
                    assert_eq!(outputs.len(), numbers.len(), "seed {seed}");
                    for (output, &i) in outputs.iter().zip(&numbers) {
                        assert_eq!(output, &expected[i], "seed {seed}");
                    }
                }
                Err(error) => {
                    explained(&error);
                    errors += 1;
                }
            }
        }
        errors
    };
    let errors = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|t| scope.spawn(move || run(seed * THREADS + t))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum::<u64>()
    });
    let incidents = runner.take_trace().incidents;
    device.release();
    Counts { runs: THREADS * RUNS_PER_THREAD, errors, incidents }
}

/// The error must say which shard failed where and of what.
fn explained(error: &RuntimeError) {
    let text = error.to_string();
    let known = [
        "injected",
        "no answer within",
        "gave NaN",
        "cores give different values",
        "another core's reset",
    ];
    assert!(text.contains("shard s") && (text.contains("core") || text.contains("host")), "{text}");
    assert!(known.iter().any(|k| text.contains(k)), "{text}");
}

fn chaos() -> String {
    let packs: Vec<_> = (0..PACKS).map(random_pack).collect();
    let expected: Vec<Vec<TensorMap>> = packs
        .iter()
        .map(|(_folder, pack)| {
            let runner =
                Runner::new(pack, &[], &devices(&MockDevice::new(1)), 1, Mode::Pipeline).unwrap();
            runner.run("m", (0..ITEMS).map(item).collect()).unwrap()
        })
        .collect();
    let (start, threads) = (Instant::now(), status("Threads"));
    let (mut runs, mut errors, mut incidents) = (0, 0, 0);
    let mut warm = Memory::now();
    let mut seen = CAUSES.map(|_| 0);
    let mock = MockDevice::new(3);
    for seed in 0..ROUNDS {
        let which = (seed % PACKS) as usize;
        let counts = round(seed, &packs[which].1, &expected[which], &mock);
        runs += counts.runs;
        errors += counts.errors;
        incidents += counts.incidents.len() as u64;
        for (n, cause) in seen.iter_mut().zip(CAUSES) {
            *n += counts.incidents.iter().filter(|i| i.cause.contains(cause)).count();
        }
        if seed == ROUNDS / 10 {
            warm = Memory::now();
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "{CAUSES:?}: {seen:?}");
    assert_eq!(runs, RUNS);
    // Most faults are overcome, and some cannot be.
    assert!(
        incidents > RUNS / 10 && errors > 0 && errors < RUNS / 10,
        "{errors} errors, {incidents} incidents"
    );
    let took = start.elapsed();
    while status("Threads") > threads {
        assert!(
            start.elapsed() < took + Duration::from_secs(20),
            "{} threads instead of {threads}",
            status("Threads")
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(mock.kept(), 0, "tensors are left on the device");
    let end = Memory::now();
    assert!(end.grown_since(&warm) < GROWTH, "memory grew by {} bytes", end.grown_since(&warm));
    format!(
        "{runs} runs in {took:.1?}: {errors} ended in an error, {incidents} incidents ({seen:?} of {CAUSES:?}); resident {} kB, then {} kB",
        warm.resident >> 10,
        end.resident >> 10
    )
}

#[test]
fn faults_by_chance_change_no_result() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().downcast_ref::<String>().is_some_and(|s| s.starts_with("injected panic"))
        {
            usual(info);
        }
    }));
    let (sender, receiver) = channel();
    let work = std::thread::spawn(move || sender.send(chaos()));
    match receiver.recv_timeout(WATCHDOG) {
        Ok(summary) => println!("{summary}"),
        Err(RecvTimeoutError::Timeout) => panic!("not done after {WATCHDOG:?}: something hangs"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(work.join().unwrap_err()),
    }
}
