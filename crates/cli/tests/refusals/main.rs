//! Bad input is refused: the program says what is wrong and where, exits with 1 (2 when it was called wrongly), does not panic, and
//! leaves no part of a pack or picture behind.
#![cfg(unix)]

mod models;
mod scratch;

use models::{Extent, OPSET, encode, good, model, node, product, value, weight, with_external};
use rockshard_onnx::schema::ModelProto;
use rockshard_tensor::{Tensor, write_npy};
use scratch::Scratch;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

const CONVERT: &str = "convert model.onnx --out pack";
const GENERATE: &str = "generate pack --prompt red --steps 1 --out picture.png";

/// `convert` refuses a file.
fn refuses_bytes(bytes: impl AsRef<[u8]>, parts: &[&str]) {
    let scratch = Scratch::new();
    scratch.write("model.onnx", bytes);
    scratch.refuses(CONVERT, parts);
}

/// `convert` refuses a model.
fn refuses_model(model: &ModelProto, parts: &[&str]) {
    refuses_bytes(encode(model), parts);
}

// What is converted.

#[test]
fn a_good_model_converts() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&good()));
    scratch.succeeds(CONVERT);
    assert!(
        scratch.path("pack/manifest.json").is_file() && !scratch.path(".pack.partial").exists()
    );
}

#[test]
fn truncated_onnx() {
    let whole = encode(&good());
    for length in [1, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        refuses_bytes(&whole[..length], &["model.onnx", "not an ONNX model, or cut short"]);
    }
    refuses_bytes([], &["model.onnx", "the model has no graph"]);
}

#[test]
fn garbage_onnx() {
    refuses_bytes(
        "<html>404: not found</html>\n",
        &["model.onnx", "not an ONNX model, or cut short"],
    );
    refuses_bytes([0xff; 4096], &["model.onnx", "not an ONNX model, or cut short"]);
}

#[test]
fn a_source_that_is_no_model() {
    let scratch = Scratch::new();
    scratch.refuses("convert gone --out pack", &["gone: no such file or directory"]);
    fs::create_dir(scratch.path("empty")).unwrap();
    scratch.refuses("convert empty --out pack", &["empty: is no model that is known"]);
    fs::create_dir(scratch.path("empty/unet")).unwrap();
    scratch.refuses("convert empty --out pack", &["empty: text_encoder/model.onnx is missing"]);
}

#[test]
fn external_data_outside_the_directory() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("model")).unwrap();
    scratch.write("x", [0; 64]);
    let outside = scratch.path("x");
    for location in ["../x", "a/../../x", outside.to_str().unwrap()] {
        scratch.write("model/m.onnx", encode(&with_external(location)));
        let parts = [
            "product",
            "tensor \"w\"",
            "external data",
            location,
            "is not made of plain relative components",
        ];
        scratch.refuses("convert model/m.onnx --out pack", &parts);
    }
}

#[test]
fn external_data_missing() {
    refuses_model(&with_external("gone.data"), &["tensor \"w\"", "gone.data", "No such file"]);
}

#[test]
fn external_data_too_short() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&with_external("short.data")));
    scratch.write("short.data", [0; 63]);
    scratch.refuses(CONVERT, &["tensor \"w\"", "needs bytes 0..64 of", "short.data, which has 63"]);
}

#[test]
fn cyclic_graph() {
    let cycle = |first: &str, second: &str| {
        [node(first, "Add", "x b", "a"), node(second, "Relu", "a", "b")]
    };
    let after = node("after", "Relu", "b", "y");
    for order in [[0, 1, 2], [2, 1, 0]] {
        let [first, second] = cycle("first", "second");
        let nodes = [first, second, after.clone()];
        let scratch = Scratch::new();
        scratch.write("model.onnx", encode(&model(order.map(|i| nodes[i].clone()).to_vec())));
        let ran = scratch.run(CONVERT);
        // Either node of the cycle may be named, but not the one after it.
        let names = ["first", "second"].map(|n| {
            ran.stderr.contains(&format!("the graph is cyclic: node {n:?} needs its own output"))
        });
        assert!(names.contains(&true), "{}", ran.stderr);
        scratch.refuses(CONVERT, &["model.onnx", "cyclic"]);
    }
    refuses_model(
        &model(vec![node("self", "Add", "x y", "y")]),
        &["the graph is cyclic: node \"self\""],
    );
}

