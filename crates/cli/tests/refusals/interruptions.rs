//! Conversions that are killed half-way go on where they were, or start again.

use crate::packs::flip;
use crate::scratch::Scratch;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::SystemTime;

/// Calibration makes it long enough to be interrupted.
const LONG: &str = "convert tiny-lcm --sandwich auto --shards block --out out/pack";
/// A line of progress; two of four models are done then.
const HALF: &str = "convert: vae_encoder: reading";

/// Start a conversion and kill it half-way; gives the files that were finished, and when they were written.
fn interrupted(scratch: &Scratch) -> Vec<(String, SystemTime)> {
    let mut child =
        scratch.command(LONG).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with(HALF)));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "the conversion ended before it was killed");
    assert!(!scratch.path("out/pack").exists());
    let journal = fs::read_to_string(scratch.path("out/.pack.partial/journal")).unwrap();
    let names = journal.lines().skip(1).filter_map(|line| line.split(' ').nth(2));
    let finished: Vec<_> = names
        .map(|n| (n.to_owned(), written(scratch, &format!("out/.pack.partial/{n}"))))
        .collect();
    assert!(finished.iter().any(|(n, _)| n.starts_with("shards/unet")), "{journal}");
    finished
}

fn written(scratch: &Scratch, file: &str) -> SystemTime {
    scratch.path(file).metadata().unwrap().modified().unwrap()
}

/// The pack at `out/pack` has the same files as one converted without interruption, and nothing lies beside it.
fn is_complete(scratch: &Scratch) {
    scratch.succeeds(&LONG.replace("out/pack", "whole"));
    assert_eq!(scratch.manifest("out/pack")["files"], scratch.manifest("whole")["files"]);
    scratch.succeeds("generate out/pack --prompt red --steps 1 --out picture.png");
    let beside: Vec<_> =
        fs::read_dir(scratch.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["pack"]);
}

#[test]
fn an_interrupted_conversion_resumes() {
    let scratch = Scratch::with_model();
    let finished = interrupted(&scratch);
    // One of the finished files is damaged meanwhile: only it is made again, with the graph it belongs to.
    let damaged = finished.iter().find(|(n, _)| n.ends_with(".onnx_data")).unwrap().0.clone();
    scratch.alter(&format!("out/.pack.partial/{damaged}"), flip);
    scratch.succeeds(&format!("{LONG} --resume"));
    for (name, time) in &finished {
        let kept = written(&scratch, &format!("out/pack/{name}")) == *time;
        assert_eq!(kept, !damaged.starts_with(name.as_str()), "{name}");
    }
    is_complete(&scratch);
}

/// All files that an interrupted conversion had finished were made again.
fn started_again(scratch: &Scratch, finished: &[(String, SystemTime)]) {
    for (name, time) in finished {
        assert!(written(scratch, &format!("out/pack/{name}")) > *time, "{name}");
    }
}

#[test]
fn an_interrupted_conversion_starts_again_without_resume() {
    let scratch = Scratch::with_model();
    let finished = interrupted(&scratch);
    scratch.succeeds(LONG);
    started_again(&scratch, &finished);
    is_complete(&scratch);
}

#[test]
fn other_options_or_another_model_do_not_resume() {
    let change_options = |_: &Scratch| LONG.replace("auto", "4");
    let change_model = |scratch: &Scratch| {
        scratch.alter("tiny-lcm/tokenizer/tokenizer_config.json", |bytes| bytes.push(b'\n'));
        LONG.to_owned()
    };
    for change in [&change_options as &dyn Fn(&Scratch) -> String, &change_model] {
        let scratch = Scratch::with_model();
        let finished = interrupted(&scratch);
        scratch.succeeds(&format!("{} --resume", change(&scratch)));
        started_again(&scratch, &finished);
    }
}
