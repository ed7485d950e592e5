//! Every command names each file that it wrote, as text and with `--json`.

mod common;

use common::{PACK, Work, captioner, model, picture, rockshard};
use rockshard_tensor::{Tensor, write_npy};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Commands, with all options that write. `{out}` is an empty directory, `{pack}` a pack, `{npy}` the inputs of its decoder.
const COMMANDS: [&str; 13] = [
    "convert {model} --out {out}/pack --golden",
    "convert {captioner} --out {out}/pack",
    "inspect {pack} --graph {out}/pack.dot",
    "plan {pack} --timeline {out}/plan.svg --trace {out}/plan.json",
    "generate {pack} --prompt a --steps 1 --out {out}/a.png --timeline {out}/time.svg",
    "generate {pack} --prompt a --steps 1 --count 2 --out {out}/a.png",
    "stream {pack} --prompt a --frames 2 --to {out}/frames",
    "stream {pack} --prompt a --frames 2 --to {out}/frames.mp4",
    "run {pack} --model taesd_decoder --input {npy} --out {out} --trace {out}/trace.json",
    "validate {pack} --report {out}/report.html",
    "validate {pack} --threshold 0.99999999 --report {out}/report.html",
    "demo --out {out}",
    "caption {describes} {picture}",
];

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What a command printed last, where it printed several values.
fn last(json: &str) -> Value {
    serde_json::Deserializer::from_str(json).into_iter().last().unwrap().unwrap()
}

/// The inputs of the decoder, as they are typed.
fn inputs(work: &Work) -> String {
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(PACK.1.join("manifest.json")).unwrap()).unwrap();
    let models = manifest["models"].as_array().unwrap();
    let input = &models.iter().find(|m| m["name"] == "taesd_decoder").unwrap()["inputs"][0];
    let shape: Vec<usize> = serde_json::from_value(input["shape"].clone()).unwrap();
    let count = shape.iter().product();
    let (path, mut bytes) = (work.path("input.npy"), Vec::new());
    write_npy(&Tensor::from_f32(shape, vec![0.5; count]), &mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    format!("{}={}", input["name"].as_str().unwrap(), path.display())
}

#[test]
fn every_file_that_was_written_is_named() {
    check(&COMMANDS);
}

#[test]
#[ignore = "bench takes minutes"]
fn the_chart_of_bench_is_named() {
    check(&["bench {pack} --frames 8 --chart {out}/chart.svg"]);
}

fn check(commands: &[&str]) {
    let work = Work::new();
    let describes = work.path("describes");
    rockshard(&["convert", captioner().to_str().unwrap(), "--out", describes.to_str().unwrap()])
        .success();
    let npy = inputs(&work);
    let ffmpeg = std::process::Command::new("ffmpeg").arg("-version").output().is_ok();
    for (i, command) in commands.iter().enumerate().filter(|(_, c)| ffmpeg || !c.contains(".mp4")) {
        for json in [false, true] {
            let out = work.path(&format!("out-{i}-{json}"));
            std::fs::create_dir(&out).unwrap();
            let place = |word: &str| {
                word.replace("{out}", out.to_str().unwrap())
                    .replace("{pack}", PACK.1.to_str().unwrap())
                    .replace("{describes}", describes.to_str().unwrap())
                    .replace("{model}", model().to_str().unwrap())
                    .replace("{captioner}", captioner().to_str().unwrap())
                    .replace("{picture}", picture().to_str().unwrap())
                    .replace("{npy}", &npy)
            };
            let mut args: Vec<String> = command.split(' ').map(place).collect();
            args.push("--quiet".into());
            args.extend(json.then(|| "--json".to_owned()));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let run = rockshard(&args);
            assert!(matches!(run.output.status.code(), Some(0 | 3)), "{args:?}\n{}", run.stderr());
            let written = files(&out);
            assert_eq!(written.is_empty(), command.starts_with("caption"), "{command}");
            let named: Vec<PathBuf> = if json {
                let value = last(&run.stdout());
                let list = value["written_files"].as_array().cloned().unwrap_or_default();
                list.iter().map(|f| f["path"].as_str().unwrap().into()).collect()
            } else {
                let text = run.stdout();
                let words =
                    text.split_whitespace().filter(|w| w.starts_with(out.to_str().unwrap()));
                words.map(PathBuf::from).collect()
            };
            assert!(named.iter().all(|path| path.exists()), "{command}: {named:?}");
            for file in written {
                let known = named.iter().any(|n| *n != out && file.starts_with(n));
                assert!(known, "{command}, as JSON {json}: {} is not named", file.display());
            }
        }
    }
}
