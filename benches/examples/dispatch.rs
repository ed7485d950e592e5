//! What the runtime adds to a shard: chains of shards of the mock device with small tensors, run by [`LoadedPack::run`](rockshard_runtime::LoadedPack::run) and by calling the
//! same sessions in a loop. Both take turns; printed are medians and their difference a shard, and the difference of the fastest
//! runs, which other programs on the machine disturb least. Shards that take no time show the cost of the bookkeeping; those that
//! compute for a while also that of waking the next core's thread, which sleeps by then.
//!
//! Usage: `dispatch [ROUNDS]`
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use rockshard_device::{Completion, Device, DeviceError, Session, ShardFile, Value};
use rockshard_device_kit::MockDevice;
use rockshard_device_kit::packs::{chain, pack_of};
use rockshard_manifest::CoreId;
use rockshard_pack::{Devices, Mode, Variant};
use rockshard_runtime::{Cores, CoresOptions, RunOptions};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shards of each chain, and the microseconds that each computes.
const CHAINS: [(usize, u64); 4] = [(10, 0), (100, 0), (1000, 0), (100, 300)];
const ROUNDS: usize = 101;
const SHAPE: [usize; 2] = [1, 8];

/// The mock, computing for some time.
#[derive(Clone)]
struct Busy(MockDevice, Duration);

struct BusySession(Box<dyn Session>, Duration);

impl Device for Busy {
    fn name(&self) -> &'static str {
        "busy"
    }

    fn cores(&self) -> u8 {
        self.0.cores()
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        Ok(Box::new(BusySession(self.0.open(shard, core)?, self.1)))
    }
}

impl Session for BusySession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        let start = Instant::now();
        let completion = self.0.run(inputs);
        while start.elapsed() < self.1 {
            std::hint::spin_loop();
        }
        completion
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        let start = Instant::now();
        let completion = self.0.run_between(inputs, keep);
        while start.elapsed() < self.1 {
            std::hint::spin_loop();
        }
        completion
    }
}

/// Median and least.
fn middle_and_least(mut seconds: Vec<f64>) -> [f64; 2] {
    seconds.sort_by(f64::total_cmp);
    [seconds[seconds.len() / 2], seconds[0]]
}

fn main() -> Result<()> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(ROUNDS), |n| n.parse())
        .context("usage: dispatch [ROUNDS]")?;
    println!(
        "microseconds a shard: medians of runtime, direct call, what the runtime adds; the same of the fastest runs"
    );
    for (length, work) in CHAINS {
        let (_folder, pack) = pack_of(vec![chain("m", length, 0, 0)]);
        let device = Arc::new(Busy(MockDevice::new(3), Duration::from_micros(work)));
        let devices =
            Devices { npu: device.clone(), host: device.clone(), variant: Variant::Device };
        let shards = &pack.manifest().models[0].shards;
        let files = shards
            .iter()
            .map(|s| pack.shard_file(s, Variant::Device))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sessions =
            files.iter().map(|f| device.open(f, CoreId::Npu(0))).collect::<Result<Vec<_>, _>>()?;
        let input = Tensor::from_f32(SHAPE, vec![0.5; 8]);
        for cores in [1, 3] {
            let cores_of = Cores::new(&devices, CoresOptions::new(cores))?;
            let loaded = cores_of.load(&pack, Mode::Pipeline, |_| true)?;
            let (mut ours, mut direct) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let start = Instant::now();
                let items = vec![[("v0".to_owned(), input.clone())].into()];
                let mut outputs = loaded.run("m", items, &RunOptions::default())?.outputs?;
                ours.push(start.elapsed().as_secs_f64());
                let start = Instant::now();
                let mut value = vec![input.clone()];
                for session in &mut sessions {
                    value = session.run(&value)?.outputs;
                }
                direct.push(start.elapsed().as_secs_f64());
                let output = outputs
                    .pop()
                    .and_then(|mut o| o.remove(&format!("v{length}")))
                    .context("no output")?;
                ensure!(output == value[0], "the runner's output is not that of the direct calls");
            }
            let [ours, direct] =
                [ours, direct].map(|s| middle_and_least(s).map(|s| s * 1e6 / length as f64));
            let added = [0, 1].map(|i| ours[i] - direct[i]);
            println!(
                "{length:>5} shards of {work:>3} us on {cores} core(s): {:7.2} {:7.2} {:+7.2}   {:+7.2}",
                ours[0], direct[0], added[0], added[1]
            );
        }
    }
    Ok(())
}
