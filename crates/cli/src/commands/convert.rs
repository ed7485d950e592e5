//! `convert`: arguments to a request, progress, and a few lines about the pack.

use crate::args::{ConvertArgs, GoldenType};
use crate::commands::validate::BELOW_THRESHOLD;
use crate::files::{Files, Written};
use crate::inputs::read_inputs;
use crate::interrupt;
use crate::output::{Output, size, time};
use crate::progress::Progress;
use crate::text::fold;
use anyhow::{Context, Result};
use rockshard::{
    Calibrating, ConvertProgress, ConvertRequest, CoreId, DType, Fixed, Footprint, ImportCheck,
    LanguageConversion, Manifest, Model, Pack, Recording, Rk3588, Role, Sample, Source, Toolkit,
    WeightBits, drawing_problem,
};
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

/// `convert`.
pub fn run(args: &ConvertArgs, out: &Output) -> Result<ExitCode> {
    let chip = Rk3588::from_environment()?;
    let request = ConvertRequest {
        chip: chip.clone(),
        resolutions: args.resolution.clone(),
        batch: args.batch.into(),
        fixed: Fixed {
            dims: args.dim.iter().cloned().collect(),
            shapes: args.input_shape.iter().cloned().collect(),
            outputs: args.output.clone(),
        },
        sandwich: args.sandwich,
        tile: args.tile,
        shards: args.shards,
        placement: args.placement,
        optimise: args.optimise,
        wide_weights: args.wide_weights,
        precompute_kv: args.precompute_kv,
        language_weights: WeightBits::of(args.lm_weights).unwrap_or_default(),
        calibration: calibration(args)?,
        loras: args.lora.clone(),
        golden: golden(args),
        check: args.check,
        toolkit: args.compile.then(|| Toolkit {
            python: args.rknn_python.clone(),
            jobs: args.jobs.into(),
            timeout: Duration::from_secs(args.compile_timeout),
            verify: args.verify,
        }),
        resume: args.resume,
        ..ConvertRequest::new(&args.model, &args.out)
    };
    let manifest = convert(request, "; the same command with --resume goes on", out)?;
    for model in &manifest.models {
        for line in &model.declined {
            if let Some(warning) = line.strip_prefix("sandwich: ") {
                tracing::warn!("{}: {warning}", model.name);
            }
        }
        for line in model.notes.iter().filter(|line| is_warning(line)) {
            tracing::warn!("{}: {line}", model.name);
        }
    }
    warn_of_no_pictures(args, &manifest)?;
    let mut files = Files::default();
    files.add("pack", &args.out);
    let result = Written { value: &manifest, written_files: &files };
    out.result(&result, || files.below(fold(&summary(&manifest, &chip))));
    let wrong = |m: &Model| matches!(m.import, Some(ImportCheck::Fail { .. }));
    Ok(if manifest.models.iter().any(wrong) {
        ExitCode::from(BELOW_THRESHOLD)
    } else {
        ExitCode::SUCCESS
    })
}

/// Say of networks of Stable Diffusion that `generate` will not draw with, and why. A batch is for streams.
fn warn_of_no_pictures(args: &ConvertArgs, manifest: &Manifest) -> Result<()> {
    let draws = |m: &Model| matches!(m.role, Role::TextEncoder | Role::Unet | Role::VaeDecoder);
    if args.model.is_dir()
        && args.batch == 1
        && manifest.models.iter().any(draws)
        && let Some(problem) = drawing_problem(&Pack::open(&args.out)?)
    {
        tracing::warn!("`generate` will refuse this pack: {problem}");
    }
    Ok(())
}

/// Whether a note is of something that is wrong with the model's file, or may be.
pub fn is_warning(note: &str) -> bool {
    ["repaired: ", "unusual: "].iter().any(|kind| note.starts_with(kind))
}

/// What to record: what was asked for, or what verification needs.
fn golden(args: &ConvertArgs) -> Option<Recording> {
    let dtype = args.golden.or(args.verify.then_some(GoldenType::F32)).map(|t| match t {
        GoldenType::F32 => DType::F32,
        GoldenType::F16 => DType::F16,
    });
    dtype.map(|dtype| Recording { dtype, steps: args.golden_steps.into() })
}

/// Convert, showing progress; `hint` is for whoever interrupts it.
pub fn convert(request: ConvertRequest, hint: &str, out: &Output) -> Result<Manifest> {
    for name in Source::open(&request.source, &request.resolutions, request.batch)?.unused {
        tracing::warn!("{name}/ is there and not converted: no pack has a use for it");
    }
    let mut shown = Progress::new("convert", out.quiet);
    let manifest = rockshard::convert(request, &mut |progress| {
        match progress {
            ConvertProgress::Import(part) => shown.at(&format!("{part}: reading")),
            ConvertProgress::Calibrate(part, on, done, total) => {
                let on = match on {
                    Calibrating::SmallPicture => "on a small picture",
                    Calibrating::Reference => "on the reference",
                    Calibrating::Simulator => "on the simulator",
                };
                shown.at_of(&format!("{part}: calibrating {on}"), done, total);
            }
            ConvertProgress::Shard(part, done, total) => {
                shown.at_of(&format!("{part}: writing shards"), done, total);
            }
            ConvertProgress::Language => shown.at("language model: reading and checking"),
            ConvertProgress::Golden(part, done, total) => {
                shown.at_of(&format!("{part}: recording golden tensors"), done, total);
            }
            ConvertProgress::Check(part, done, total) => {
                shown.at_of(&format!("{part}: comparing with the original"), done, total);
            }
            ConvertProgress::Compile(part, done, total) => {
                shown.at_of(&format!("{part}: compiling"), done, total);
            }
        }
        interrupt::go_on()
    });
    if manifest.is_err() {
        interrupt::end_here_if_asked(hint);
    }
    Ok(manifest?)
}

