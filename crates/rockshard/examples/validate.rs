//! Compare every layer of a pack with the float32 reference: `validate [PACK]`. Without a pack, the bundled model is converted.
#![allow(clippy::print_stdout)]

use rockshard::{ConvertRequest, DeviceName, Pack, ReportExtras, RunOptions, write_report};
use std::error::Error;
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = Path::new("out/example-validate");
    std::fs::create_dir_all(out)?;
    let pack = std::env::args().nth(1).map_or_else(|| out.join("pack"), PathBuf::from);
    if !pack.exists() {
        let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shards/tiny-lcm");
        rockshard::convert(ConvertRequest::new(bundled, &pack), &mut |_| Continue(()))?;
    }

    let pack = Pack::open(&pack)?;
    let devices = rockshard::open_devices(DeviceName::Sim)?;
    let (prompt, options) = ("a large red circle", RunOptions::default());
    let inputs = rockshard::recorded_inputs(&pack, prompt, &options, &mut |_| Continue(()))?;
    let report = rockshard::validate(&pack, &devices, &inputs, 0.999, &mut |_| Continue(()))?;

    write_report(&report, &ReportExtras::default(), &out.join("report.html"))?;
    println!("{}", report.summary().join("\n"));
    if report.passed() { Ok(()) } else { Err("a layer is below the threshold".into()) }
}
