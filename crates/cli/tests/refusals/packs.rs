//! Packs that were altered, or are none.

use crate::GENERATE;
use crate::scratch::Scratch;
use std::fs;

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
pub fn flip(bytes: &mut Vec<u8>) {
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