/// Samples from `[PART.]INPUT=FILE.npy` arguments, by part.
fn calibration(args: &ConvertArgs) -> Result<HashMap<String, Vec<Sample>>> {
    let mut samples: HashMap<String, Vec<Sample>> = HashMap::new();
    if args.calibrate.is_empty() {
        return Ok(samples);
    }
    let source = Source::open(&args.model, &args.resolution, args.batch.into())?;
    for (key, tensor) in read_inputs(&args.calibrate)? {
        let named = source.parts.iter().find_map(|p| {
            Some((p.name.clone(), key.strip_prefix(&format!("{}.", p.name))?.to_owned()))
        });
        let single =
            || (source.parts.len() == 1).then(|| (source.parts[0].name.clone(), key.clone()));
        let (part, input) = named.or_else(single).with_context(|| {
            let parts = source.parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
            format!("calibration input {key:?} names no part of the model; use PART.INPUT with PART one of {parts}")
        })?;
        let list = samples.entry(part).or_default();
        match list.iter_mut().find(|s| !s.contains_key(&input)) {
            Some(sample) => drop(sample.insert(input, tensor)),
            None => list.push([(input, tensor)].into()),
        }
    }
    Ok(samples)
}

/// A few lines about a pack.
fn summary(manifest: &Manifest, chip: &Rk3588) -> String {
    let mut lines = Vec::new();
    for model in &manifest.models {
        let npu: Vec<_> = model.shards.iter().filter(|s| s.core != CoreId::Host).collect();
        let resolution = model.resolution.map(|[w, h]| format!(" at {w}x{h}")).unwrap_or_default();
        let micros: f64 = npu.iter().map(|s| s.modelled.micros).sum();
        let weights: u64 = model.shards.iter().map(|s| s.weight_bytes).sum();
        let scaled = npu.iter().filter(|s| !s.sandwich.is_empty()).count();
        let mut line = format!("{}{resolution}: {} NPU shards", model.name, npu.len());
        let host = model.shards.len() - npu.len();
        if host > 0 {
            line += &format!(" and {host} on the host");
        }
        line +=
            &format!(", weights {}, modelled {} a run on one core", size(weights), time(micros));
        if scaled > 0 {
            line += &format!(", {scaled} sandwiched");
        }
        line += &match &model.import {
            None => String::new(),
            Some(ImportCheck::Pass { distance }) => {
                format!(", import checked: off by {distance:.0e}")
            }
            Some(ImportCheck::Fail { reason }) => format!(", IMPORT DIFFERS: {reason}"),
            Some(ImportCheck::Unchecked { reason }) => format!(", import unchecked: {reason}"),
        };
        let compiled: Vec<_> = npu.iter().filter_map(|s| s.compiled.as_ref()).collect();
        if !compiled.is_empty() {
            let on_cpu: usize = compiled.iter().map(|c| c.on_cpu().count()).sum();
            line += &format!(", {} compiled with {on_cpu} layers on the CPU", compiled.len());
        }
        let worst = compiled.iter().filter_map(|c| Some(c.verified?.cosine)).min_by(f64::total_cmp);
        if let Some(worst) = worst {
            line += &format!(", lowest cosine of Rockchip's simulator {worst:.6}");
        }
        lines.push(line);
        let notes = model.notes.iter().filter(|note| !is_warning(note));
        lines.extend(notes.map(|note| format!("{}: {note}", model.name)));
        lines.extend(host_work(model));
    }
    lines.extend(manifest.conversion.language.as_ref().map(|language| match language {
        LanguageConversion::Decoder { bits, difference } => format!(
            "language model: {bits}-bit weights; in float32 its logits are within {difference:.0e} of the export's"
        ),
        LanguageConversion::Exported { reason } => {
            format!("language model: run as exported, since {reason}")
        }
    }));
    let space = chip.address_space;
    for resolution in manifest.resolutions() {
        let at = resolution.map(|[w, h]| format!(" at {w}x{h}")).unwrap_or_default();
        let bytes = Footprint::of_all(manifest, resolution, usize::from(chip.cores)).bytes();
        let over = if bytes > space { ": too much, they must take turns" } else { "" };
        lines.push(format!(
            "all models resident{at}: modelled {} of the NPU's {}{over}",
            size(bytes),
            size(space)
        ));
    }
    lines.join("\n")
}

/// What the host runs between the NPU's shards, and what the turns cost.
fn host_work(model: &Model) -> Option<String> {
    let first = model.shards.iter().position(|s| s.core != CoreId::Host)?;
    let later: Vec<_> = model.shards[first..].iter().filter(|s| s.core == CoreId::Host).collect();
    if later.is_empty() {
        return None;
    }
    let operators: std::collections::BTreeSet<&str> =
        later.iter().flat_map(|s| s.operators.keys()).map(String::as_str).collect();
    let names: Vec<&str> = operators.into_iter().collect();
    let crossings =
        later.iter().flat_map(|s| &s.inputs).chain(later.iter().flat_map(|s| &s.outputs));
    let bytes: usize = crossings.map(|t| t.shape.iter().product::<usize>() * 2).sum();
    Some(format!(
        "{}: {} turns of the host behind NPU work ({}), for which {} cross between them in each run",
        model.name,
        later.len(),
        names.join(", "),
        size(bytes as u64)
    ))
}
