//! The driver: cores, queues, resets and memory.

use rockshard_cost::Rk3588;
use rockshard_device_sim::{Driver, DriverError};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

const SHORT: Duration = Duration::from_micros(100);

/// A job that was started, and its cores.
type Started = (&'static str, Vec<u8>);

/// Jobs in threads of their own, each of which runs until it is let go.
struct Jobs {
    driver: Arc<Driver>,
    /// In the order of their starting.
    started: Arc<Mutex<Vec<Started>>>,
    threads: Vec<JoinHandle<Result<(), DriverError>>>,
    gates: Vec<Sender<()>>,
}

impl Jobs {
    fn new() -> Self {
        Jobs {
            driver: Arc::new(Driver::new(Rk3588::default())),
            started: Arc::default(),
            threads: Vec::new(),
            gates: Vec::new(),
        }
    }

    /// Submit a job and wait until it is in its queues.
    fn submit(&mut self, name: &'static str, mask: u32, tasks: u64) {
        let before = self.total();
        let (gate, opened): (_, Receiver<()>) = channel();
        let (driver, started) = (self.driver.clone(), self.started.clone());
        self.gates.push(gate);
        self.threads.push(spawn(move || {
            driver.submit(mask, tasks, SHORT, |cores| {
                started.lock().unwrap().push((name, cores.to_vec()));
                let _ = opened.recv();
            })
        }));
        self.until(|jobs| jobs.total() > before);
    }

    fn total(&self) -> usize {
        self.driver.queued().iter().sum()
    }

    fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            sleep(Duration::from_millis(1));
        }
    }

    fn until_started(&self, count: usize) {
        self.until(|jobs| jobs.started.lock().unwrap().len() >= count);
    }

    fn started(&self) -> Vec<Started> {
        self.started.lock().unwrap().clone()
    }

    fn release(&self, job: usize) {
        self.gates[job].send(()).unwrap();
    }

    fn results(self) -> Vec<Result<(), DriverError>> {
        self.gates.iter().for_each(|gate| {
            let _ = gate.send(());
        });
        self.threads.into_iter().map(|t| t.join().unwrap()).collect()
    }
}

#[test]
fn masks_are_the_drivers() {
    let driver = Driver::new(Rk3588::default());
    let table: [(u32, Option<&[u8]>); 12] = [
        (0, Some(&[0])),
        (1, Some(&[0])),
        (2, Some(&[1])),
        (4, Some(&[2])),
        (3, Some(&[0, 1])),
        (7, Some(&[0, 1, 2])),
        (0xffff, Some(&[0, 1, 2])),
        (5, None),
        (6, None),
        (8, None),
        (0x10000, None),
        (u32::MAX, None),
    ];
    for (mask, cores) in table {
        let found = driver.submit(mask, 1, SHORT, <[u8]>::to_vec);
        assert_eq!(found, cores.map(<[u8]>::to_vec).ok_or(DriverError::Mask(mask)), "{mask:#x}");
        assert_eq!(driver.takes(mask), cores.is_some(), "{mask:#x}");
    }
    let two = Driver::new(Rk3588 { cores: 2, ..Rk3588::default() });
    assert_eq!([1, 2, 3, 4, 7].map(|mask| two.takes(mask)), [true, true, true, false, false]);
}

#[test]
fn the_core_with_the_fewest_tasks_is_picked() {
    let mut jobs = Jobs::new();
    // Tasks on the cores after each: 9 0 0, 9 5 0, 9 5 5, 9 10 5 (a tie goes to the lower core), 9 10 6, 9 10 11, 10 10 11.
    for (name, tasks) in [("a", 9), ("b", 5), ("c", 5), ("d", 5), ("e", 1), ("f", 5), ("g", 1)] {
        jobs.submit(name, 0, tasks);
    }
    assert_eq!(jobs.driver.queued(), [2, 2, 3]);
    jobs.until_started(3);
    let driver = jobs.driver.clone();
    let started = jobs.started.clone();
    assert!(jobs.results().iter().all(Result::is_ok));
    assert_eq!(driver.queued(), [0, 0, 0]);
    let mut ran = started.lock().unwrap().clone();
    ran.sort();
    let core = |n: u8| vec![n];
    let wanted = [("a", 0), ("b", 1), ("c", 2), ("d", 1), ("e", 2), ("f", 2), ("g", 0)]
        .map(|(name, n)| (name, core(n)));
    assert_eq!(ran, wanted);
}

#[test]
fn queues_are_first_in_first_out_and_a_job_of_all_cores_holds_back_the_free_ones() {
    let mut jobs = Jobs::new();
    jobs.submit("one", 1, 1);
    jobs.until_started(1);
    jobs.submit("all", 7, 1);
    jobs.submit("two", 2, 1);
    jobs.submit("second", 1, 1);
    sleep(Duration::from_millis(20));
    // Cores 1 and 2 are free, but `all` is at the head of their queues.
    assert_eq!(jobs.started(), [("one", vec![0])]);
    jobs.release(0);
    jobs.until_started(2);
    sleep(Duration::from_millis(20));
    assert_eq!(jobs.started()[1..], [("all", vec![0, 1, 2])]);
    jobs.release(1);
    jobs.until_started(4);
    assert!(jobs.results().iter().all(Result::is_ok));
}

#[test]
fn a_job_that_does_not_end_fails_those_of_all_cores() {
    let mut jobs = Jobs::new();
    jobs.driver.hang(2);
    jobs.submit("running", 2, 1);
    jobs.submit("waiting", 2, 1);
    jobs.until_started(1);
    let hung = jobs.driver.submit(4, 1, SHORT, |_| ());
    assert_eq!(hung, Err(DriverError::Timeout(18.0)));
    assert_eq!(jobs.driver.queued(), [0, 0, 0]);
    let driver = jobs.driver.clone();
    assert_eq!(jobs.results(), [Err(DriverError::Reset), Err(DriverError::Reset)]);
    assert_eq!(driver.submit(2, 1, SHORT, |_| 5), Ok(5), "later jobs run");
    let long = Duration::from_secs(19);
    assert_eq!(
        driver.submit(1, 1, long, |_| ()),
        Err(DriverError::Timeout(18.0)),
        "modelled to take too long"
    );
}

#[test]
fn a_job_that_panics_leaves_its_core() {
    let driver = Arc::new(Driver::new(Rk3588::default()));
    let other = driver.clone();
    let panicked = spawn(move || other.submit(1, 1, SHORT, |_| panic!("on purpose"))).join();
    assert!(panicked.is_err());
    assert_eq!(driver.submit(7, 1, SHORT, |cores| cores.len()), Ok(3));
}

#[test]
fn memory_is_counted_until_it_is_given_back() {
    let driver = Arc::new(Driver::new(Rk3588 { address_space: 100, ..Rk3588::default() }));
    let first = driver.allocate(60).unwrap();
    assert_eq!(
        driver.allocate(41).err(),
        Some(DriverError::Space { asked: 41, used: 60, space: 100 })
    );
    assert_eq!(
        driver.allocate(u64::MAX).err(),
        Some(DriverError::Space { asked: u64::MAX, used: 60, space: 100 })
    );
    let rest = driver.allocate(40).unwrap();
    assert_eq!(driver.used(), 100);
    drop(first);
    assert!(driver.allocate(60).is_ok());
    drop(rest);
    assert_eq!(driver.used(), 0);
}
