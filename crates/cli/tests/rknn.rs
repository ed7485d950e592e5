//! Builds with the feature `rknn`, where librknnrt is not there; `.ci/run` runs the whole demo through its double.
#![cfg(feature = "rknn")]

use std::path::Path;
use std::process::{Command, Output};

fn rockshard(arguments: &[&str], library: &str) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
    let output = command
        .args(arguments)
        .env("ROCKSHARD_RKNNRT", library)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files were written");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, error)
}

#[test]
fn a_library_that_is_not_librknnrt_is_refused_before_any_work() {
    for (library, text) in [
        (
            "nowhere/librknnrt.so",
            "device rknn: nowhere/librknnrt.so cannot be loaded (dlopen failed): install Rockchip's librknnrt 2.3 or newer",
        ),
        (
            "libm.so.6",
            "device rknn: libm.so.6 is no librknnrt of 2.3 or newer: it has no rknn_dup_context",
        ),
    ] {
        let (output, error) = rockshard(
            &["demo", "--device", "rknn", "--out", "out", "--model", env!("CARGO_MANIFEST_DIR")],
            library,
        );
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn doctor_says_why_there_is_no_device() {
    let (output, error) = rockshard(&["doctor"], "nowhere/librknnrt.so");
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("nowhere/librknnrt.so (ROCKSHARD_RKNNRT) is not there"), "{text}");
    assert!(
        text.contains("device rknn    nowhere/librknnrt.so cannot be loaded")
            && text.contains("No such file"),
        "{text}"
    );
}

/// The double of librknnrt, which the tests' dependency on it builds beside them, as a board's library: without the mark that it is none,
/// and of this version.
fn board_library(folder: &Path, version: &str) -> String {
    let double =
        std::fs::read(std::env::current_exe().unwrap().with_file_name("librknnrt.so")).unwrap();
    let board = replaced(&double, b"rockshard_rknnrt_sim", b"rockshard_rknnrt_not");
    let board = replaced(
        &board,
        b"librknnrt version: 2.3.2",
        format!("librknnrt version: {version}").as_bytes(),
    );
    let path = folder.join(format!("librknnrt-{version}.so"));
    std::fs::write(&path, board).unwrap();
    path.display().to_string()
}

/// The bytes with all that are `from` replaced by as many others.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|&at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}

#[test]
fn a_board_gets_compiled_shards_that_its_library_can_load() {
    let folder = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let run = |arguments: &str, library: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
        command
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .env("ROCKSHARD_RKNNRT", library);
        // A toolkit of version 2.5.0, whose compiled shards are the graphs themselves: the double loads those.
        command.env("PYTHONPATH", data.join("fake_toolkit")).env("PYTHONDONTWRITEBYTECODE", "1");
        command
            .env("FAKE_TOOLKIT", ".onnx=copy")
            .env("FAKE_TOOLKIT_COUNT", folder.path().join("count"));
        let output = command.output().unwrap();
        (
            output.status.code(),
            [output.stdout, output.stderr]
                .map(|t| String::from_utf8_lossy(&t).into_owned())
                .concat(),
        )
    };
    let model = data.join("lora/unet.onnx").display().to_string();
    for (options, pack) in [("--compile", "compiled"), ("--sandwich auto", "plain")] {
        let (code, text) =
            run(&format!("convert {model} --shards 3 --quiet {options} --out {pack}"), "");
        assert_eq!(code, Some(0), "{text}");
    }
    let [old, new] = ["2.3.2", "2.5.0"].map(|version| board_library(folder.path(), version));
    let table = [
        (
            "validate plain",
            &new,
            1,
            "is not compiled, and this device runs compiled shards only; convert the model again with --compile",
        ),
        (
            "validate compiled",
            &old,
            1,
            "was compiled by rknn-toolkit2 2.5.0, and librknnrt is of version 2.3.2, which can crash on it",
        ),
        ("validate compiled", &new, 0, "4 layers, 4 pass, 0 fail"),
        ("doctor --pack compiled", &new, 0, "compiled by rknn-toolkit2 2.5.0"),
    ];
    for (arguments, library, code, part) in table {
        let device = if arguments.starts_with("doctor") { "" } else { " --quiet --device rknn" };
        let (found, text) = run(&format!("{arguments}{device}"), library);
        assert!(
            found == Some(code) && text.contains(part),
            "{arguments}, {library}: {found:?} {text}"
        );
    }
}
