//! What is shown on standard error while a command works: how far it is, and log lines.
//!
//! On a terminal there is one line at the bottom that changes, and log lines go above it. Elsewhere, and on a terminal that only prints
//! (`TERM=dumb`), progress is lines of their own: one where something else begins, and one now and then while it takes long. `NO_COLOR` takes
//! the colours from log lines; the bar has none.

use crate::text::fold;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

const SPINNER: &str = "{prefix:>10} {spinner} {elapsed} {wide_msg}";
const BAR: &str = "{prefix:>10} [{bar:32}] {pos}/{len} {elapsed} {wide_msg}";
/// How often the line at the bottom moves though nothing is done.
const TICK: Duration = Duration::from_millis(200);
/// After how long plain lines say again how far the same work is.
const AGAIN: Duration = Duration::from_secs(30);

/// What stands at the bottom of the terminal.
static BOTTOM: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How far a command is.
pub struct Progress {
    title: String,
    form: Form,
    began: Instant,
}

enum Form {
    Quiet,
    /// On a terminal, one line that changes.
    Line(ProgressBar),
    /// Lines, with what was said last and when.
    Lines {
        group: String,
        said: Instant,
    },
}

impl Progress {
    /// For a command of this name; `quiet` shows nothing.
    pub fn new(title: &str, quiet: bool) -> Self {
        let began = Instant::now();
        let form = match (quiet, line_can_change()) {
            (true, _) => Form::Quiet,
            (_, true) => {
                let line = BOTTOM.add(ProgressBar::no_length());
                line.set_prefix(title.to_owned());
                line.set_style(style(SPINNER));
                line.enable_steady_tick(TICK);
                Form::Line(line)
            }
            _ => Form::Lines { group: String::new(), said: began },
        };
        Progress { title: title.to_owned(), form, began }
    }

    /// At work on something whose extent is not known.
    pub fn at(&mut self, what: &str) {
        self.show(what, "", None);
    }

    /// `done` of `total` of something.
    pub fn at_of(&mut self, what: &str, done: usize, total: usize) {
        self.show(what, "", Some((done, total)));
    }

    /// The same, with what is done now, for a terminal.
    pub fn at_one_of(&mut self, what: &str, one: &str, done: usize, total: usize) {
        self.show(what, one, Some((done, total)));
    }

    fn show(&mut self, what: &str, one: &str, count: Option<(usize, usize)>) {
        match &mut self.form {
            Form::Quiet => {}
            Form::Line(line) => {
                let both = if one.is_empty() { what.to_owned() } else { format!("{what}: {one}") };
                // It may be drawn between two of these: never as a bar for what has no total.
                match count {
                    Some((done, total)) => {
                        line.set_message(both);
                        line.set_length(total as u64);
                        line.set_position(done as u64);
                        line.set_style(style(BAR));
                    }
                    None => {
                        line.set_style(style(SPINNER));
                        line.set_message(both);
                    }
                }
            }
            Form::Lines { group, said } if what != group || said.elapsed() > AGAIN => {
                let count = count.filter(|_| what == group);
                let count = count.map(|(done, total)| format!(", {done} of {total}"));
                let seconds = self.began.elapsed().as_secs();
                let count = count.unwrap_or_default();
                line(&format!("{}: {what}{count} ({seconds} s)", self.title));
                (*group, *said) = (what.to_owned(), Instant::now());
            }
            Form::Lines { .. } => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Form::Line(line) = &self.form {
            line.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Whether standard error is a terminal on which a line can be changed.
fn line_can_change() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Print a line to standard error, above the line at the bottom. A reader that has enough, as `head`, closes the pipe.
pub fn line(text: &str) {
    AboveTheBottom.write_all(format!("{text}\n").as_bytes()).ok();
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
    let coloured = line_can_change() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AboveTheBottom)
        .with_ansi(coloured)
        .init();
}

/// Standard error, above the line at the bottom; on a terminal, lines are folded.
struct AboveTheBottom;

impl Write for AboveTheBottom {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut error = std::io::stderr();
        let folded = std::str::from_utf8(bytes).ok().filter(|_| error.is_terminal()).map(fold);
        let shown = folded.as_deref().map_or(bytes, str::as_bytes);
        let _ = BOTTOM.suspend(|| error.write_all(shown));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveTheBottom {
    type Writer = AboveTheBottom;

    fn make_writer(&'a self) -> Self::Writer {
        AboveTheBottom
    }
}
