//! What is printed: results on standard output, progress and logs on standard error.

use crate::text::StandardError;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How results are printed.
pub struct Output {
    /// As JSON.
    pub json: bool,
    /// Without progress.
    pub quiet: bool,
}

impl Output {
    /// Print the result: `value` as JSON, or else `text`.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value)
                .unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}"))
        } else {
            text()
        };
        // A reader that has enough, as `head`, closes the pipe.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Print what went wrong, to standard error and, as JSON, as the result.
    pub fn failure(&self, message: &str) {
        let _ = StandardError.write_all(format!("rockshard: {message}\n").as_bytes());
        if self.json {
            self.result(&serde_json::json!({ "error": message }), String::new);
        }
    }

    /// A progress display: a bar on a terminal, plain lines elsewhere.
    pub fn progress(&self, title: &str) -> Display {
        let terminal = std::io::stderr().is_terminal() && !self.quiet;
        let bar = terminal.then(|| {
            let bar = ProgressBar::new(0);
            let style =
                ProgressStyle::with_template("{prefix:>10} [{bar:32}] {pos}/{len} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Display {
            bar,
            title: title.to_owned(),
            lines: !terminal && !self.quiet,
            last: String::new(),
        }
    }
}

/// A progress display.
pub struct Display {
    bar: Option<ProgressBar>,
    title: String,
    lines: bool,
    last: String,
}

impl Display {
    /// `done` of `total`, now at `what`. Elsewhere than on a terminal, a line when `group` changes.
    pub fn at(&mut self, group: &str, done: usize, total: usize, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(what.to_owned());
        } else if self.lines && group != self.last {
            eprintln!("{}: {group}", self.title);
            group.clone_into(&mut self.last);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Send log lines to standard error.
pub fn start_logging(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| StandardError)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Microseconds as a readable time.
pub fn time(micros: f64) -> String {
    match micros {
        m if m >= 1e6 => format!("{:.2} s", m / 1e6),
        m if m >= 1e3 => format!("{:.2} ms", m / 1e3),
        m => format!("{m:.0} us"),
    }
}

/// The modelled time, of a device that has one, and the measured one, both in microseconds.
pub fn times(modelled: Option<f64>, measured: f64) -> String {
    let modelled = modelled.map(|m| format!("modelled NPU time {}, ", time(m))).unwrap_or_default();
    format!("{modelled}measured time on this machine {}", time(measured))
}

/// Bytes as a readable size.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.2} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}