#[test]
fn nan_weights() {
    let mut values = [0.5; 16];
    values[7] = f32::NAN;
    let mut model = good();
    model.graph.as_mut().unwrap().initializer[0] = weight(&values);
    refuses_model(&model, &["model: weight \"w\" of node \"product\" contains NaN"]);
}

#[test]
fn unsupported_operator() {
    let odd = node("detector/odd", "NonMaxSuppression", "x w", "y");
    refuses_model(
        &model(vec![odd.clone()]),
        &["node \"detector/odd\" (NonMaxSuppression, opset 17): operator is not supported"],
    );
    let mut foreign = odd;
    foreign.domain = Some("com.example".into());
    refuses_model(
        &model(vec![foreign]),
        &["node \"detector/odd\" (NonMaxSuppression, opset 17)", "domain \"com.example\""],
    );
}

#[test]
fn unsupported_opset() {
    for opset in [1, OPSET - 4, 20, i64::MAX] {
        let mut model = good();
        model.opset_import[0].version = Some(opset);
        let number = format!("opset {opset} is not supported");
        refuses_model(
            &model,
            &["model.onnx", &number, "export the model with an opset from 14 to 19"],
        );
    }
}

#[test]
fn dynamic_shape() {
    let mut model = good();
    model.graph.as_mut().unwrap().input[0] =
        value("x", &[Extent::Named("batch"), Extent::Fixed(4)]);
    refuses_model(
        &model,
        &[
            "model.onnx",
            "input \"x\": dimension 0 (batch) is dynamic and nothing fixes it",
            "known dimensions: none",
        ],
    );
}

#[test]
fn inputs_and_outputs_that_nothing_makes() {
    refuses_model(
        &model(vec![node("sum", "Add", "x ghost", "y")]),
        &["node \"sum\" (Add, opset 17)", "\"ghost\" is made by no node"],
    );
    refuses_model(
        &model(vec![node("product", "MatMul", "x w", "z")]),
        &["output \"y\" is made by no node"],
    );
}

#[test]
fn shapes_that_do_not_fit() {
    let mut model = model(vec![product()]);
    model.graph.as_mut().unwrap().input[0] = value("x", &[Extent::Fixed(1), Extent::Fixed(5)]);
    refuses_model(&model, &["node \"product\" (MatMul, opset 17)", "5"]);
}

// How it is converted.

#[test]
fn resolutions() {
    let scratch = Scratch::with_model();
    let convert = |size: &str| format!("convert tiny-lcm --out pack --resolution={size}");
    scratch.refuses(
        &convert("100x128"),
        &["resolution 100x128: width and height must be divisible by 8"],
    );
    scratch.refuses(
        &convert("128x132"),
        &["resolution 128x132: width and height must be divisible by 8"],
    );
    scratch.refuses(&convert("8x8"), &["resolution 8x8: width and height must be from 64 to 2048"]);
    for size in ["128", "0x128", "-8x8", "axb"] {
        scratch.misuses(&convert(size), &["--resolution", size]);
    }
}

#[test]
fn existing_output() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&good()));
    fs::create_dir(scratch.path("pack")).unwrap();
    scratch.write("pack/mine", "keep this");
    scratch.write("file", "keep this");
    for out in ["pack", "pack/", "file", "."] {
        let message = format!("{out} exists already; remove it or choose another --out");
        scratch.refuses(&format!("convert model.onnx --out {out}"), &[&message]);
        scratch.refuses(&format!("convert model.onnx --resume --out {out}"), &[&message]);
    }
    for file in ["pack/mine", "file"] {
        assert_eq!(fs::read_to_string(scratch.path(file)).unwrap(), "keep this");
    }
}

#[test]
fn more_shards_than_nodes() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&good()));
    scratch
        .refuses(&format!("{CONVERT} --shards 5"), &["model: 5 shards asked for", "only 1 nodes"]);
    scratch.misuses(&format!("{CONVERT} --shards 0"), &["--shards"]);
}

