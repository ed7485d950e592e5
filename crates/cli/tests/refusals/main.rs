//! Bad input is refused: the program says what is wrong and where, exits with 1 (2 when it was called wrongly), does not panic, and
//! leaves no part of a pack or picture behind. Here are the disk and what is drawn or run; the modules have what else is refused.
#![cfg(unix)]

mod conversions;
mod files;
mod interruptions;
mod loras;
mod models;
mod packs;
mod prompts;
mod scratch;
mod terminal;

use models::{encode, good};
use rockshard_tensor::{Tensor, write_npy};
use scratch::Scratch;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONVERT: &str = "convert model.onnx --out pack";
const GENERATE: &str = "generate pack --prompt red --steps 1 --out picture.png";

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
    scratch.refuses("run pack", &["the pack has models text_encoder, unet, vae_encoder, vae_decoder, taesd_encoder, taesd_decoder; choose one with --model"]);
}
