//! `caption`: what is in images, in words.

use crate::args::CaptionArgs;
use crate::devices;
use crate::interrupt;
use crate::output::{Output, time};
use crate::progress;
use crate::text::fold;
use anyhow::{Context, Result};
use rockshard::{Answer, Captioner, End, Pack, Rgb, Times};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// `caption`.
pub fn run(args: &CaptionArgs, out: &Output) -> Result<ExitCode> {
    let images = args.images.iter().map(|path| image(path)).collect::<Result<Vec<_>>>()?;
    let pack = Pack::open(&args.pack)?;
    let cores = devices::cores(&args.device)?;
    let captioner = Captioner::load(&cores, &pack, &args.words.options(&args.device))?;
    let mut conversation =
        captioner.conversation(args.words.sampling(), interrupt::run_options())?;
    let mut tell = |words: &str| {
        if !out.json {
            say(words);
        }
        interrupt::go_on()
    };
    let answer = conversation.ask(&args.prompt, &images, args.words.max_tokens, &mut tell)?;
    let value = json!({
        "text": answer.text, "tokens": answer.tokens, "end": word(answer.end), "times": answer.times,
        "modelled_resident_peak_bytes": cores.resident_peak(), "incidents": answer.trace.incidents,
    });
    out.result(&value, String::new);
    if !out.json && !out.quiet {
        progress::line(&fold(&summary(&answer)));
    }
    if answer.end == End::Interrupted {
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    Ok(ExitCode::SUCCESS)
}

/// Read an image.
pub fn image(path: &Path) -> Result<Rgb> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Rgb::from_file(&bytes).with_context(|| path.display().to_string())
}

/// Show words as they come.
pub fn say(words: &str) {
    let mut out = std::io::stdout();
    // A reader that has enough closes the pipe.
    let _ = out.write_all(words.as_bytes()).and_then(|()| out.flush());
}

fn word(end: End) -> &'static str {
    match end {
        End::Stop => "stop",
        End::Length => "length",
        End::Context => "context",
        End::Interrupted => "interrupted",
    }
}

/// What an answer took.
pub fn summary(answer: &Answer) -> String {
    let Times {
        views,
        prompt_tokens,
        fed_tokens,
        measured_images_us,
        measured_prefill_us,
        measured_decode_us,
        modelled_vision_us,
    } = answer.times;
    let tokens = answer.tokens.len();
    let rate = tokens as f64 / (measured_decode_us / 1e6).max(1e-9);
    let vision = modelled_vision_us
        .filter(|_| views > 0)
        .map(|us| format!(", {} on the NPU modelled", time(us)))
        .unwrap_or_default();
    let plural = if views == 1 { "" } else { "s" };
    let cut = if answer.end == End::Length { "; cut off (--max-tokens)" } else { "" };
    format!(
        "{views} view{plural}: {} measured{vision}; {fed_tokens} of {prompt_tokens} tokens fed: {} measured with the views; {tokens} tokens said: {} measured, {rate:.1} a second{cut}",
        time(measured_images_us),
        time(measured_prefill_us),
        time(measured_decode_us),
    )
}
