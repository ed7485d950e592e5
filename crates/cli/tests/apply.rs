//! What `plan` says to type does what it says.

mod common;

use common::{Work, captioner, model, picture, rockshard, unfolded};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The commands of a plan.
fn apply(pack: &Path, aim: &str) -> Vec<String> {
    let args = ["plan", pack.to_str().unwrap(), "--optimise", aim];
    let value: Value =
        serde_json::from_str(&rockshard(&[&args[..], &["--json"]].concat()).success()).unwrap();
    let commands = value["apply"].as_array().unwrap();
    let commands: Vec<String> =
        commands.iter().map(|c| c["command"].as_str().unwrap().to_owned()).collect();
    let text = rockshard(&args).success();
    assert!(commands.iter().all(|c| text.lines().any(|l| l.trim() == c)), "{text}");
    assert!(commands[0].contains("--mode") || commands[0].contains("convert"), "{commands:?}");
    commands
}

/// Type a command in a shell, with what its words in capitals stand for.
fn type_it(work: &Path, command: &str, model: &Path) {
    let bin = Path::new(env!("CARGO_BIN_EXE_rockshard")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let line = command
        .replace("MODEL", model.to_str().unwrap())
        .replace("IMAGE", picture().to_str().unwrap());
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &line]).current_dir(work).env("PATH", path).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{error}");
}

/// Convert a model, type all that the plans for these aims say, and plan the packs that were made so.
fn commands_work(model: &Path, options: &[&str], aims: &[&str], made: &[&str]) {
    let work = Work::new();
    // A name that a shell takes apart if it is not quoted.
    let pack = work.path("my pack");
    let args = ["convert", model.to_str().unwrap(), "--out", pack.to_str().unwrap(), "--quiet"];
    rockshard(&[&args[..], options].concat()).success();
    for aim in aims {
        for command in apply(&pack, aim) {
            type_it(&work.path(""), &command, model);
        }
    }
    for made in made {
        rockshard(&["plan", work.path(made).to_str().unwrap()]).success();
    }
}

#[test]
fn commands_of_a_plan_work_when_they_are_typed() {
    let made = ["my pack-split", "my pack-replicate", "my pack-small"];
    commands_work(&model(), &[], &["latency", "throughput", "memory"], &made);
}

#[test]
fn commands_for_a_divided_pack_work_when_they_are_typed() {
    commands_work(&model(), &["--placement", "split"], &["latency", "throughput"], &[]);
}

#[test]
fn commands_for_a_captioner_work_when_they_are_typed() {
    let aims = ["latency", "throughput", "memory"];
    commands_work(&captioner(), &["--shards", "block"], &aims, &["my pack-split"]);
}

/// A pack that has what the aim asks for is not to be converted again.
#[test]
fn a_pack_that_suits_the_aim_is_run_as_it_is() {
    let work = Work::new();
    let pack = work.path("split");
    work.convert(&pack, &["--placement", "split"]);
    assert_eq!(apply(&pack, "latency").len(), 1);
    assert!(apply(&pack, "throughput")[1].contains("--placement replicate"));
}

/// Each word of the tables is explained.
#[test]
fn words_of_a_plan_are_explained() {
    let out = rockshard(&["plan", common::PACK.1.to_str().unwrap()]).success();
    let (tables, words) = out.split_once("Words, all figures modelled:").unwrap();
    let explained = |word: &str| words.lines().any(|l| l.trim_start().starts_with(word));
    let heading = tables.lines().find(|l| l.trim_start().starts_with("mode")).unwrap();
    for word in
        unfolded(&heading.replace("one item", "one_item").replace("busy %", "busy_%")).split(' ')
    {
        let word = word.replace('_', " ");
        assert!(["mode", "cores"].contains(&&*word) || explained(&word), "{word} in {words}");
    }
    let rows = tables.lines().filter(|l| l.starts_with("  ") || l.starts_with("* "));
    for row in rows.filter(|l| !l.trim_start().starts_with("mode")) {
        let name = row[2..11].trim();
        assert!(explained(name), "{name} in {words}");
    }
}
