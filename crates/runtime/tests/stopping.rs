//! Runs that are stopped, by hand or at their deadline; what a run is told about itself; and how runs lie on the modelled clock.

mod common;

use common::{items, load};
use rockshard_device_kit::packs::{chain, devices, pack_of};
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice, Place};
use rockshard_pack::Mode;
use rockshard_runtime::{
    Cancel, Cores, CoresOptions, Event, LoadedPack, Observer, RunOptions, RuntimeError, Trace,
};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SHARDS: usize = 6;
const SHARD: Duration = Duration::from_millis(50);
/// Well above what a busy machine adds, and less than a shard.
const SLACK: Duration = Duration::from_millis(45);

/// A pack on a mock whose shards take [`SHARD`], with the mock.
fn slow(cores: u8, mode: Mode) -> (MockDevice, LoadedPack) {
    let (_folder, pack) = pack_of(vec![chain("m", SHARDS, 0, 0)]);
    let mock = MockDevice::new(3);
    let device = FaultyDevice::new(Arc::new(mock.clone()));
    device.inject(Place::default(), Fault::Slow(SHARD), u64::MAX);
    let loaded = load(&pack, &devices(&device), cores, mode).unwrap();
    (mock, loaded)
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_cancelled_run_ends_at_once_and_frees_its_core_within_a_shard() {
    for (cores, mode) in [(1, Mode::Pipeline), (3, Mode::Pipeline), (3, Mode::Replicate)] {
        let (mock, loaded) = slow(cores, mode);
        let other = loaded.run("m", items(2), &RunOptions::default()).unwrap().outputs.unwrap();
        let cancel = Cancel::default();
        let options = RunOptions { cancel: cancel.clone(), ..RunOptions::default() };
        let before = mock.runs();
        let ticket = loaded.submit("m", items(64), &options).unwrap();
        let beside = loaded.submit("m", items(2), &RunOptions::default()).unwrap();
        wait_until("shards run", || mock.runs() > before + 3);
        cancel.cancel();
        let start = Instant::now();
        let outcome = ticket.wait();
        assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
        assert!(matches!(outcome.outputs, Err(RuntimeError::Cancelled)));
        // Others go on, with the same results.
        assert_eq!(beside.wait().outputs.unwrap(), other);
        let done = mock.runs();
        // What it had kept on the device is gone when the shards that were running are.
        wait_until("tensors are freed", || mock.kept() == 0);
        std::thread::sleep(2 * SHARD);
        assert_eq!(mock.runs(), done, "nothing of it runs any more");
        let late = loaded.run("m", items(1), &options).unwrap().outputs;
        assert!(matches!(late, Err(RuntimeError::Cancelled)));
        loaded.run("m", items(1), &RunOptions::default()).unwrap().outputs.unwrap();
    }
}

#[test]
fn a_core_is_free_for_others_within_one_shard() {
    let (mock, loaded) = slow(1, Mode::Pipeline);
    let ticket = loaded.submit("m", items(64), &RunOptions::default()).unwrap();
    wait_until("a shard runs", || mock.runs() > 0);
    ticket.cancel();
    let start = Instant::now();
    let told = Arc::new(Mutex::new(None));
    let first = told.clone();
    let observer = Observer::new(move |_| {
        first.lock().unwrap().get_or_insert_with(|| start.elapsed());
    });
    let options = RunOptions { observer: Some(observer), ..RunOptions::default() };
    loaded.run("m", items(1), &options).unwrap().outputs.unwrap();
    // The shard that was running, and then its own first one.
    let first = told.lock().unwrap().unwrap();
    assert!(first < 2 * SHARD + SLACK, "{first:?}");
}

#[test]
fn a_run_ends_at_its_deadline() {
    let (mock, loaded) = slow(1, Mode::Pipeline);
    let options =
        RunOptions { deadline: Some(Instant::now() + 4 * SHARD), ..RunOptions::default() };
    let start = Instant::now();
    let outcome = loaded.run("m", items(64), &options).unwrap();
    let took = start.elapsed();
    assert!(matches!(outcome.outputs, Err(RuntimeError::Deadline)));
    assert!((4 * SHARD..4 * SHARD + SLACK).contains(&took), "{took:?}");
    assert!((2..=4).contains(&outcome.trace.shard_runs.len()), "{outcome:?}");
    wait_until("tensors are freed", || mock.kept() == 0);
    // One that is done in time is not disturbed by it later.
    let deadline = Some(Instant::now() + Duration::from_secs(60));
    let options = RunOptions { deadline, ..RunOptions::default() };
    loaded.run("m", items(1), &options).unwrap().outputs.unwrap();
    let passed = RunOptions { deadline: Some(start), ..RunOptions::default() };
    let outcome = loaded.run("m", items(1), &passed).unwrap();
    assert!(matches!(outcome.outputs, Err(RuntimeError::Deadline)));
}

#[test]
fn a_dropped_ticket_stops_its_run() {
    let (mock, loaded) = slow(1, Mode::Pipeline);
    drop(loaded.submit("m", items(64), &RunOptions::default()).unwrap());
    std::thread::sleep(2 * SHARD);
    let runs = mock.runs();
    assert!(runs <= 1, "{runs}");
    std::thread::sleep(2 * SHARD);
    assert_eq!(mock.runs(), runs);
}

#[test]
fn a_run_outlives_its_pack() {
    let (mock, loaded) = slow(3, Mode::Pipeline);
    let ticket = loaded.submit("m", items(2), &RunOptions::default()).unwrap();
    drop(loaded);
    assert_eq!(ticket.wait().outputs.unwrap().len(), 2);
    assert_eq!(mock.runs(), 2 * SHARDS as u64);
}

#[test]
fn an_observer_is_told_of_shards_items_and_the_end() {
    let (_mock, loaded) = slow(3, Mode::Pipeline);
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let observer = Observer::new(move |event| {
        let text = match event {
            Event::Shard(run) => format!("{} {}", run.shard, run.item),
            Event::Item { item, outputs } => format!("item {item} {}", outputs.len()),
            Event::Ended => "ended".to_owned(),
        };
        sender.lock().unwrap().send(text).unwrap();
    });
    let options = RunOptions { observer: Some(observer), ..RunOptions::default() };
    loaded.run("m", items(2), &options).unwrap().outputs.unwrap();
    let mut told: Vec<String> =
        (0..2 * SHARDS + 3).map(|_| events.recv_timeout(Duration::from_secs(5)).unwrap()).collect();
    assert_eq!(told.pop().as_deref(), Some("ended"));
    let expected = |i: usize| {
        (0..SHARDS).map(|s| format!("m{s} {i}")).chain([format!("item {i} 1")]).collect()
    };
    for i in 0..2 {
        let own: Vec<String> = told
            .iter()
            .filter(|t| t.ends_with(&format!(" {i}")) || **t == format!("item {i} 1"))
            .filter(|t| !t.starts_with("item") || t.starts_with(&format!("item {i}")))
            .cloned()
            .collect();
        let expected: Vec<String> = expected(i);
        assert_eq!(own, expected);
    }
}

#[test]
fn an_observer_may_stop_its_run() {
    let (_mock, loaded) = slow(3, Mode::Pipeline);
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let observer = Observer::new(move |event| {
        if matches!(event, Event::Item { .. }) {
            stop.cancel();
        }
    });
    let options = RunOptions { cancel, observer: Some(observer), ..RunOptions::default() };
    let outcome = loaded.run("m", items(8), &options).unwrap();
    assert!(matches!(outcome.outputs, Err(RuntimeError::Cancelled)));
}

/// Two runs one after the other follow on the modelled clock; two that overlap share the cores.
#[test]
fn the_modelled_clock_places_runs_that_overlap() {
    let (_folder, pack) = pack_of(vec![chain("m", SHARDS, 0, 0)]);
    let device = FaultyDevice::new(Arc::new(MockDevice::new(3)));
    let cores = Cores::new(&devices(&device), CoresOptions::new(3)).unwrap();
    let loaded = cores.load(&pack, Mode::Pipeline, |_| true).unwrap();
    let alone = loaded.run("m", items(1), &RunOptions::default()).unwrap().trace;
    let one = alone.modelled_total_us();
    let mut apart = Trace::default();
    for _ in 0..3 {
        apart.extend(loaded.run("m", items(1), &RunOptions::default()).unwrap().trace);
    }
    assert_eq!(apart.modelled_total_us(), 3.0 * one);
    // While the first shard of the first run takes its time, the others are submitted.
    device.inject(Place::shard("m0"), Fault::Slow(SHARD), 1);
    let tickets: Vec<_> =
        (0..3).map(|_| loaded.submit("m", items(1), &RunOptions::default()).unwrap()).collect();
    let mut together = Trace::default();
    tickets.into_iter().for_each(|ticket| together.extend(ticket.wait().trace));
    let total = together.modelled_total_us();
    let three = loaded.run("m", items(3), &RunOptions::default()).unwrap().trace;
    assert_eq!(total, three.modelled_total_us());
    assert!(total < 2.0 * one, "{total} beside {one}");
}
