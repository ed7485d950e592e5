//! Two clients on the same cores: the one with a single item waits its share and no longer, and the other loses that share and no
//! more.
#![allow(clippy::print_stdout)]

mod common;

use common::items;
use rockshard_device_kit::packs::{chain, devices, pack_of};
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice, Place};
use rockshard_pack::Mode;
use rockshard_runtime::{Client, Cores, CoresOptions, LoadedPack, Priority, RunOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Items of the client with many.
const MANY: usize = 256;
const SHARDS: usize = 6;
/// A shard's time: well above what a timer and a busy machine add.
const SHARD: Duration = Duration::from_millis(2);
/// Times its time alone that a single item may take beside one other client.
const SHARE: f64 = 2.2;
/// What measured times of the same work may differ by.
const NOISE: f64 = 1.05;
/// A busy machine may disturb a measurement: the best of these counts.
const ATTEMPTS: usize = 3;

fn slow() -> FaultyDevice {
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    device.inject(Place::default(), Fault::Slow(SHARD), u64::MAX);
    device
}

fn options() -> RunOptions {
    RunOptions { client: Client::new(), ..RunOptions::default() }
}

/// Seconds that a run of `count` items takes.
fn time(loaded: &LoadedPack, count: usize, options: &RunOptions) -> f64 {
    let start = Instant::now();
    loaded.run("m", items(count), options).unwrap().outputs.unwrap();
    start.elapsed().as_secs_f64()
}

/// What was measured: a single item alone and beside many, many items alone and beside a single one; seconds.
struct Measured {
    single: [f64; 2],
    many: [f64; 2],
}

impl Measured {
    fn now(cores: u8, mode: Mode) -> Self {
        let (_folder, pack) = pack_of(vec![chain("m", SHARDS, 0, 0)]);
        let cores = Cores::new(&devices(&slow()), CoresOptions::new(cores)).unwrap();
        let loaded = cores.load(&pack, mode, |_| true).unwrap();
        let (a, b) = (options(), options());
        let alone = time(&loaded, 1, &b);
        let many_alone = time(&loaded, MANY, &a);
        let start = Instant::now();
        let many = loaded.submit("m", items(MANY), &a).unwrap();
        std::thread::sleep(5 * SHARD);
        let beside = time(&loaded, 1, &b);
        assert!(!many.is_over());
        many.wait().outputs.unwrap();
        let many_beside = start.elapsed().as_secs_f64();
        Measured { single: [alone, beside], many: [many_alone, many_beside] }
    }

    fn is_fair(&self, cores: u8) -> bool {
        let [alone, beside] = self.single;
        let [many_alone, many_beside] = self.many;
        // The single item takes its own time of the cores away.
        let own = alone / f64::from(cores);
        beside <= SHARE * alone && many_beside <= NOISE * (many_alone + own)
    }
}

fn check(cores: u8, mode: Mode) {
    for attempt in 1..=ATTEMPTS {
        let measured = Measured::now(cores, mode);
        let ([alone, beside], [many_alone, many_beside]) = (measured.single, measured.many);
        println!(
            "{cores} cores, {mode}: one item {:.2} times its time alone, {MANY} items {:.3} times theirs",
            beside / alone,
            many_beside / many_alone
        );
        if measured.is_fair(cores) {
            return;
        }
        assert!(
            attempt < ATTEMPTS,
            "{cores} cores, {mode}: alone {alone}, beside {beside}; {many_alone}, {many_beside}"
        );
    }
}

#[test]
fn one_core_is_shared() {
    check(1, Mode::Pipeline);
}

#[test]
fn a_pipeline_is_shared() {
    check(3, Mode::Pipeline);
}

#[test]
fn replicated_cores_are_shared() {
    check(3, Mode::Replicate);
}

#[test]
fn two_packs_share_one_core() {
    let (_a, first) = pack_of(vec![chain("m", SHARDS, 0, 0)]);
    let (_b, second) = pack_of(vec![chain("m", SHARDS, 0, 0)]);
    let cores = Cores::new(&devices(&slow()), CoresOptions::new(1)).unwrap();
    let [first, second] =
        [&first, &second].map(|pack| cores.load(pack, Mode::Pipeline, |_| true).unwrap());
    let (a, b) = (options(), options());
    let mut worst = f64::INFINITY;
    for _ in 0..ATTEMPTS {
        let alone = time(&second, 1, &b);
        let many = first.submit("m", items(MANY), &a).unwrap();
        std::thread::sleep(5 * SHARD);
        worst = worst.min(time(&second, 1, &b) / alone);
        drop(many);
        if worst <= SHARE {
            return;
        }
    }
    panic!("{worst} times its time alone");
}

/// Of two clients with much to do, the one whose work is urgent gets four fifths of the core.
#[test]
fn priority_is_a_larger_share() {
    let (_folder, pack) = pack_of(vec![chain("m", SHARDS, 0, 0)]);
    let cores = Cores::new(&devices(&slow()), CoresOptions::new(1)).unwrap();
    let loaded = cores.load(&pack, Mode::Pipeline, |_| true).unwrap();
    let urgent = RunOptions { priority: Priority::High, ..options() };
    let usual = loaded.submit("m", items(40), &options()).unwrap();
    let first = loaded.submit("m", items(40), &urgent).unwrap();
    let first = first.wait();
    usual.cancel();
    let done = usual.wait().trace.shard_runs.len() as f64;
    let share = first.trace.shard_runs.len() as f64 / (first.trace.shard_runs.len() as f64 + done);
    assert!((0.72..0.88).contains(&share), "{share}");
}
