//! What is printed as a result, on standard output.

use crate::progress;
use serde::Serialize;
use std::io::Write;

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
        progress::line(&format!("rockshard: {message}"));
        if self.json {
            self.result(&serde_json::json!({ "error": message }), String::new);
        }
    }
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
