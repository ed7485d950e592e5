use crate::args::GenerateArgs;
use crate::devices;
use crate::interrupt;
use crate::models::{Choice, PackModels, TextToImage};
use crate::output::{Output, times};
use anyhow::{Context, Result};
use rockshard_diffusion::{Generated, InitialPicture, Picture, Pipeline, Progress, Request};
use rockshard_pack::{Mode, Pack};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// `generate`.
pub fn run(args: &GenerateArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let text = TextToImage::open(&pack)?;
    let [width, height] = args.size.unwrap_or(text.size);
    let initial = match &args.init_image {
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let picture =
                Picture::from_bytes(&bytes).with_context(|| path.display().to_string())?;
            Some(InitialPicture { picture, strength: args.strength })
        }
        None => None,
    };
    let request = Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative.clone(),
        steps: args.steps,
        guidance: args.guidance,
        seed: args.seed,
        width,
        height,
        count: args.count,
        initial,
    };
    let devices = rockshard_devices::open(args.device.device)?;
    let choice = Choice {
        size: Some([width, height]),
        tile: args.vae_tile,
        no_encoder: args.init_image.is_none(),
    };
    let mode = Mode::of(pack.manifest().conversion.placement);
    let models = PackModels::open(&pack, &devices, &choice, devices::options(&args.device)?, mode)?;
    let start = Instant::now();
    let generated = generate(&models, &text, &request, out)?;
    let host = start.elapsed().as_secs_f64() * 1e6;
    interrupt::end_here_if_asked("; nothing was written");
    let files = save(&generated, &args.out)?;
    let trace = models.trace();
    if let Some(path) = &args.timeline {
        std::fs::write(path, trace.timeline_svg()).with_context(|| path.display().to_string())?;
    }
    let modelled = trace.is_modelled().then(|| trace.modelled_total_us());
    let value = json!({
        "pictures": files, "dropped_tokens": generated.dropped_tokens,
        "modelled_device_us": modelled, "measured_host_us": host, "shard_runs": trace.shard_runs.len(),
        "modelled_resident_peak_bytes": models.resident_peak(), "incidents": trace.incidents,
    });
    out.result(&value, || {
        let mut text = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join("\n");
        text += &format!("\n{}", times(modelled, host));
        text
    });
    Ok(ExitCode::SUCCESS)
}

/// Generate, showing progress and warning about a prompt that is too long.
pub fn generate(
    models: &PackModels,
    text: &TextToImage,
    request: &Request,
    out: &Output,
) -> Result<Generated> {
    let mut progress = out.progress("generate");
    let total = request.steps + 2;
    let pipeline = Pipeline::new(models, &text.tokenizer, &text.config)?;
    let generated = pipeline.generate(request, &mut |p| {
        match p {
            Progress::Prompt => progress.at("prompt encoded", 1, total, "prompt encoded"),
            Progress::Step { done, .. } => progress.at("sampling", done + 1, total, "sampling"),
            Progress::Decoded => progress.at("decoded", total, total, "decoded"),
        }
        ControlFlow::Continue(())
    })?;
    if generated.dropped_tokens > 0 {
        tracing::warn!(
            "the prompt is too long: {} tokens at its end were dropped",
            generated.dropped_tokens
        );
    }
    Ok(generated)
}

/// Save the pictures; several get their number before the ending.
fn save(generated: &Generated, out: &Path) -> Result<Vec<PathBuf>> {
    let many = generated.pictures.len() > 1;
    let path = |i: usize| {
        if !many {
            return out.to_owned();
        }
        let stem = out.file_stem().and_then(|s| s.to_str()).unwrap_or("picture");
        out.with_file_name(format!("{stem}-{i}.png"))
    };
    let files: Vec<PathBuf> = (0..generated.pictures.len()).map(path).collect();
    for (picture, file) in generated.pictures.iter().zip(&files) {
        picture.save(file)?;
    }
    Ok(files)
}
