//! Keys and values that are computed once a prompt: the same pictures, from a U-Net without their weights.

mod common;

use common::{Work, rockshard};
use rockshard_tensor::{Tensor, write_safetensors};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

fn model<'a>(manifest: &'a Json, name: &str) -> Option<&'a Json> {
    manifest["models"].as_array().unwrap().iter().find(|m| m["name"] == name)
}

fn weights(model: &Json) -> u64 {
    let shards = model["shards"].as_array().unwrap();
    shards.iter().map(|s| s["weight_bytes"].as_u64().unwrap()).sum()
}

fn converted(work: &Work, name: &str, options: &[&str]) -> Json {
    let pack = work.path(name);
    work.convert(&pack, options);
    serde_json::from_slice(&std::fs::read(pack.join("manifest.json")).unwrap()).unwrap()
}

const PROMPT: &str = "a small yellow ring on a black background";
const WEIGHTED: &str = "a small (yellow:1.6) ring on a [[[black]]] background";

fn drawn(pack: &Path, prompt: &str) -> Vec<u8> {
    let picture = pack.with_extension("png");
    let args = ["generate", pack.to_str().unwrap(), "--prompt", prompt, "--out"];
    rockshard(&[&args[..], &[picture.to_str().unwrap(), "--quiet"]].concat()).success();
    rockshard_diffusion::Picture::from_bytes(&std::fs::read(&picture).unwrap()).unwrap().rgb
}

#[test]
fn keys_and_values_are_computed_once_a_prompt() {
    let work = Work::new();
    let whole = converted(&work, "whole", &["--sandwich", "off"]);
    let apart = converted(&work, "apart", &["--sandwich", "off", "--precompute-kv"]);
    assert!(model(&whole, "keys_values").is_none());
    let keys_values = model(&apart, "keys_values").unwrap();
    // A key and a value for each of the seven cross-attentions.
    assert_eq!(keys_values["outputs"].as_array().unwrap().len(), 14);
    let inputs = keys_values["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0]["name"], "encoder_hidden_states");
    let unets = [&whole, &apart].map(|m| model(m, "unet").unwrap());
    let names: Vec<&str> = unets[1]["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 3 + 14);
    assert!(!names.contains(&"encoder_hidden_states"));
    assert_eq!(weights(unets[0]), weights(unets[1]) + weights(keys_values));
    let most = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
    for prompt in [PROMPT, WEIGHTED] {
        let [a, b] = ["whole", "apart"].map(|pack| drawn(&work.path(pack), prompt));
        assert!(most(&a, &b) <= Some(2), "{:?} of 255", most(&a, &b));
    }
    let [plain, weighted] = [PROMPT, WEIGHTED].map(|prompt| drawn(&work.path("apart"), prompt));
    assert!(most(&plain, &weighted) > Some(2), "weights have no effect");
    // Every layer still passes, with the inputs of a run that made keys and values.
    let pack = work.path("apart");
    rockshard(&["validate", pack.to_str().unwrap(), "--quiet"]).success();
}

/// A LoRA on projections that are cut out changes them where they are now: the pictures are those of the whole U-Net with it.
#[test]
fn a_lora_reaches_keys_and_values() {
    const RANK: usize = 2;
    let work = Work::new();
    let file = work.path("lora.safetensors");
    let values = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let mut tensors = BTreeMap::new();
    for projection in ["to_q", "to_k", "to_v"] {
        let at =
            format!("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_{projection}");
        let inputs = if projection == "to_q" { 64 } else { 96 };
        let down = Tensor::from_f32([RANK, inputs], values(RANK * inputs));
        tensors.insert(format!("{at}.lora_down.weight"), down);
        tensors.insert(
            format!("{at}.lora_up.weight"),
            Tensor::from_f32([64, RANK], values(64 * RANK)),
        );
    }
    write_safetensors(tensors, &file).unwrap();
    let lora = format!("{}:1", file.display());
    let options = ["--sandwich", "off", "--lora", &lora];
    let apart = [&options[..], &["--precompute-kv"]].concat();
    converted(&work, "plain", &options[..2]);
    converted(&work, "whole", &options);
    let manifest = converted(&work, "apart", &apart);
    let mut said = manifest.as_object().unwrap().values().filter_map(|v| v.get("loras"));
    assert!(said.any(|l| l[0]["fused"] == 3));
    let [plain, whole, apart] =
        ["plain", "whole", "apart"].map(|pack| drawn(&work.path(pack), PROMPT));
    let most = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most(&plain, &whole) > Some(20), "{:?}", most(&plain, &whole));
    assert!(most(&whole, &apart) <= Some(2), "{:?}", most(&whole, &apart));
}

#[test]
fn a_model_without_a_unet_has_no_keys_and_values() {
    let work = Work::new();
    let file = common::model().join("vae_decoder/model.onnx");
    let pack = work.path("pack");
    let args =
        ["convert", file.to_str().unwrap(), "--out", pack.to_str().unwrap(), "--precompute-kv"];
    let said = rockshard(&args).exits(1);
    assert!(said.contains("no unet/, whose keys and values could be precomputed"), "{said}");
    assert!(!pack.exists());
}
