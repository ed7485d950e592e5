//! `stream`: frames from somewhere, drawn, to somewhere.

use crate::args::StreamArgs;
use crate::devices;
use crate::files::Files;
use crate::interrupt;
use crate::output::Output;
use crate::progress;
use crate::text::fold;
use crate::video::{Frame, Sink, Source, To};
use anyhow::{Context, Result};
use rockshard::{
    FrameSource, Pack, QueueOptions, Settings, Stream, StreamConfig, StreamFrame, StreamModel,
    StreamOptions,
};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a prompt's file is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often the status line is shown.
const STATUS: Duration = Duration::from_secs(1);
/// After how long without a frame a source is said to stall.
const STALL: Duration = Duration::from_secs(10);

/// `stream`.
pub fn run(args: &StreamArgs, out: &Output) -> Result<ExitCode> {
    let first = prompt(args)?;
    super::generate::check_prompts([&first, &args.negative])?;
    let pack = Pack::open(&args.pack)?;
    let cores = devices::cores(&args.device)?;
    let options = StreamOptions {
        size: args.size,
        vae: args.vae.chosen(),
        from_pictures: args.from.is_some(),
        mode: args.device.mode.chosen(),
    };
    let model = StreamModel::load(&cores, &pack, &options)?;
    let live = args.from.as_ref().is_some_and(crate::video::From::is_live);
    let queue = QueueOptions { drop_stale: args.drop || live, ..QueueOptions::default() };
    let stream = Arc::new(model.prepare(config(args), settings(args, first.clone()), queue)?);
    super::generate::warn_of_dropped(stream.dropped_tokens());
    if let Some((threshold, skip)) = args.similarity_filter {
        stream.enable_similar_image_filter(threshold, skip);
    }
    let source = match &args.from {
        Some(from) => Some(Source::open(from, args.raw, model.size(), args.fps)?),
        None => None,
    };
    let mut sink = Sink::open(&args.to, model.size(), args.fps)?;
    if let Some(address) = sink.address() {
        progress::line(&format!("stream: look at {address}"));
    }
    if let Some(path) = args.prompt_file.clone() {
        follow_prompt(stream.clone(), path, first);
    }
    let reading = Reading::start(source, stream.clone(), args);
    let mut summary = deliver(&stream, &mut sink, &reading, out)?;
    let files = files(&args.to);
    summary["written_files"] = json!(files);
    let finished = sink.finish();
    // What broke off is an error when all that came before it is written.
    let broken = reading.broken();
    out.result(&summary, || files.below(fold(&summary_text(&summary))));
    finished?;
    broken.map_or(Ok(()), Err)?;
    Ok(ExitCode::SUCCESS)
}

/// What is there when the stream is over. Each frame of a directory is named when it is written.
fn files(to: &To) -> Files {
    let mut files = Files::default();
    match to {
        To::Folder(path) => files.add("frames", path),
        To::Video(path) => files.add("video", path),
        To::Pipe | To::Http(_) => {}
    }
    files
}

/// The first prompt.
fn prompt(args: &StreamArgs) -> Result<String> {
    match (&args.prompt, &args.prompt_file) {
        (_, Some(path)) => read_prompt(path),
        (prompt, None) => Ok(prompt.clone().unwrap_or_default()),
    }
}

fn read_prompt(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

fn config(args: &StreamArgs) -> StreamConfig {
    StreamConfig {
        frame_buffer_size: args.frame_buffer,
        use_denoising_batch: !args.sequential,
        do_add_noise: !args.no_add_noise,
        turbo: args.turbo,
    }
}

fn settings(args: &StreamArgs, prompt: String) -> Settings {
    let usual = if args.from.is_some() { vec![32, 45] } else { vec![0, 16, 32, 45] };
    let t_index_list = match &args.t_index {
        Some(list) => list.clone(),
        None if args.turbo && args.from.is_none() => vec![0],
        None => usual,
    };
    Settings {
        negative_prompt: args.negative.clone(),
        t_index_list,
        cfg_type: args.cfg.kind(),
        guidance_scale: args.guidance,
        delta: args.delta,
        seed: args.seed,
        ..Settings::new(prompt)
    }
}

/// Take up the prompt of a file whenever it changes.
fn follow_prompt(stream: Arc<Stream>, path: PathBuf, mut last: String) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            // A file that is being replaced is there again at the next look.
            let Ok(prompt) = read_prompt(&path) else { continue };
            if prompt == last {
                continue;
            }
            last = prompt;
            match stream.update_prompt(&last) {
                Ok(generation) => tracing::info!(generation, "prompt: {last}"),
                Err(error) => tracing::warn!("the prompt stays as it was: {error}"),
            }
        }
    });
}

/// The thread that reads frames and gives them to the stream.
struct Reading(Arc<Mutex<State>>);

struct State {
    /// Frames that could not be read.
    bad: u64,
    /// Since when the source is asked for a frame.
    asked: Option<Instant>,
    over: bool,
    broken: Option<anyhow::Error>,
}

