//! Ctrl-C ends commands between shards with exit code 130 and leaves nothing half-written.
#![cfg(unix)]

mod common;

use common::{Work, model};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time from Ctrl-C to the end: a shard of the bundled model takes milliseconds.
const PROMPTLY: Duration = Duration::from_secs(20);

/// Start the program, wait until it prints `line` on standard error, and type Ctrl-C; gives what it printed after.
fn interrupt(args: &[&str], line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
    let mut child =
        command.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains(line) {
        assert!(lines.read_line(&mut text).unwrap() > 0, "{line:?} was never printed: {text}");
    }
    signal(&child);
    let start = Instant::now();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    assert!(start.elapsed() < PROMPTLY, "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(130), "{text}{rest}");
    rest
}

fn signal(child: &Child) {
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn commands_end_between_shards() {
    let work = Work::new();
    let pack = work.path("pack");
    let pack_name = pack.to_str().unwrap();

    let source = model();
    let convert = ["convert", source.to_str().unwrap(), "--out", pack_name, "--shards", "layer"];
    let text = interrupt(&convert, "convert: unet");
    assert!(text.contains("interrupted; the same command with --resume goes on"), "{text}");
    let partial = work.path(".pack.partial");
    assert!(partial.join("journal").is_file() && !pack.exists());
    let finished = std::fs::read_to_string(partial.join("journal")).unwrap().lines().count();
    assert!(finished > 2, "the journal has {finished} lines");
    common::rockshard(&[&convert[..], &["--resume", "--quiet"]].concat()).success();

    let out = work.path("picture.png");
    let args = [
        "generate",
        pack_name,
        "--prompt",
        "a red ring",
        "--steps",
        "50",
        "--count",
        "8",
        "--out",
        out.to_str().unwrap(),
    ];
    let text = interrupt(&args, "generate: sampling");
    assert!(
        text.contains("rockshard: stopping after what is running now")
            && text.contains("rockshard: interrupted"),
        "{text}"
    );

    let report = work.path("report.html");
    let text =
        interrupt(&["validate", pack_name, "--report", report.to_str().unwrap()], "validate: unet");
    assert!(text.contains("interrupted; no report was written"), "{text}");

    let left: Vec<_> =
        std::fs::read_dir(work.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["pack"]);
}