/// A file system of 1 MiB, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder)
            .output();
        let mounted = output.is_ok_and(|o| o.status.success());
        if !mounted {
            // Not `eprintln`, which the test harness hides.
            let _ = writeln!(std::io::stderr(), "NOT RUN: full disk (mounting a tmpfs needs root)");
        }
        mounted.then(|| SmallDisk(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status().is_ok_and(|s| s.success());
        assert!(unmounted || std::thread::panicking(), "{} stays mounted", self.0.display());
    }
}

#[test]
fn full_disk_while_converting() {
    let scratch = Scratch::with_model();
    let Some(_disk) = SmallDisk::mount(&scratch.path("disk")) else { return };
    let full = ["disk/.pack.partial/", "No space left on device"];
    scratch.refuses("convert tiny-lcm --out disk/pack --sandwich off", &full);
    scratch.refuses("convert tiny-lcm --out disk/pack --sandwich auto", &full);
}

#[test]
fn full_disk_while_drawing() {
    let scratch = Scratch::with_pack();
    let Some(_disk) = SmallDisk::mount(&scratch.path("disk")) else { return };
    fs::write(scratch.path("disk/filling"), vec![0; 2 << 20]).unwrap_err();
    scratch.refuses(
        "generate pack --prompt red --steps 1 --out disk/picture.png",
        &["disk/picture.png", "no space left"],
    );
}

// Packs.

/// A command refuses the pack after a file of it was changed, and names the file.
fn refuses_altered(
    line: &str,
    start: &str,
    end: &str,
    problem: &str,
    change: impl FnOnce(&mut Vec<u8>),
) {
    let scratch = Scratch::with_pack();
    let file = scratch.listed("pack", start, end);
    scratch.alter(&format!("pack/{file}"), change);
    scratch.refuses(line, &[&format!("pack/{file}"), problem, "convert it again"]);
}

/// Takes a vector as every change does.
#[allow(clippy::ptr_arg)]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn shorten(bytes: &mut Vec<u8>) {
    bytes.pop();
}

const FLIPPED: &str = "its SHA-256 is not the manifest's";
const SHORTENED: &str = "bytes, the manifest says";

#[test]
fn flipped_byte_in_a_pack() {
    refuses_altered(GENERATE, "shards/unet", ".onnx_data", FLIPPED, flip);
    refuses_altered(GENERATE, "shards/vae_decoder", ".onnx", FLIPPED, flip);
    refuses_altered(GENERATE, "sampler.json", "", FLIPPED, flip);
    refuses_altered(GENERATE, "tokenizer/", "vocab.json", FLIPPED, flip);
}

#[test]
fn flipped_byte_in_a_reference() {
    refuses_altered(
        "validate pack --report report.html",
        "reference/unet",
        ".onnx_data",
        FLIPPED,
        flip,
    );
    refuses_altered(
        "validate pack --report report.html",
        "reference/text_encoder",
        ".onnx",
        FLIPPED,
        flip,
    );
    let on_the_reference = format!("{GENERATE} --device cpu");
    refuses_altered(&on_the_reference, "reference/vae_decoder", ".onnx_data", FLIPPED, flip);
}

#[test]
fn shortened_file_in_a_pack() {
    refuses_altered(GENERATE, "shards/unet", ".onnx_data", SHORTENED, shorten);
    refuses_altered(GENERATE, "shards/unet", ".onnx", SHORTENED, shorten);
    refuses_altered(GENERATE, "shards/text_encoder", ".onnx_data", SHORTENED, Vec::clear);
    refuses_altered("validate pack", "reference/vae_encoder", ".onnx_data", SHORTENED, shorten);
}

#[test]
fn missing_file_in_a_pack() {
    for (start, end) in [
        ("shards/unet", ".onnx"),
        ("shards/unet", ".onnx_data"),
        ("sampler.json", ""),
        ("tokenizer/", "merges.txt"),
    ] {
        let scratch = Scratch::with_pack();
        let file = format!("pack/{}", scratch.listed("pack", start, end));
        fs::remove_file(scratch.path(&file)).unwrap();
        scratch.refuses(GENERATE, &[&file, "No such file"]);
    }
}

