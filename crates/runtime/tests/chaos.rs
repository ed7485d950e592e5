//! Ten thousand runs with faults that come by chance, on random graphs of shards, from several threads: results are those of runs
//! without faults, or there is an error that says why; nothing hangs, nothing is lost, and memory and threads stay what they were.
#![allow(clippy::print_stdout)]

mod common;

use common::memory::{Memory, status};
use common::{item, load, random_pack};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rockshard_device::DeviceErrorKind;
use rockshard_device_kit::packs::devices;
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice};
use rockshard_pack::{Mode, Pack};
use rockshard_runtime::{
    Client, Cores, CoresOptions, Incident, RunOptions, RuntimeError, TensorMap,
};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PACKS: u64 = 16;
const ROUNDS: u64 = 500;
/// Rounds at once; they divide a tenth of all.
const TOGETHER: u64 = 10;
const THREADS: u64 = 4;
const RUNS_PER_THREAD: u64 = 5;
const RUNS: u64 = ROUNDS * THREADS * RUNS_PER_THREAD;
/// Different items there are.
const ITEMS: usize = 8;
/// All of it must be done by then.
const WATCHDOG: Duration = Duration::from_secs(300);
/// Memory may grow by this after the first tenth of the rounds.
const GROWTH: u64 = 8 << 20;

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
    errors: u64,
    incidents: Vec<Incident>,
}

impl Counts {
    fn with(mut self, other: Counts) -> Self {
        self.errors += other.errors;
        self.incidents.extend(other.incidents);
        self
    }
}

/// One pack on cores of its own, used by several clients.
fn round(seed: u64, pack: &Pack, expected: &[TensorMap], mock: &MockDevice) -> Counts {
    let mut rng = SmallRng::seed_from_u64(seed);
    let device = FaultyDevice::new(Arc::new(mock.clone()));
    let mode = if rng.random() { Mode::Pipeline } else { Mode::Replicate };
    let options = CoresOptions {
        time_limit: Duration::from_millis(50),
        ..CoresOptions::new(rng.random_range(1..=3))
    };
    let cores = Cores::new(&devices(&device), options).unwrap();
    // Opening fails for good now and then: other faults, until it does not.
    let loaded = loop {
        device.inject_randomly(rng.random(), FAULTS);
        match cores.load(pack, mode, |_| true) {
            Ok(loaded) => break loaded,
            Err(error) => explained(&error),
        }
    };
    let client = |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let options = RunOptions { client: Client::new(), ..RunOptions::default() };
        let mut counts = Counts::default();
        for _ in 0..RUNS_PER_THREAD {
            let numbers: Vec<usize> =
                (0..rng.random_range(1..=4)).map(|_| rng.random_range(0..ITEMS)).collect();
            let ticket = loaded.submit("m", numbers.iter().map(|&i| item(i)).collect(), &options);
            let ticket = ticket.unwrap();
            let number = ticket.number();
            let outcome = ticket.wait();
            let trace = outcome.trace;
            assert!(trace.shard_runs.iter().all(|r| r.run == number), "seed {seed}");
            assert!(trace.incidents.iter().all(|i| i.run == Some(number)), "seed {seed}");
            match outcome.outputs {
                Ok(outputs) => {
                    assert_eq!(outputs.len(), numbers.len(), "seed {seed}");
                    for (output, &i) in outputs.iter().zip(&numbers) {
                        assert_eq!(output, &expected[i], "seed {seed}");
                    }
                }
                Err(error) => {
                    explained(&error);
                    counts.errors += 1;
                }
            }
            counts.incidents.extend(trace.incidents);
        }
        counts
    };
    let mut counts = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|t| scope.spawn(move || client(seed * THREADS + t))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).fold(Counts::default(), Counts::with)
    });
    counts.incidents.extend_from_slice(loaded.incidents());
    device.release();
    counts
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
            let mock = devices(&MockDevice::new(1));
            let loaded = load(pack, &mock, 1, Mode::Pipeline).unwrap();
            common::run(&loaded, common::items(ITEMS)).outputs.unwrap()
        })
        .collect();
    let (start, threads) = (Instant::now(), status("Threads"));
    let (mut runs, mut errors, mut incidents) = (0, 0, 0);
    let mut warm = Memory::now();
    let mut seen = CAUSES.map(|_| 0);
    let mock = MockDevice::new(3);
    let round = &|seed: u64| {
        let which = (seed % PACKS) as usize;
        round(seed, &packs[which].1, &expected[which], &mock)
    };
    for first in (0..ROUNDS).step_by(TOGETHER as usize) {
        // Rounds mostly wait for what hangs.
        let counts = std::thread::scope(|scope| {
            let rounds: Vec<_> =
                (first..first + TOGETHER).map(|seed| scope.spawn(move || round(seed))).collect();
            rounds.into_iter().map(|r| r.join().unwrap()).fold(Counts::default(), Counts::with)
        });
        runs += TOGETHER * THREADS * RUNS_PER_THREAD;
        errors += counts.errors;
        incidents += counts.incidents.len() as u64;
        for (n, cause) in seen.iter_mut().zip(CAUSES) {
            *n += counts.incidents.iter().filter(|i| i.cause.contains(cause)).count();
        }
        if first == ROUNDS / 10 {
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
