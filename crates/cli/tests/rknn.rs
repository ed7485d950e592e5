//! Builds with the feature `rknn`, where librknnrt is not there; `.ci/run` runs the whole demo through its double.
#![cfg(feature = "rknn")]

use std::process::{Command, Output};

fn rockshard(arguments: &[&str], library: &str) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
    let output = command.args(arguments).env("ROCKSHARD_RKNNRT", library).current_dir(folder.path()).output().unwrap();
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
        ("libm.so.6", "device rknn: libm.so.6 is no librknnrt of 2.3 or newer: it has no rknn_dup_context"),
    ] {
        let (output, error) = rockshard(&["demo", "--device", "rknn", "--out", "out", "--model", env!("CARGO_MANIFEST_DIR")], library);
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
    assert!(text.contains("device rknn    nowhere/librknnrt.so cannot be loaded") && text.contains("No such file"), "{text}");
}
