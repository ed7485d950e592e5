//! Runs one model of a pack on the simulator, once for each line of standard input, and prints the seconds that took: the half of
//! `benches/step.py` that is ours. At the end it prints its peak resident memory in bytes.
//!
//! Usage: `step PACK MODEL`
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result};
use rockshard_benches::peak_resident_bytes;
use rockshard_device::Device;
use rockshard_device_cpu::CpuDevice;
use rockshard_device_sim::SimDevice;
use rockshard_pack::{Devices, Mode, Pack, Variant};
use rockshard_runtime::{Cores, CoresOptions, RunOptions};
use rockshard_validation::random_inputs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CORES: u8 = 3;
const SEED: u64 = 1;
/// No shard counts as hanging: it is computed here.
const LONG: Duration = Duration::from_secs(3600);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (pack, model) = args.next().zip(args.next()).context("usage: step PACK MODEL")?;
    let pack = Pack::open(&PathBuf::from(pack))?;
    let spec = pack
        .manifest()
        .model(&model, None)
        .with_context(|| format!("the pack has no model {model}"))?;
    let inputs = random_inputs(&spec.inputs, SEED);
    let host: Arc<dyn Device> = Arc::new(CpuDevice::new());
    let devices = Devices { npu: Arc::new(SimDevice::default()), host, variant: Variant::Device };
    let options = CoresOptions { time_limit: LONG, ..CoresOptions::new(CORES) };
    let mode = Mode::of(pack.manifest().conversion.placement);
    let loaded = Cores::new(&devices, options)?.load(&pack, mode, |m| m.name == model)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        let start = Instant::now();
        loaded.run(&model, vec![inputs.clone()], &RunOptions::default())?.outputs?;
        println!("{}", start.elapsed().as_secs_f64());
    }
    println!("{}", peak_resident_bytes()?);
    Ok(())
}
