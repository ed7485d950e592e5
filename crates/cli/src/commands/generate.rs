//! `generate`: arguments to a request, progress, files and a line about times.

use crate::args::GenerateArgs;
use crate::devices;
use crate::files::Files;
use crate::interrupt;
use crate::output::{Output, times};
use crate::progress::Progress;
use anyhow::{Context, Result};
use rockshard::{
    DrawProgress, Drawing, InitialPicture, Pack, Painter, PainterOptions, Picture, Request,
    WeightedPrompt,
};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// `generate`.
pub fn run(args: &GenerateArgs, out: &Output) -> Result<ExitCode> {
    check_prompts([&args.prompt].into_iter().chain(&args.negative))?;
    let pack = Pack::open(&args.pack)?;
    let initial = match &args.init_image {
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let picture =
                Picture::from_bytes(&bytes).with_context(|| path.display().to_string())?;
            Some(InitialPicture { picture, strength: args.strength, mask: None })
        }
        None => None,
    };
    let cores = devices::cores(&args.device)?;
    let options = PainterOptions {
        size: args.size,
        vae_tile: args.vae_tile,
        from_pictures: args.init_image.is_some(),
        mode: args.device.mode.chosen(),
        together: args.count as usize,
    };
    let painter = Painter::load(&cores, &pack, &options)?;
    let usual = painter.request(&args.prompt, args.sampler)?;
    let request = Request {
        negative_prompt: args.negative.clone(),
        steps: args.steps.unwrap_or(usual.steps),
        guidance: args.guidance.unwrap_or(usual.guidance),
        seed: args.seed,
        count: args.count,
        initial,
        ..usual
    };
    let start = Instant::now();
    let mut drawing = draw(&painter, &request, out)?;
    let host = start.elapsed().as_secs_f64() * 1e6;
    interrupt::end_here_if_asked("; nothing was written");
    let pictures = save(&drawing, &args.out)?;
    let mut files = Files::default();
    pictures.iter().for_each(|picture| files.add("picture", picture));
    let trace = &mut drawing.trace;
    trace.incidents.splice(..0, painter.incidents().to_vec());
    if let Some(path) = &args.timeline {
        files.write("timeline", path, trace.timeline_svg())?;
    }
    let modelled = trace.is_modelled().then(|| trace.modelled_total_us());
    let value = json!({
        "pictures": pictures, "written_files": files, "dropped_tokens": drawing.dropped_tokens, "mode": painter.mode().to_string(),
        "modelled_device_us": modelled, "measured_host_us": host,
        "shard_runs": drawing.trace.shard_runs.len(),
        "modelled_resident_peak_bytes": cores.resident_peak(), "incidents": drawing.trace.incidents,
    });
    out.result(&value, || {
        let mut lines: Vec<String> = pictures.iter().map(|f| f.display().to_string()).collect();
        lines.push(times(modelled, host));
        lines.extend(files.lines().skip(pictures.len()));
        lines.join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// Refuse prompts that cannot be read, before models are loaded for them.
pub fn check_prompts<'a>(prompts: impl IntoIterator<Item = &'a String>) -> Result<()> {
    for prompt in prompts {
        WeightedPrompt::parse(prompt)?;
    }
    Ok(())
}

/// Draw, showing progress and warning about a prompt that is too long.
fn draw(painter: &Painter, request: &Request, out: &Output) -> Result<Drawing> {
    Ok(painter.draw(request, &interrupt::run_options(), &mut shown(out, request.steps))?)
}

/// Shows how a request of so many steps comes along.
pub fn shown(out: &Output, steps: usize) -> impl FnMut(DrawProgress) -> ControlFlow<()> {
    let mut shown = Progress::new("generate", out.quiet);
    let total = steps + 2;
    move |progress| {
        match progress {
            DrawProgress::Prompt { dropped_tokens } => {
                warn_of_dropped(dropped_tokens);
                shown.at_of("prompt encoded", 1, total);
            }
            DrawProgress::Step { done, .. } => shown.at_of("sampling", done + 1, total),
            DrawProgress::Preview { .. } => {}
            DrawProgress::Decoded => shown.at_of("decoded", total, total),
        }
        ControlFlow::Continue(())
    }
}

/// Say that a prompt was too long.
pub fn warn_of_dropped(tokens: usize) {
    if tokens > 0 {
        tracing::warn!("the prompt is too long: {tokens} tokens at its end were dropped");
    }
}

/// Save the pictures; several get their number before the ending.
fn save(drawing: &Drawing, out: &Path) -> Result<Vec<PathBuf>> {
    let many = drawing.pictures.len() > 1;
    let path = |i: usize| {
        if !many {
            return out.to_owned();
        }
        let stem = out.file_stem().and_then(|s| s.to_str()).unwrap_or("picture");
        out.with_file_name(format!("{stem}-{i}.png"))
    };
    let files: Vec<PathBuf> = (0..drawing.pictures.len()).map(path).collect();
    for (picture, file) in drawing.pictures.iter().zip(&files) {
        picture.save(file)?;
    }
    Ok(files)
}
