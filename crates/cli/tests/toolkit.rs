//! `convert --compile` with a stand-in for rknn-toolkit2 that fails in the ways the real one does; `.ci/run` compiles with the real one.

mod common;

use common::Work;
use rockshard_manifest::{CoreId, Manifest};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Convert a small U-Net in three NPU shards and one for the host with the double. `ways` says which shard fails how.
fn convert(work: &Work, ways: &str, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rockshard"))
        .arg("convert")
        .arg(data("lora/unet.onnx"))
        .args(["--shards", "3", "--sandwich", "off", "--quiet", "--compile", "--out", "pack"])
        .current_dir(work.path("."))
        .args(options)
        .env("PYTHONPATH", data("fake_toolkit"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("FAKE_TOOLKIT", ways)
        .env("FAKE_TOOLKIT_COUNT", work.path("count"))
        .output()
        .unwrap()
}

fn compiled(work: &Work) -> usize {
    std::fs::read_to_string(work.path("count")).unwrap_or_default().lines().count()
}

fn manifest(work: &Work) -> Manifest {
    Manifest::parse(&std::fs::read(work.path("pack/manifest.json")).unwrap()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_log_goes_into_the_manifest_and_into_inspect() {
    let work = Work::new();
    let output = convert(&work, "-02-=cpu", &["--jobs", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let manifest = manifest(&work);
    let shards: Vec<_> =
        manifest.models[0].shards.iter().filter(|s| s.core != CoreId::Host).collect();
    assert_eq!((shards.len(), compiled(&work)), (3, 3));
    for (i, shard) in shards.iter().enumerate() {
        let c = shard.compiled.as_ref().unwrap();
        assert_eq!(
            (c.toolkit.as_str(), c.internal_bytes, c.weight_bytes, c.cycles(), c.layers.len()),
            ("2.5.0", 12_800, 2048, 20, 2)
        );
        assert_eq!(c.on_cpu().count(), usize::from(i == 1), "{}", shard.name);
        assert!(manifest.files.contains_key(&c.file) && work.path("pack").join(&c.file).is_file());
    }
    assert_eq!(shards[1].compiled.as_ref().unwrap().warnings, ["Softmax falls back to CPU"]);
    let text =
        common::rockshard(&["inspect", &work.path("pack").display().to_string(), "--layers"])
            .success();
    assert!(
        text.contains("rknn-toolkit2 2.5.0")
            && text.contains("Softmax /softmax on the CPU")
            && text.contains("/conv"),
        "{text}"
    );
}

#[test]
fn every_shard_that_fails_is_named_with_the_reason_and_the_rest_is_kept_for_resuming() {
    let work = Work::new();
    let output = convert(&work, "-01-=segv,-02-=refuse", &["--resume"]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("2 of 3 shards were not compiled"), "{error}");
    assert!(
        error.contains("-01-")
            && error.contains("the toolkit was killed by SIGSEGV at build: the last words"),
        "{error}"
    );
    assert!(
        error.contains("-02-")
            && error.contains(
                "the toolkit refused it: build returned -1: build: Op type:Mystery is not supported"
            ),
        "{error}"
    );
    assert!(!work.path("pack").exists());
    let output = convert(&work, "", &["--resume"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(compiled(&work), 5, "the third shard is not compiled again");
    assert!(
        manifest(&work).models[0]
            .shards
            .iter()
            .all(|s| s.compiled.is_some() == (s.core != CoreId::Host))
    );
}

#[test]
fn a_toolkit_that_hangs_or_raises_is_named() {
    let work = Work::new();
    let output = convert(&work, "-01-=hang,-03-=raise", &["--compile-timeout", "3"]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("the toolkit took longer than 3 s at build"), "{error}");
    assert!(error.contains("the toolkit refused it: build ValueError: a surprise"), "{error}");
    let left: Vec<_> =
        std::fs::read_dir(work.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["count"], "nothing but the double's own file is left");
}

#[test]
fn the_interpreter_is_where_its_path_says_from_here() {
    let work = Work::new();
    std::fs::create_dir(work.path("env")).unwrap();
    std::fs::write(work.path("env/python"), "#!/bin/sh\nexec python3 \"$@\"\n").unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(work.path("env/python"), executable).unwrap();
    let output = convert(&work, "", &["--rknn-python", "env/python"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(compiled(&work), 3);
}

#[test]
fn a_python_without_the_toolkit_is_refused_before_anything_is_converted() {
    let work = Work::new();
    for (python, problem) in [
        ("/nonexistent/python", "cannot be run"),
        ("false", "has no rknn-toolkit2 in its environment"),
    ] {
        let output = convert(&work, "", &["--rknn-python", python]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(problem) && error.contains("pip install rknn-toolkit2"), "{error}");
        assert!(!work.path("pack").exists());
    }
    let output = common::rockshard(&["convert", "x.onnx", "--out", "y", "--jobs", "2"]);
    output.exits(2);
}