#[test]
fn manifests() {
    type Change = fn(&str) -> String;
    let cases: [(Change, &[&str]); 7] = [
        (
            |t| t.replacen("\"schema\": 1", "\"schema\": 999", 1),
            &["schema 999 is newer than 1", "update rockshard"],
        ),
        (
            |_| "{\"schema\": 999, \"cells\": {}}".into(),
            &["schema 999 is newer than 1", "update rockshard"],
        ),
        (|_| "garbage".into(), &["expected value at line 1 column 1"]),
        (|_| String::new(), &["EOF while parsing"]),
        (|t| t[..t.len() / 2].into(), &["EOF while parsing", "line"]),
        (|t| t.replacen("\"target\"", "\"tarqet\"", 1), &["unknown field `tarqet`", "line"]),
        (
            |t| t.replacen("\"sampler.json\"", "\"../sampler.json\"", 1),
            &["\"../sampler.json\" is not made of plain relative components"],
        ),
    ];
    for (change, parts) in cases {
        let scratch = Scratch::with_pack();
        scratch.alter("pack/manifest.json", |bytes| {
            *bytes = change(std::str::from_utf8(bytes).unwrap()).into_bytes()
        });
        let parts = [&["pack: manifest.json: "], parts].concat();
        for line in ["inspect pack", "validate pack", "run pack --model unet", GENERATE] {
            scratch.refuses(line, &parts);
        }
    }
}

#[test]
fn a_directory_that_is_no_pack() {
    let scratch = Scratch::new();
    for line in ["inspect gone", "generate gone --prompt red", "run gone", "validate gone"] {
        scratch.refuses(
            line,
            &[
                "gone/manifest.json",
                "No such file",
                "a pack is a directory that `rockshard convert` wrote",
            ],
        );
    }
}

// Pictures.

#[test]
fn a_prompt_of_ten_thousand_words_is_cut_with_a_warning() {
    let scratch = Scratch::with_pack();
    let mut command = scratch.command("generate pack --steps 1 --json --out picture.png --prompt");
    let output = command.arg("red ".repeat(10_000)).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // 77 ids, of which two mark begin and end.
    assert_eq!(result["dropped_tokens"], 10_000 - 75);
    assert!(
        stderr.contains("the prompt is too long: 9925 tokens at its end were dropped"),
        "{stderr}"
    );
    assert!(!stderr.contains('\x1b'), "escape sequences in a log that is no terminal: {stderr}");
    assert!(scratch.path("picture.png").is_file());
}

#[test]
fn requests_that_a_model_cannot_do() {
    let scratch = Scratch::with_pack();
    let generate =
        |options: &str| format!("generate pack --prompt red --out picture.png {options}");
    for (options, parts) in [
        ("--size 100x128", &["size 100x128 is not possible", "multiples of 8"] as &[&str]),
        (
            "--size 256x256",
            &["size 256x256 is not in this pack, which has 128x128", "--resolution 256x256"],
        ),
        ("--steps 0", &["at least 1 step is needed"]),
        ("--steps 100000", &["100000 steps are too many"]),
        ("--count 0", &["0 pictures were asked for; ask for 1 to 256"]),
        ("--count 257", &["257 pictures were asked for; ask for 1 to 256"]),
        ("--guidance nan", &["guidance NaN is not a finite number"]),
        (
            "--negative blue",
            &["this model takes guidance as an input", "has no negative prompt; leave it out"],
        ),
    ] {
        scratch.refuses(&generate(options), parts);
    }
    for (options, parts) in [
        ("--cores 0", &["--cores", "0 is not in 1..=3"] as &[&str]),
        ("--cores 4", &["--cores", "4 is not in 1..=3"]),
        ("--size 128", &["--size", "\"128\" is not WIDTHxHEIGHT"]),
        ("--steps=-1", &["--steps", "invalid digit"]),
        ("--device gpu", &["--device", "sim, cpu, rknn"]),
    ] {
        scratch.misuses(&generate(options), parts);
    }
}

