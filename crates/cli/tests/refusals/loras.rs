//! LoRA files that are not what they should be: what each is, and what helps.

use crate::models::{encode, model, node};
use crate::scratch::Scratch;
use rockshard_tensor::{Tensor, write_safetensors};
use std::fs;

const CONVERT: &str = "convert model.onnx --out pack --lora";

/// With a model of one product, of a weight of 4x4.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let model = model(vec![node("/product/MatMul", "MatMul", "x w", "y")]);
    scratch.write("model.onnx", encode(&model));
    scratch
}

#[test]
fn files_of_other_kinds() {
    let scratch = scratch();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    for (file, contents, parts) in [
        ("empty.safetensors", &b""[..], ["is empty (0 bytes)", "download it again"]),
        ("pointer.safetensors", pointer.as_bytes(), ["git-lfs pointer", "`git lfs pull`"]),
        ("zip.bin", b"PK\x03\x04 and so on", ["a PyTorch checkpoint", "'zip.safetensors'"]),
        ("old.pt", b"\x80\x02}q\0", ["may run any program", "torch.load('old.pt'"]),
        ("page.safetensors", b"\n<!DOCTYPE html><html>", ["a web page", "login"]),
        ("other.safetensors", b"nothing of that kind", ["not a safetensors file", "cut short"]),
    ] {
        scratch.write(file, contents);
        scratch.refuses(&format!("{CONVERT} {file}"), &[&[file], &parts[..]].concat());
    }
}

#[test]
fn a_directory_has_a_file_to_name() {
    let scratch = scratch();
    fs::create_dir(scratch.path("lora")).unwrap();
    let none = "is a directory without a .safetensors file";
    scratch.refuses(&format!("{CONVERT} lora"), &["lora", none]);
    for file in ["step-100.safetensors", "pytorch_lora_weights.safetensors"] {
        scratch.write(&format!("lora/{file}"), "");
        let named = format!("is a directory; name the file in it: lora/{file}");
        scratch.refuses(&format!("{CONVERT} lora"), &[&named]);
    }
    scratch.write("lora/adapter_model.safetensors", "");
    scratch.refuses(&format!("{CONVERT} lora:0.5"), &["lora/adapter_model.safetensors"]);
}

#[test]
fn a_scale_has_a_point() {
    let scratch = scratch();
    scratch.misuses(&format!("{CONVERT} x.safetensors:0,8"), &["x.safetensors:0,8", "as in 0.8"]);
    scratch.misuses(&format!("{CONVERT} x.safetensors:inf"), &["a finite scale"]);
}

#[test]
fn halves_fit_each_other_and_the_weight() {
    let scratch = scratch();
    let (down_key, up_key) = ("product.lora_A.weight", "product.lora_B.weight");
    let refuses = |down: [usize; 2], up: [usize; 2], parts: &[&str]| {
        let tensor = |[a, b]: [usize; 2]| Tensor::from_f32([a, b], vec![0.5; a * b]);
        let tensors = [(down_key.to_owned(), tensor(down)), (up_key.to_owned(), tensor(up))];
        write_safetensors(tensors.into(), &scratch.path("l.safetensors")).unwrap();
        let line = format!("{CONVERT} l.safetensors");
        scratch.refuses(&line, &[&["l.safetensors", down_key, up_key], parts].concat());
    };
    refuses([2, 4], [4, 3], &["of [2, 4]", "of [4, 3]", "do not fit each other"]);
    refuses([2, 9], [4, 2], &["of [2, 9]", "of [4, 2]", "do not fit the weight \"w\" of [4, 4]"]);
}

#[test]
fn an_alpha_is_one_number() {
    let scratch = scratch();
    let ones = |shape: [usize; 2]| Tensor::from_f32(shape, vec![1.0; shape[0] * shape[1]]);
    for alpha in [vec![1.0, 2.0], vec![], vec![f32::NAN]] {
        let tensors = [
            ("product.lora_down.weight".to_owned(), ones([1, 4])),
            ("product.lora_up.weight".to_owned(), ones([4, 1])),
            ("product.alpha".to_owned(), Tensor::from_f32([alpha.len()], alpha)),
        ];
        write_safetensors(tensors.into(), &scratch.path("l.safetensors")).unwrap();
        let parts = ["l.safetensors", "product.alpha is not one finite number"];
        scratch.refuses(&format!("{CONVERT} l.safetensors"), &parts);
    }
}