impl Reading {
    fn start(source: Option<Source>, stream: Arc<Stream>, args: &StreamArgs) -> Self {
        let state = State { bad: 0, asked: None, over: false, broken: None };
        let reading = Reading(Arc::new(Mutex::new(state)));
        let shared = Reading(reading.0.clone());
        let watched = Reading(reading.0.clone());
        std::thread::spawn(move || watched.watch());
        let (most, live) = (args.frames.unwrap_or(u64::MAX), args.from.as_ref());
        // What comes by itself has its own pace.
        let pace = args.fps.filter(|_| live.is_none_or(|f| !f.is_live())).map(|f| 1.0 / f);
        std::thread::spawn(move || {
            let broken = shared.read(source, &stream, most, pace).err();
            let mut state = shared.state();
            (state.over, state.broken) = (true, broken);
            drop(state);
            // Whoever takes the last frame then knows how the source ended.
            stream.finish();
        });
        reading
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(
        &self,
        mut source: Option<Source>,
        stream: &Stream,
        most: u64,
        pace: Option<f64>,
    ) -> Result<()> {
        let start = Instant::now();
        let mut given = 0u64;
        while given < most && !interrupt::cancel().is_cancelled() {
            let frame = match &mut source {
                None => FrameSource::Noise,
                Some(source) => match self.ask(source)? {
                    None => break,
                    Some(Frame::Picture(picture)) => FrameSource::Picture(picture),
                    Some(Frame::Bad(error)) => {
                        tracing::warn!("a frame is left out: {error:#}");
                        self.state().bad += 1;
                        continue;
                    }
                },
            };
            if let Some(pace) = pace {
                let due = start + Duration::from_secs_f64(pace * given as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            if stream.push(frame).is_err() {
                break;
            }
            given += 1;
        }
        Ok(())
    }

    fn ask(&self, source: &mut Source) -> Result<Option<Frame>> {
        self.state().asked = Some(Instant::now());
        let frame = source.next_frame();
        self.state().asked = None;
        frame
    }

    /// Say when a source stalls, once each time.
    fn watch(&self) {
        let mut said = false;
        loop {
            std::thread::sleep(STATUS);
            let state = self.state();
            if state.over {
                return;
            }
            let stalls = state.asked.is_some_and(|since| since.elapsed() > STALL);
            if stalls && !said {
                tracing::warn!("no frame has come for {} s; still waiting", STALL.as_secs());
            }
            said = stalls;
        }
    }

    fn broken(&self) -> Option<anyhow::Error> {
        self.state().broken.take()
    }
}

/// Write frames as they come, and show how it goes.
fn deliver(
    stream: &Stream,
    sink: &mut Sink,
    reading: &Reading,
    out: &Output,
) -> Result<serde_json::Value> {
    let start = Instant::now();
    let mut status = Status::new(out);
    let (mut written, mut failed, mut latency) = (0u64, 0u64, Duration::ZERO);
    let mut stopping = false;
    loop {
        if interrupt::cancel().is_cancelled() && !stopping {
            // What is on its way is finished and written.
            stopping = true;
            stream.finish();
        }
        let Some(next) = stream.next_frame() else { break };
        let frame = match next {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!("a frame is lost: {error}");
                failed += 1;
                continue;
            }
        };
        let file = sink.write(frame.number, &frame.picture)?;
        written += 1;
        latency += frame.latency;
        if out.json {
            line(&frame, file.as_deref());
        }
        status.show(stream, written, &frame);
    }
    let stats = stream.stats();
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "written": written, "lost": failed, "unreadable": reading.state().bad, "stream": stats,
        "measured_seconds": seconds, "measured_frames_per_second": written as f64 / seconds,
        "measured_latency_ms": latency.as_secs_f64() * 1e3 / written.max(1) as f64,
    }))
}

/// A frame as a line of JSON.
fn line(frame: &StreamFrame, file: Option<&Path>) {
    let value = json!({
        "frame": frame.number, "generation": frame.generation, "skipped": frame.skipped,
        "measured_latency_ms": frame.latency.as_secs_f64() * 1e3, "file": file,
    });
    let _ = writeln!(std::io::stdout(), "{value}");
}

fn summary_text(summary: &serde_json::Value) -> String {
    let number =
        |path: &str| summary.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let real =
        |path: &str| summary.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    format!(
        "{} frames written: {} drawn, {} skipped, {} dropped, {} lost, {} unreadable\nmeasured on this machine: {:.2} frames a second, {:.0} ms from frame to picture",
        number("/written"),
        number("/stream/drawn"),
        number("/stream/skipped"),
        number("/stream/dropped"),
        number("/lost"),
        number("/unreadable"),
        real("/measured_frames_per_second"),
        real("/measured_latency_ms"),
    )
}

/// The status line.
struct Status {
    quiet: bool,
    shown: Instant,
    written: u64,
    given: u64,
    busy_us: f64,
}

impl Status {
    fn new(out: &Output) -> Self {
        Status { quiet: out.quiet, shown: Instant::now(), written: 0, given: 0, busy_us: 0.0 }
    }

    fn show(&mut self, stream: &Stream, written: u64, frame: &StreamFrame) {
        let passed = self.shown.elapsed();
        if self.quiet || passed < STATUS {
            return;
        }
        let stats = stream.stats();
        let seconds = passed.as_secs_f64();
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        progress::line(&format!(
            "stream: in {:.1}/s, out {:.1}/s, {} skipped, {} dropped, latency {:.0} ms, {:.1} cores busy (measured)",
            rate(stats.given, self.given),
            rate(written, self.written),
            stats.skipped,
            stats.dropped,
            frame.latency.as_secs_f64() * 1e3,
            (stats.busy_us - self.busy_us) / passed.as_secs_f64() / 1e6,
        ));
        (self.shown, self.written, self.given, self.busy_us) =
            (Instant::now(), written, stats.given, stats.busy_us);
    }
}
