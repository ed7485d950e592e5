//! Two packs on one set of cores, run at once for two clients, one of which is urgent.
#![allow(clippy::print_stdout)]

use rockshard::{Client, ConvertRequest, DeviceName, Mode, Pack, Priority, RunOptions};
use rockshard::{Placement, random_inputs};
use std::error::Error;
use std::ops::ControlFlow::Continue;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shards/tiny-lcm");
    let out = Path::new("out/example-two-packs");
    std::fs::create_dir_all(out)?;
    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let mut loaded = Vec::new();
    for placement in [Placement::RoundRobin, Placement::Split] {
        let path = out.join(placement.word());
        if !path.exists() {
            let request = ConvertRequest { placement, ..ConvertRequest::new(bundled, &path) };
            rockshard::convert(request, &mut |_| Continue(()))?;
        }
        loaded.push(cores.load(&Pack::open(&path)?, Mode::Pipeline, |m| m.name == "unet")?);
    }

    let options = |priority| RunOptions { client: Client::new(), priority, ..Default::default() };
    let unet = loaded[0].models().next().ok_or("the pack has no U-Net")?;
    let items = |count| (0..count).map(|seed| random_inputs(&unet.inputs, seed)).collect();
    let many = loaded[0].submit("unet", items(16), &options(Priority::Normal))?;
    let urgent = loaded[1].submit("unet", items(1), &options(Priority::High))?.wait();
    println!("one item: {} shards, while 16 were under way", urgent.trace.shard_runs.len());
    println!("16 items: {} outputs", many.wait().outputs?.len());
    println!("most modelled memory at a time: {} bytes", cores.resident_peak());
    Ok(())
}
