mod golden;

use crate::args::ValidateArgs;
use crate::models::{Choice, PackModels, TextToImage, is_text_to_image, read_inputs};
use crate::output::Output;
use crate::{commands::generate, devices, interrupt};
use anyhow::{Context, Result};
use rockshard_device::Device;
use rockshard_devices::DeviceName;
use rockshard_diffusion::Request;
use rockshard_manifest::Model;
use rockshard_pack::{Devices, Mode, Pack, Variant};
use rockshard_runtime::TensorMap;
use rockshard_validation::{
    LayerFiles, ModelReport, Options, Progress, Report, ReportExtras, random_inputs, render_html,
    validate_model,
};
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

/// Exit code when a layer falls below the threshold.
pub const BELOW_THRESHOLD: u8 = 3;
const SEED: u64 = 1;

/// `validate`.
pub fn run(args: &ValidateArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let devices = rockshard_devices::open(args.device)?;
    if args.golden {
        let report = golden::validate_golden(&pack, &devices, args.threshold, out)?;
        return finish(args, &report, out);
    }
    let mut inputs =
        if is_text_to_image(&pack) { record(&pack, &args.prompt, out)? } else { HashMap::new() };
    for (key, tensor) in read_inputs(&args.inputs)? {
        let models = &pack.manifest().models;
        let named = models.iter().find_map(|m| {
            Some((m.name.clone(), key.strip_prefix(&format!("{}.", m.name))?.to_owned()))
        });
        let (model, name) = named
            .unwrap_or_else(|| (models.first().map(|m| m.name.clone()).unwrap_or_default(), key));
        inputs.entry(model).or_default().insert(name, tensor);
    }
    let report = validate_pack(&pack, &devices, &inputs, args.threshold, out)?;
    finish(args, &report, out)
}

fn finish(args: &ValidateArgs, report: &Report, out: &Output) -> Result<ExitCode> {
    if let Some(path) = &args.report {
        write_report(report, &ReportExtras::default(), path)?;
    }
    out.result(report, || report.summary().join("\n"));
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(BELOW_THRESHOLD) })
}

/// The inputs that each network is given while the reference draws a prompt; the VAE encoder gets the picture.
fn record(pack: &Pack, prompt: &str, out: &Output) -> Result<HashMap<String, TensorMap>> {
    let text = TextToImage::open(pack)?;
    let devices = rockshard_devices::open(DeviceName::Cpu)?;
    let choice = Choice { size: Some(text.size), ..Choice::default() };
    let mode = Mode::of(pack.manifest().conversion.placement);
    let models =
        PackModels::open(pack, &devices, &choice, devices::own_options(DeviceName::Cpu, 1)?, mode)?;
    let request = Request {
        prompt: prompt.to_owned(),
        seed: SEED,
        width: text.size[0],
        height: text.size[1],
        ..Request::default()
    };
    let generated = generate::generate(&models, &text, &request, out)?;
    let mut inputs: HashMap<String, TensorMap> = models.seen().into_iter().collect();
    let encoder =
        pack.manifest().model("vae_encoder", Some(text.size)).and_then(|m| m.inputs.first());
    if let (Some(spec), Some(picture)) = (encoder, generated.pictures.first()) {
        let tensor = rockshard_tensor::Tensor::from_f32(spec.shape.clone(), picture.planes());
        inputs.insert("vae_encoder".to_owned(), [(spec.name.clone(), tensor)].into());
    }
    Ok(inputs)
}

/// Validate every model of a pack on the inputs given for it, or on seeded noise.
pub fn validate_pack(
    pack: &Pack,
    devices: &Devices,
    inputs: &HashMap<String, TensorMap>,
    threshold: f64,
    out: &Output,
) -> Result<Report> {
    let mut progress = out.progress("validate");
    let mut reports = Vec::new();
    for model in &pack.manifest().models {
        let mut given = random_inputs(&model.inputs, SEED);
        if let Some(known) = inputs.get(&model.name) {
            let fits = |name: &str, t: &rockshard_tensor::Tensor| {
                model.inputs.iter().any(|s| s.name == name && s.shape == t.shape())
            };
            given.extend(
                known.iter().filter(|(n, t)| fits(n, t)).map(|(n, t)| (n.clone(), t.clone())),
            );
        }
        let reference = rockshard_devices::open(DeviceName::Cpu)?.npu;
        reports.push(validate_one(
            pack,
            model,
            devices,
            &*reference,
            &given,
            threshold,
            &mut progress,
        )?);
    }
    Ok(Report::new(threshold, devices.npu.name(), "rten (float32, CPU)", reports))
}

fn validate_one(
    pack: &Pack,
    model: &Model,
    devices: &Devices,
    reference: &dyn Device,
    inputs: &TensorMap,
    threshold: f64,
    progress: &mut crate::output::Progress,
) -> Result<ModelReport> {
    let layers = model.shards.iter().map(|shard| {
        Ok(LayerFiles {
            model: model.name.clone(),
            shard: shard.clone(),
            device: pack.shard_file(shard, devices.variant)?,
            reference: pack.shard_file(shard, Variant::Reference)?,
        })
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let options =
        Options { threshold, outputs: model.outputs.iter().map(|o| o.name.clone()).collect() };
    let report = validate_model(
        &layers,
        inputs,
        &*devices.npu,
        &*devices.host,
        reference,
        &options,
        &mut |p| {
            interrupt::end_here_if_asked("; no report was written");
            if let Progress::Started { model, layer, index, total } = p {
                progress.at(model, index, total, layer);
            }
        },
    )?;
    Ok(report)
}

/// Write the report as HTML, and as JSON beside it.
pub fn write_report(report: &Report, extras: &ReportExtras, path: &Path) -> Result<()> {
    let html = render_html(report, extras)?;
    std::fs::write(path, html).with_context(|| path.display().to_string())?;
    let json = path.with_extension("json");
    std::fs::write(&json, report.to_json()).with_context(|| json.display().to_string())
}
