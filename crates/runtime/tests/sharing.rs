//! A hundred thousand runs by eight threads that load packs, run them, cancel, and drop packs as they like, in one process on one set of
//! cores: results are right, nothing is lost or comes twice, memory stays within the limit, and what is not needed is given back.
#![allow(clippy::print_stdout)]

mod common;

use common::counting::Counting;
use common::memory::{Memory, status};
use common::{item, items, load};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rockshard_device_kit::MockDevice;
use rockshard_device_kit::packs::{chain, devices, pack_of};
use rockshard_pack::{Mode, Pack};
use rockshard_runtime::{
    Client, Cores, CoresOptions, LoadedPack, RunOptions, RuntimeError, TensorMap, Ticket,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const THREADS: u64 = 8;
const RUNS: u64 = 100_000;
const ITEMS: usize = 8;
/// Packs with the bytes of weights and activations of a shard; the limit has room for about half of what is loaded.
const PACKS: [(&str, u64, u64); 4] =
    [("a", 100, 50), ("b", 200, 50), ("c", 300, 20), ("d", 400, 10)];
const SHARDS: usize = 6;
const LIMIT: u64 = 6_000;

fn bytes(shard: &str) -> (u64, u64) {
    let (_, weights, activations) =
        PACKS.iter().find(|(name, ..)| shard.starts_with(name)).unwrap();
    (*weights, *activations)
}
/// Memory may grow by this after the first tenth of the runs.
const GROWTH: u64 = 8 << 20;

struct Known {
    name: &'static str,
    pack: Pack,
    _folder: TempDir,
    expected: Vec<TensorMap>,
}

/// What the threads did.
#[derive(Default)]
struct Done {
    runs: AtomicU64,
    cancelled: AtomicU64,
    loads: AtomicU64,
}

/// Check a ticket's outcome. A cancelled run has no outputs.
fn settle(ticket: Ticket, numbers: &[usize], known: &Known, cancelled: bool, done: &Done) {
    let number = ticket.number();
    let outcome = ticket.wait();
    let trace = outcome.trace;
    assert!(trace.shard_runs.iter().all(|r| r.run == number));
    assert_eq!((trace.submissions.len(), trace.submissions[0].run), (1, number));
    assert_eq!(trace.incidents, []);
    match outcome.outputs {
        Ok(outputs) => {
            assert_eq!(trace.shard_runs.len(), SHARDS * numbers.len());
            let expected = numbers.iter().map(|&i| &known.expected[i]);
            assert!(outputs.iter().eq(expected), "run {number}");
        }
        Err(RuntimeError::Cancelled) if cancelled => {
            done.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => panic!("run {number}: {error}"),
    }
    done.runs.fetch_add(1, Ordering::Relaxed);
}

/// One thread: load a pack, submit some runs and settle them in any order, drop the pack while some are under way.
fn work(seed: u64, cores: &Cores, known: &[Known], done: &Done) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while done.runs.load(Ordering::Relaxed) < RUNS {
        let which = &known[rng.random_range(0..known.len())];
        let mode = if rng.random() { Mode::Pipeline } else { Mode::Replicate };
        let loaded: LoadedPack = cores.load(&which.pack, mode, |_| true).unwrap();
        done.loads.fetch_add(1, Ordering::Relaxed);
        let mut tickets = Vec::new();
        for _ in 0..rng.random_range(1..100) {
            let options = RunOptions { client: Client::new(), ..RunOptions::default() };
            let numbers: Vec<usize> =
                (0..rng.random_range(1..=3)).map(|_| rng.random_range(0..ITEMS)).collect();
            let given = numbers.iter().map(|&i| item(i)).collect();
            let ticket = loaded.submit(which.name, given, &options).unwrap();
            let cancelled = rng.random_range(0..10) == 0;
            if cancelled && rng.random() {
                options.cancel.cancel();
            } else if cancelled {
                ticket.cancel();
            }
            tickets.push((ticket, numbers, cancelled));
            if tickets.len() > 4 {
                let (ticket, numbers, cancelled) =
                    tickets.swap_remove(rng.random_range(0..tickets.len()));
                settle(ticket, &numbers, which, cancelled, done);
            }
        }
        drop(loaded);
        for (ticket, numbers, cancelled) in tickets {
            settle(ticket, &numbers, which, cancelled, done);
        }
        assert!(cores.resident_peak() <= LIMIT);
    }
}

#[test]
fn packs_come_and_go_on_one_set_of_cores() {
    let mock = MockDevice::new(3);
    let known = PACKS.map(|(name, weights, activations)| {
        let (_folder, pack) = pack_of(vec![chain(name, SHARDS, weights, activations)]);
        let alone = load(&pack, &devices(&mock), 1, Mode::Pipeline).unwrap();
        let outcome = alone.run(name, items(ITEMS), &RunOptions::default()).unwrap();
        Known { name, pack, _folder, expected: outcome.outputs.unwrap() }
    });
    let counting = Counting::new(Arc::new(mock.clone()), bytes);
    let threads = status("Threads");
    let options = CoresOptions { memory_limit: Some(LIMIT), ..CoresOptions::new(3) };
    let cores = Cores::new(&devices(&counting), options).unwrap();
    let done = Done::default();
    let start = Instant::now();
    let mut warm = Memory::now();
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (cores, known, done) = (&cores, &known, &done);
            scope.spawn(move || work(seed, cores, known, done));
        }
        while done.runs.load(Ordering::Relaxed) < RUNS / 10 {
            std::thread::sleep(Duration::from_millis(5));
        }
        warm = Memory::now();
    });
    let took = start.elapsed();
    let end = Memory::now();
    let peak = cores.resident_peak();
    drop(cores);
    assert!(end.grown_since(&warm) < GROWTH, "memory grew by {} bytes", end.grown_since(&warm));
    assert!(counting.peak() <= peak && peak <= LIMIT, "{} {peak}", counting.peak());
    assert_eq!((counting.sessions(), mock.kept()), (0, 0));
    let counts = [&done.runs, &done.cancelled, &done.loads].map(|n| n.load(Ordering::Relaxed));
    let [runs, cancelled, loads] = counts;
    assert!(runs >= RUNS && cancelled > RUNS / 50 && loads > RUNS / 200, "{counts:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while status("Threads") > threads {
        assert!(Instant::now() < deadline, "{} threads are left", status("Threads"));
        std::thread::sleep(Duration::from_millis(5));
    }
    println!(
        "{runs} runs in {took:.1?}, {cancelled} cancelled, {loads} loads; modelled peak {peak} of {LIMIT} bytes, counted {}; resident {} kB, then {} kB",
        counting.peak(),
        warm.resident >> 10,
        end.resident >> 10
    );
}