#[test]
fn initial_pictures() {
    let scratch = Scratch::with_pack();
    scratch.succeeds("generate pack --prompt red --steps 1 --out initial.png");
    let generate =
        |options: &str| format!("generate pack --prompt red --out picture.png {options}");
    for strength in ["0", "-0.5", "1.01", "nan", "inf"] {
        scratch.misuses(
            &generate(&format!("--init-image initial.png --strength={strength}")),
            &["--strength", "above 0 up to 1"],
        );
        scratch.misuses(
            &generate(&format!("--strength={strength}")),
            &["--strength", "above 0 up to 1"],
        );
    }
    scratch.refuses(&generate("--init-image gone.png"), &["gone.png: No such file"]);
    scratch.write("text.png", "no picture");
    scratch
        .refuses(&generate("--init-image text.png"), &["text.png: not a picture that can be read"]);
    scratch.alter("initial.png", |bytes| bytes.truncate(100));
    scratch.refuses(
        &generate("--init-image initial.png"),
        &["initial.png: not a picture that can be read"],
    );
}

#[cfg(not(feature = "rknn"))]
#[test]
fn the_real_npu_is_not_in_this_build() {
    let scratch = Scratch::with_pack();
    for line in [GENERATE, "validate pack", "run pack --model unet"] {
        scratch.refuses(
            &format!("{line} --device rknn"),
            &["device rknn: this build has no support for the real NPU"],
        );
    }
}

// Runs with given inputs.

fn npy(tensor: &Tensor) -> Vec<u8> {
    let mut file = Vec::new();
    write_npy(tensor, &mut file).unwrap();
    file
}

#[test]
fn inputs_of_a_run() {
    let scratch = Scratch::new();
    scratch.write("small.onnx", encode(&good()));
    scratch.succeeds("convert small.onnx --out pack");
    let good = npy(&Tensor::from_f32([1, 4], vec![1.0; 4]));
    scratch.write("x.npy", &good);
    scratch.write("wide.npy", npy(&Tensor::from_f32([1, 5], vec![1.0; 5])));
    scratch.write("whole.npy", npy(&Tensor::from_i64([1, 4], vec![1; 4])));
    scratch.write("text.npy", "no numbers");
    scratch.write("cut.npy", &good[..good.len() - 1]);
    scratch.write("header.npy", &good[..20]);
    scratch.write(
        "double.npy",
        String::from_utf8_lossy(&npy(&Tensor::from_bool([4], vec![true; 4]))).replace("|b1", "<f8"),
    );
    for (inputs, parts) in [
        ("", &["model small", "input \"x\" is missing"] as &[&str]),
        ("--input z=x.npy", &["model small", "input \"x\" is missing"]),
        (
            "--input x=x.npy --input z=x.npy",
            &["model small", "there is no input \"z\"; the inputs are x"],
        ),
        ("--input x=wide.npy", &["model small", "input \"x\" is float32[1, 4], got", "[1, 5]"]),
        ("--input x=whole.npy", &["model small", "input \"x\" is float32[1, 4], got", "int64"]),
        ("--input x.npy", &["input \"x.npy\" is not NAME=FILE.npy"]),
        ("--input x=gone.npy", &["gone.npy: No such file"]),
        ("--input x=text.npy", &["text.npy: not an npy file: no npy magic"]),
        ("--input x=cut.npy", &["cut.npy: shape [1, 4] of float32 takes 16 bytes, found 15"]),
        ("--input x=header.npy", &["header.npy: not an npy file: cut short"]),
        ("--input x=x.npy --model other", &["the pack has no model \"other\"; it has small"]),
    ] {
        scratch.refuses(&format!("run pack --out out {inputs}"), parts);
    }
    scratch.succeeds("run pack --out out --input x=x.npy");
    assert!(scratch.path("out/y.npy").is_file());
}

#[test]
fn a_pack_of_several_models_needs_a_choice() {
    let scratch = Scratch::with_pack();
    scratch.refuses("run pack", &["the pack has models text_encoder, unet, vae_encoder, vae_decoder; choose one with --model"]);
}

// Interruption.

/// Calibration makes it long enough to be interrupted.
const LONG: &str = "convert tiny-lcm --sandwich auto --shards block --out out/pack";
/// A line of progress; two of four models are done then.
const HALF: &str = "convert: vae_encoder";

/// Start a conversion and kill it half-way; gives the files that were finished, and when they were written.
fn interrupted(scratch: &Scratch) -> Vec<(String, SystemTime)> {
    let mut child =
        scratch.command(LONG).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == HALF));
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
