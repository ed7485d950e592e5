//! `run`: any pack on tensors from files.

use crate::args::RunArgs;
use crate::devices;
use crate::files::Files;
use crate::inputs::read_inputs;
use crate::interrupt;
use crate::output::{Output, times};
use anyhow::{Context, Result, bail};
use rockshard::{DeviceName, Outcome, Pack, TensorMap, Variant};
use rockshard_tensor::write_npy;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// `run`.
pub fn run(args: &RunArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let mut names: Vec<&str> = pack.manifest().models.iter().map(|m| m.name.as_str()).collect();
    names.dedup();
    let model = match (&args.model, names.as_slice()) {
        (Some(model), _) => model.as_str(),
        (None, [only]) => only,
        (None, several) => {
            bail!("the pack has models {}; choose one with --model", several.join(", "))
        }
    };
    let inputs: TensorMap = read_inputs(&args.inputs)?.into_iter().collect();
    let mut devices = rockshard::open_devices(args.device.device)?;
    if args.rewritten {
        if args.device.device != DeviceName::Cpu {
            bail!(
                "--rewritten is for --device cpu; other devices always compute the rewritten shards"
            );
        }
        devices.variant = Variant::Device;
    }
    if !names.contains(&model) {
        bail!("the pack has no model {model:?}; it has {}", names.join(", "));
    }
    let cores = devices::take(&devices, &args.device)?;
    let planned = || rockshard::pick_mode(&pack, cores.options(), 1);
    let mode = args.device.mode.chosen().unwrap_or_else(planned);
    let loaded = cores.load(&pack, mode, |m| m.name == model)?;
    let start = Instant::now();
    let Outcome { outputs, mut trace } =
        loaded.run(model, vec![inputs], &interrupt::run_options())?;
    let outputs = outputs?.pop().unwrap_or_default();
    trace.incidents.splice(..0, loaded.incidents().to_vec());
    let host = start.elapsed().as_secs_f64() * 1e6;
    interrupt::end_here_if_asked("; nothing was written");
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut files = Files::default();
    let mut paths = Vec::new();
    let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
    for (file, tensor) in file_names(&names).into_iter().zip(outputs.values()) {
        let path = args.out.join(format!("{file}.npy"));
        let mut bytes = Vec::new();
        write_npy(tensor, &mut bytes)?;
        files.write("output", &path, bytes)?;
        paths.push(path);
    }
    if let Some(path) = &args.trace {
        let text = serde_json::to_string_pretty(
            &json!({ "runs": trace.shard_runs, "modelled": trace.modelled(), "incidents": trace.incidents }),
        )?;
        files.write("trace", path, text)?;
    }
    let modelled = trace.is_modelled().then(|| trace.modelled_total_us());
    let value = json!({
        "model": model, "outputs": paths, "written_files": files, "modelled_device_us": modelled, "measured_host_us": host,
        "modelled_resident_peak_bytes": cores.resident_peak(), "incidents": trace.incidents,
    });
    out.result(&value, || {
        let mut lines: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        lines.push(times(modelled, host));
        lines.extend(files.lines().skip(paths.len()));
        lines.join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// A file's name for each output: its own, plainly spelled; where two are spelled alike, with a number behind.
fn file_names(outputs: &[&str]) -> Vec<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let mut names: Vec<String> = Vec::new();
    for output in outputs {
        let name: String = output.chars().map(plain).collect();
        let mut free = name.clone();
        // Names that need no other spelling keep theirs.
        let taken = |free: &String, names: &[String]| {
            names.contains(free) || (*free != **output && outputs.contains(&free.as_str()))
        };
        for number in 2.. {
            if !taken(&free, &names) {
                break;
            }
            free = format!("{name}-{number}");
        }
        names.push(free);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::file_names;

    #[test]
    fn outputs_that_are_spelled_alike_have_files_of_their_own() {
        assert_eq!(file_names(&["a/b", "a_b", "a:b", "c"]), ["a_b-2", "a_b", "a_b-3", "c"]);
    }
}
