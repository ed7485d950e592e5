//! ffmpeg as a process beside this one: raw RGB frames through a pipe, from it or to it.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Bytes of its messages that are kept.
const MESSAGES: usize = 4096;

/// A running ffmpeg.
pub struct Ffmpeg {
    pub child: Child,
    messages: Option<JoinHandle<String>>,
}

impl Ffmpeg {
    /// Start it with these arguments; its standard input is this one's where it reads from a pipe.
    pub fn start<'a>(
        arguments: impl IntoIterator<Item = &'a OsStr>,
        input: Stdio,
        output: Stdio,
    ) -> Result<Self> {
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-loglevel", "error"]).args(arguments);
        command.stdin(input).stdout(output).stderr(Stdio::piped());
        // An interrupt from the terminal is for this program, which then ends it in order.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(
                "ffmpeg is not on the PATH: install it (Debian: apt install ffmpeg), or use a directory of pictures or --raw"
            ),
            _ => anyhow::anyhow!("ffmpeg cannot be started: {error}"),
        })?;
        // Read while it runs, so that it never waits for its messages to be read.
        let errors = child.stderr.take();
        let messages = errors.map(|mut pipe| {
            std::thread::spawn(move || {
                let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
                while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                    text.extend_from_slice(&buffer[..n.min(MESSAGES.saturating_sub(text.len()))]);
                }
                String::from_utf8_lossy(&text).trim().replace('\n', "; ")
            })
        });
        Ok(Ffmpeg { child, messages })
    }

    /// Wait for its end; gives what it said, behind a colon. An error where it failed, with the same.
    pub fn finish(&mut self, what: &str) -> Result<String> {
        let status = self.child.wait().context("ffmpeg")?;
        let said = self.messages.take().and_then(|m| m.join().ok()).unwrap_or_default();
        if !status.success() {
            let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
            bail!("{what}: ffmpeg ended with {status}: {said}");
        }
        Ok(if said.is_empty() { said } else { format!(": {said}") })
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
