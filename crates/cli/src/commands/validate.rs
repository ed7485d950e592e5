//! `validate`: arguments to inputs, progress, and the report's summary.

use crate::args::ValidateArgs;
use crate::commands::convert::is_warning;
use crate::commands::{caption, generate};
use crate::files::{Files, Written};
use crate::inputs::read_inputs;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;
use crate::remedy::layers;
use crate::text::fold;
use anyhow::Result;
use rockshard::{
    Devices, ModelInputs, NextStep, Pack, Report, ReportExtras, Rgb, ValidateProgress, write_report,
};
use serde::Serialize;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Exit code when a layer falls below the threshold.
pub const BELOW_THRESHOLD: u8 = 3;
/// Steps of the drawing that gives the inputs.
const STEPS: usize = 4;

/// `validate`.
pub fn run(args: &ValidateArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let devices = rockshard::open_devices(args.device)?;
    if args.golden {
        let report = rockshard::validate_golden(&pack, &devices, args.threshold, &mut shown(out));
        return finish(args, &pack, judge_language(args, &pack, None, ended(report)?)?, out);
    }
    let picture = match &args.image {
        Some(path) => caption::image(path)?,
        None => rockshard::test_picture(),
    };
    let inputs = inputs(args, &pack, &picture, out)?;
    let mut report = judge(&pack, &devices, &inputs, args.threshold, out)?;
    if let Some(original) = &args.original {
        let verdicts = rockshard::check_import(&pack, original, &inputs)?;
        report.judge_imports(verdicts);
        tell_repairs(&pack);
    }
    finish(args, &pack, judge_language(args, &pack, Some(&picture), report)?, out)
}

/// Enter in a report what is found of the language model, where there is one.
fn judge_language(
    args: &ValidateArgs,
    pack: &Pack,
    picture: Option<&Rgb>,
    mut report: Report,
) -> Result<Report> {
    if pack.manifest().conversion.language.is_none() {
        return Ok(report);
    }
    let cores = rockshard::take_cores(args.device)?;
    let found = rockshard::validate_language(pack, &cores, picture, args.threshold)?;
    if let Some(language) = found {
        report.judge_language(language);
    }
    Ok(report)
}

/// The original runs as it was read, so what is wrong in it is no difference.
fn tell_repairs(pack: &Pack) {
    for model in &pack.manifest().models {
        for line in model.notes.iter().filter(|line| is_warning(line)) {
            tracing::warn!("{}: the original was compared as it was read; {line}", model.name);
        }
    }
}

/// Compare with the reference, showing progress.
pub fn judge(
    pack: &Pack,
    devices: &Devices,
    inputs: &ModelInputs,
    threshold: f64,
    out: &Output,
) -> Result<Report> {
    ended(rockshard::validate(pack, devices, inputs, threshold, &mut shown(out)))
}

/// A validation that Ctrl-C stopped ends the program.
fn ended<E: Into<anyhow::Error>>(report: Result<Report, E>) -> Result<Report> {
    if report.is_err() {
        interrupt::end_here_if_asked("; no report was written");
    }
    report.map_err(Into::into)
}

fn finish(args: &ValidateArgs, pack: &Pack, report: Report, out: &Output) -> Result<ExitCode> {
    let next_steps = layers::next_steps(pack, &args.pack.display().to_string(), &report);
    let mut files = Files::default();
    if let Some(path) = &args.report {
        let extras = ReportExtras { next_steps: next_steps.clone(), ..ReportExtras::default() };
        write_report(&report, &extras, path)?;
        files.add("report", path);
        files.add("report as JSON", &path.with_extension("json"));
    }
    let written = Written { value: &report, written_files: &files };
    let found = Found { report: written, next_steps: &next_steps };
    out.result(&found, || {
        let mut lines: Vec<String> = report.summary().iter().map(|line| fold(line)).collect();
        lines.extend(layers::lines(&next_steps));
        files.below(lines.join("\n"))
    });
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(BELOW_THRESHOLD) })
}

/// The report, the files, and what to do.
#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    report: Written<'a, Report>,
    next_steps: &'a [NextStep],
}

/// What a drawing gives the networks, or a picture the vision encoder, and over it what was typed.
fn inputs(args: &ValidateArgs, pack: &Pack, picture: &Rgb, out: &Output) -> Result<ModelInputs> {
    let (options, mut display) = (interrupt::run_options(), generate::shown(out, STEPS));
    let mut inputs = rockshard::recorded_inputs(pack, &args.prompt, &options, &mut display)?;
    inputs.extend(rockshard::picture_inputs(pack, picture)?);
    let models = &pack.manifest().models;
    for (key, tensor) in read_inputs(&args.inputs)? {
        let named = models.iter().find_map(|m| {
            Some((m.name.clone(), key.strip_prefix(&format!("{}.", m.name))?.to_owned()))
        });
        let first = || models.first().map(|m| m.name.clone()).unwrap_or_default();
        let (model, name) = named.unwrap_or_else(|| (first(), key.clone()));
        let specs = models.iter().filter(|m| m.name == model).flat_map(|m| &m.inputs);
        let known: Vec<&str> = specs.map(|spec| spec.name.as_str()).collect();
        anyhow::ensure!(
            known.contains(&name.as_str()),
            "--input {key}: {model} has no input {name:?}, only {}",
            known.join(", ")
        );
        inputs.entry(model).or_default().insert(name, tensor);
    }
    Ok(inputs)
}

/// Shows which layer is under way.
fn shown(out: &Output) -> impl FnMut(ValidateProgress<'_>) -> ControlFlow<()> {
    let mut shown = Progress::new("validate", out.quiet);
    move |progress| {
        if let ValidateProgress::Started { model, layer, index, total } = progress {
            shown.at_one_of(model, layer, index, total);
        }
        interrupt::go_on()
    }
}
