//! What people read has lines of at most 100 columns, of whatever pack it is; paths that they gave may be longer.

mod common;

use common::{Work, captioner, model, picture, rockshard};
use std::path::Path;
use std::process::Command;

const COLUMNS: usize = 100;

/// Ways of converting that make tables of other sizes.
const CONVERSIONS: [&[&str]; 5] = [
    &[],
    &["--shards", "block", "--tile", "grid:32x32", "--check"],
    &["--placement", "split"],
    &["--placement", "replicate", "--shards", "1", "--precompute-kv"],
    &["--golden", "--golden-steps", "2", "--sandwich", "0.5"],
];

/// No line of what a command prints may be too long, but for those with a path of the test's, or with nothing but a name of the model's.
fn measure(work: &Path, args: &[&str], codes: &[i32]) {
    let run = rockshard(args);
    let code = run.output.status.code().unwrap();
    assert!(codes.contains(&code), "rockshard {}: {code}\n{}", args.join(" "), run.stderr());
    let path = work.display().to_string();
    // The words of an answer are the model's; what they took is told on standard error.
    let text = if args[0] == "caption" { run.stderr() } else { run.stdout() };
    assert!(!text.is_empty());
    for line in text.lines().filter(|line| !line.contains(&path)) {
        let columns = line.chars().count();
        let name = !line.trim().contains(' ');
        assert!(
            name || columns <= COLUMNS,
            "rockshard {}: {columns} columns:\n{line}",
            args.join(" ")
        );
    }
}

#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn lines_about_a_diffusion_model_fit() {
    let work = Work::new();
    for (i, options) in CONVERSIONS.iter().enumerate() {
        let (model, pack) = (model(), work.path(&format!("pack-{i}")));
        let (model, pack) = (model.to_str().unwrap(), pack.to_str().unwrap());
        let root = work.path("");
        measure(&root, &[&["convert", model, "--out", pack], *options].concat(), &[0]);
        for command in [
            &["inspect", pack][..],
            &["inspect", pack, "--why"],
            &["inspect", pack, "--layers"],
            &["plan", pack],
            &["plan", pack, "--optimise", "throughput"],
            &["plan", pack, "--optimise", "memory", "--cores", "1"],
        ] {
            measure(&root, command, &[0]);
        }
        if !options.contains(&"split") {
            measure(&root, &["validate", pack], &[0]);
            measure(&root, &["validate", pack, "--threshold", "0.99999999"], &[3]);
        }
    }
    let (root, pack, out) = (work.path(""), work.path("pack-0"), work.path("out"));
    let (pack, out) = (pack.to_str().unwrap(), out.to_str().unwrap());
    measure(&root, &["stream", pack, "--prompt", "a", "--frames", "2", "--to", out], &[0]);
    measure(&root, &["doctor"], &[0]);
    measure(&root, &["demo", "--out", out], &[0]);
}

#[test]
#[ignore = "bench takes minutes"]
fn lines_of_bench_fit() {
    let pack = common::PACK.1.to_str().unwrap();
    measure(Path::new(pack), &["bench", pack, "--frames", "8"], &[0]);
}

#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn lines_about_a_vision_language_model_fit() {
    let work = Work::new();
    let (root, image) = (work.path(""), picture());
    for (i, options) in CONVERSIONS.iter().enumerate().filter(|(i, _)| *i != 3) {
        let (model, pack) = (captioner(), work.path(&format!("pack-{i}")));
        let (model, pack) = (model.to_str().unwrap(), pack.to_str().unwrap());
        let options = [*options, &["--lm-weights", ["32", "8", "4"][i % 3]]].concat();
        measure(&root, &[&["convert", model, "--out", pack], &options[..]].concat(), &[0]);
        for command in [
            &["inspect", pack, "--why", "--layers"][..],
            &["plan", pack],
            &["validate", pack, "--threshold", "0.99999999"],
            &["caption", pack, image.to_str().unwrap()],
        ] {
            measure(&root, command, &[0, 3]);
        }
    }
}

/// Errors and warnings are folded on a terminal; in a file or a pipe each is one line.
#[test]
fn errors_are_folded_on_a_terminal_only() {
    let pack = &common::PACK.1;
    let program = env!("CARGO_BIN_EXE_rockshard");
    let error = rockshard(&["run", pack.to_str().unwrap()]).exits(1);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.trim().len() > COLUMNS, "too short to be folded: {error}");
    let line = format!("{program} run {}", pack.display());
    // It gives a command a terminal of its own.
    let Ok(output) = Command::new("script").args(["-qec", &line, "/dev/null"]).output() else {
        eprintln!("not tested: util-linux has no script here");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.trim().lines().count() > 1, "{text}");
    assert!(text.lines().all(|line| line.trim_end().chars().count() <= COLUMNS), "{text}");
    assert_eq!(common::unfolded(&text), common::unfolded(&error));
}
