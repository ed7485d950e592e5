//! Files and directories that are models of another kind, with what to do about each.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a git-lfs pointer begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const IS_POINTER: &str =
    "is a git-lfs pointer, not the file itself; run `git lfs pull` where it came from";
/// What a compiled model of rknn-toolkit2 begins with.
const RKNN: &[u8] = b"RKNN";
/// A zip archive, as PyTorch writes checkpoints.
const ZIP: &[u8] = b"PK\x03\x04";
/// Pickles of protocols 2 to 4, as older PyTorch writes them.
const PICKLES: [&[u8]; 3] = [b"\x80\x02", b"\x80\x03", b"\x80\x04"];
/// Names of networks' weights in a PyTorch directory.
const WEIGHTS: [&str; 6] = [
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
];
/// What exports a checkpoint.
const EXPORT: &str =
    "export it to ONNX first (`python tools/export_models.py` or `optimum-cli export onnx`)";

/// What a file is, if it is no ONNX, with what to do.
pub(super) fn file(path: &Path) -> Option<String> {
    let mut begin = Vec::new();
    File::open(path).ok()?.take(64).read_to_end(&mut begin).ok()?;
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if begin.starts_with(POINTER) {
        return Some(IS_POINTER.into());
    }
    if begin.starts_with(RKNN) {
        return Some("is a compiled model of rknn-toolkit2, which cannot be taken apart again; convert the ONNX file that it was made from".into());
    }
    // A header's length, and JSON.
    let safetensors = begin.len() > 9 && begin[8] == b'{' && begin[4..8] == [0; 4];
    if safetensors || ending == "safetensors" {
        return Some(format!("is a safetensors checkpoint: weights without a graph; {EXPORT}"));
    }
    if begin.starts_with(ZIP) || ["ckpt", "pt", "pth", "bin"].contains(&ending) {
        return Some(format!("is a PyTorch checkpoint: weights without a graph; {EXPORT}"));
    }
    None
}

/// What a file of weights is, if it is no safetensors file, with what to do.
pub(crate) fn weights(bytes: &[u8], path: &Path) -> Option<String> {
    let begins = |tag: &[u8]| {
        let text = bytes.trim_ascii_start();
        text.get(..tag.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(tag))
    };
    if bytes.is_empty() {
        return Some("is empty (0 bytes); download it again".into());
    }
    if bytes.starts_with(POINTER) {
        return Some(IS_POINTER.into());
    }
    if begins(b"<!doctype") || begins(b"<html") {
        return Some("is a web page; the site may want a login before it gives the file".into());
    }
    if bytes.starts_with(ZIP) || PICKLES.iter().any(|pickle| bytes.starts_with(pickle)) {
        let (from, to) = (path.display(), path.with_extension("safetensors"));
        return Some(format!(
            "is a PyTorch checkpoint (a pickle): loading one may run any program, so it is not read; if you trust it, make it a safetensors file with \
             python3 -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{from}', weights_only=True), '{}')\"",
            to.display()
        ));
    }
    None
}

/// What a directory without ONNX files is, with what to do.
pub(super) fn directory(path: &Path) -> Option<String> {
    let has_onnx = |folder: &Path| {
        let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        files.map(|file| file.path()).any(|file| file.extension().is_some_and(|e| e == "onnx"))
    };
    let folders = std::fs::read_dir(path).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    if has_onnx(path) || folders.into_iter().any(|folder| has_onnx(&folder)) {
        return None;
    }
    let weights = WEIGHTS.iter().find(|file| path.join(file).is_file())?;
    Some(format!("is a PyTorch model ({weights}) without ONNX files; {EXPORT}"))
}
