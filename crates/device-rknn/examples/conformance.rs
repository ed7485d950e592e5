//! The suite that every device passes, on this machine's NPU: `conformance FOLDER [LIBRARY]`.
//!
//! With a board's librknnrt it first writes `shard.onnx` into the folder, unless `shard.rknn` is there: compile that with rknn-toolkit2 and
//! run it again.
#![allow(clippy::print_stdout)]

use rockshard_device::{Device, Takes};
use rockshard_device_kit::conformance::{Facts, Files, Subject, check};
use rockshard_device_rknn::RknnDevice;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().ok_or("usage: conformance FOLDER [LIBRARY]")?;
    let device = RknnDevice::load(arguments.next().as_deref())?;
    let files = files(&folder, device.takes())?;
    let facts = Facts {
        computes: true,
        host: false,
        integers: false,
        by_name: false,
        models_time: device.is_simulated(),
    };
    let outcome = check(&Subject { device: &device, files: &files, facts });
    outcome.failed.iter().for_each(|(case, seen)| println!("FAILED: {case}\n  {seen}"));
    println!(
        "{} passed, {} failed, {} do not apply",
        outcome.passed.len(),
        outcome.failed.len(),
        outcome.ruled_out.len()
    );
    Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn files(folder: &Path, takes: Takes) -> Result<Files, Box<dyn Error>> {
    if takes == Takes::Graph {
        return Ok(Files::write(folder)?);
    }
    if !folder.join("shard.rknn").is_file() {
        Files::write(folder)?;
        return Err(format!(
            "{0}/shard.onnx is written: compile it to {0}/shard.rknn for rk3588, in float16",
            folder.display()
        )
        .into());
    }
    Ok(Files::compiled(folder)?)
}
