//! `demo`: convert the bundled models, draw, describe what was drawn, validate, and say where everything is.

mod describing;
mod scene;

use crate::args::DemoArgs;
use crate::commands::{convert, generate, validate};
use crate::files::Files;
use crate::output::{Output, time};
use crate::remedy::layers;
use crate::text::fold;
use crate::{devices, interrupt};
use anyhow::{Context, Result, bail};
use rockshard::{
    ConvertRequest, Drawing, Pack, Painter, PainterOptions, ReportExtras, Request, Rk3588, Shards,
    Toolkit, Variant, write_report,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The bundled models.
const DRAWS: &str = "shards/tiny-lcm";
const DESCRIBES: &str = "shards/tiny-vlm";
const THRESHOLD: f64 = 0.999;
const CORES: u8 = 3;
/// Pictures drawn together, so that the pipeline has something to overlap.
const PICTURES: u32 = 3;

/// `demo`.
pub fn run(args: &DemoArgs, out: &Output) -> Result<ExitCode> {
    generate::check_prompts([&args.prompt])?;
    let start = Instant::now();
    let model = match &args.model {
        Some(model) => model.clone(),
        None => bundled(DRAWS, "model_index.json")?,
    };
    // Another model's pictures are none that the bundled captioner knows.
    let describes = args.model.is_none().then(|| bundled(DESCRIBES, "config.json")).transpose()?;
    let devices = rockshard::open_devices(args.device)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let pack_path = args.out.join("pack");
    let chip = Rk3588::from_environment()?;
    let compiled = matches!(devices.variant, Variant::Compiled { .. });
    let conversion = |model: &Path, pack: &Path| ConvertRequest {
        chip: chip.clone(),
        toolkit: compiled.then(|| toolkit(&args.rknn_python)),
        ..ConvertRequest::new(model, pack)
    };
    describing::clear(&pack_path)?;
    let drawn = ConvertRequest { shards: Shards::Block, ..conversion(&model, &pack_path) };
    let manifest = convert::convert(drawn, "", out)?;
    let converted = start.elapsed();

    let pack = Pack::open(&pack_path)?;
    let cores = rockshard::take_cores_with(&devices, devices::usual(args.device, CORES)?)?;
    let options = PainterOptions {
        from_pictures: false,
        mode: args.mode.chosen(),
        together: PICTURES as usize,
        ..PainterOptions::default()
    };
    let painter = Painter::load(&cores, &pack, &options)?;
    let usual = painter.request(&args.prompt, None)?;
    let request = Request { seed: args.seed, count: PICTURES, ..usual };
    let drawing = Instant::now();
    let run_options = interrupt::run_options();
    let mut display = generate::shown(out, request.steps);
    let (drawn, inputs) = painter.draw_and_record(&request, &run_options, &mut display)?;
    drop(display);
    let Drawing { pictures, trace, .. } = drawn;
    let drawn = drawing.elapsed();
    let mode = painter.mode();
    drop((painter, cores));
    let picture = pictures.first().context("no picture was drawn")?;
    let picture_path = args.out.join("picture.png");
    picture.save(&picture_path)?;
    let timeline = trace.timeline_svg();
    let timeline_path = args.out.join("timeline.svg");
    std::fs::write(&timeline_path, &timeline)
        .with_context(|| timeline_path.display().to_string())?;

    let captioner_path = args.out.join("captioner");
    let described = match &describes {
        Some(model) => {
            describing::clear(&captioner_path)?;
            let request = conversion(model, &captioner_path);
            let on = (&devices, args.device, CORES);
            Some(describing::describe(picture, &args.prompt, request, on, out)?)
        }
        None => None,
    };

    let validating = Instant::now();
    let report = validate::judge(&pack, &devices, &inputs, THRESHOLD, out)?;
    let validated = validating.elapsed();
    let report_path = args.out.join("report.html");
    let captioned = pictures.iter().map(|p| {
        let seed = p.parameters.as_ref().map_or(0, |q| q.seed);
        Ok((format!("{}, seed {seed}", args.prompt), p.to_png()?))
    });
    let captioned = captioned.collect::<Result<_>>()?;
    let next_steps = layers::next_steps(&pack, &pack_path.display().to_string(), &report);
    let timeline_svg = Some(timeline);
    let extras = ReportExtras { timeline_svg, pictures: captioned, next_steps };
    write_report(&report, &extras, &report_path)?;
    let mut files = Files::default();
    files.add("picture", &picture_path);
    files.add("pack", &pack_path);
    if described.is_some() {
        files.add("captioner", &captioner_path);
    }
    files.add("timeline", &timeline_path);
    files.add("report", &report_path);
    files.add("report as JSON", &report_path.with_extension("json"));

    let modelled = trace.is_modelled().then(|| trace.modelled_total_us());
    let shards: usize = manifest.models.iter().map(|m| m.shards.len()).sum();
    let micros = |d: std::time::Duration| d.as_secs_f64() * 1e6;
    let value = json!({
        "prompt": args.prompt, "picture": picture_path, "pack": pack_path, "shards": shards,
        "timeline": timeline_path, "report": report_path, "layers_passed": report.passed(), "written_files": files,
        "caption": described.as_ref().map(|d| &d.text), "caption_agrees": described.as_ref().and_then(|d| d.agrees),
        "modelled_device_us": modelled, "pictures": PICTURES, "mode": mode.to_string(),
        "measured_host_us": { "convert": micros(converted), "draw": micros(drawn), "validate": micros(validated), "total": micros(start.elapsed()) },
    });
    out.result(&value, || {
        let mut lines = vec![
            format!("prompt     {}", args.prompt),
            format!("picture    {}", picture_path.display()),
            format!("pack       {} ({shards} shards)", pack_path.display()),
            format!("timeline   {}", timeline_path.display()),
            format!("report     {}", report_path.display()),
            format!("           {}", report_path.with_extension("json").display()),
            fold(&report.summary().join("\n")),
        ];
        let caption = |d: &describing::Description| format!("caption    {} ({})", d.text, d.verdict());
        let captioner = described.iter().map(|_| format!("captioner  {}", captioner_path.display()));
        lines.splice(3..3, captioner);
        lines.splice(2..2, described.as_ref().map(|d| fold(&caption(d))));
        lines.extend(layers::lines(&extras.next_steps));
        lines.extend(
            modelled.map(|m| format!("modelled   {} of NPU time for {PICTURES} pictures of 4 steps on {CORES} simulated cores", time(m))),
        );
        lines.push(format!(
            "measured   on this machine: convert {}, draw {}, validate {}, in all {}",
            time(micros(converted)),
            time(micros(drawn)),
            time(micros(validated)),
            time(micros(start.elapsed()))
        ));
        lines.join("\n")
    });
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(validate::BELOW_THRESHOLD) })
}

/// The vendor's compiler, for a device that runs compiled shards only.
fn toolkit(python: &Path) -> Toolkit {
    Toolkit {
        python: python.to_owned(),
        jobs: 1,
        timeout: Duration::from_secs(1800),
        verify: false,
    }
}

/// A bundled model: in the checkout that cargo runs from, the current directory, or beside the program.
fn bundled(place: &str, marker: &str) -> Result<PathBuf> {
    let checkout =
        std::env::var_os("CARGO_MANIFEST_DIR").map(|d| Path::new(&d).join("../..").join(place));
    let beside = std::env::current_exe().ok().and_then(|e| Some(e.parent()?.join(place)));
    let places: Vec<PathBuf> =
        [checkout, Some(PathBuf::from(place)), beside].into_iter().flatten().collect();
    match places.iter().find(|p| p.join(marker).is_file()) {
        Some(found) => Ok(found.canonicalize()?),
        None => bail!(
            "the bundled model {place} is not there; run from a checkout, or name a model with --model"
        ),
    }
}
