//! Ctrl-C. The first lets the shard that is running finish and ends the command with exit code 130; the second ends it at once.

use crate::progress;
use rockshard::{Cancel, RunOptions};
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it.
pub const EXIT_CODE: u8 = 130;

static CANCEL: LazyLock<Cancel> = LazyLock::new(Cancel::default);

/// What Ctrl-C cancels.
pub fn cancel() -> Cancel {
    CANCEL.clone()
}

/// Options of a run that Ctrl-C stops.
pub fn run_options() -> RunOptions {
    RunOptions { cancel: cancel(), ..RunOptions::default() }
}

/// Break where Ctrl-C was typed.
pub fn go_on() -> ControlFlow<()> {
    if CANCEL.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Take Ctrl-C (and SIGTERM) from here on.
pub fn listen() {
    let heard = ctrlc::set_handler(|| {
        if CANCEL.is_cancelled() {
            std::process::exit(EXIT_CODE.into());
        }
        CANCEL.cancel();
        progress::line("rockshard: stopping after what is running now; Ctrl-C again stops at once");
    });
    if let Err(error) = heard {
        tracing::warn!("Ctrl-C will end the program at once: {error}");
    }
}

/// Where nothing is half done: end the program if Ctrl-C was typed. `hint` says how to go on.
pub fn end_here_if_asked(hint: &str) {
    if CANCEL.is_cancelled() {
        progress::line(&format!("rockshard: interrupted{hint}"));
        std::process::exit(EXIT_CODE.into());
    }
}
