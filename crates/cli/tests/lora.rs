//! `convert --lora` against PEFT's own merge (recorded by `tools/record_lora.py`): three spellings of keys, both exporters' names.

mod common;

use common::{Work, npy, relative_l2, rockshard};
use rockshard_manifest::Manifest;
use rockshard_tensor::{DType, Tensor};
use std::path::{Path, PathBuf};

/// Modules that the recorded LoRA changes.
const MODULES: usize = 79;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lora").join(name)
}

/// Convert with LoRA files, run on the reference, and compare with a recorded output. Gives the manifest.
fn judge(model: &str, loras: &[String], expected: &str, tolerance: f64) -> Manifest {
    let work = Work::new();
    let (pack, out) = (work.path("pack"), work.path("out"));
    let mut args = vec![
        "convert".to_owned(),
        data(model).display().to_string(),
        "--out".into(),
        pack.display().to_string(),
    ];
    args.extend(
        ["--sandwich", "off", "--tile", "off", "--shards", "block", "--quiet"].map(String::from),
    );
    args.extend(loras.iter().flat_map(|l| ["--lora".to_owned(), l.clone()]));
    rockshard(&args.iter().map(String::as_str).collect::<Vec<_>>()).success();
    let mut args = vec![
        "run".to_owned(),
        pack.display().to_string(),
        "--device".into(),
        "cpu".into(),
        "--quiet".into(),
    ];
    args.extend(["--out".to_owned(), out.display().to_string()]);
    for name in ["sample", "timestep", "encoder_hidden_states", "timestep_cond"] {
        args.extend([
            "--input".to_owned(),
            format!("{name}={}", data(&format!("{name}.npy")).display()),
        ]);
    }
    rockshard(&args.iter().map(String::as_str).collect::<Vec<_>>()).success();
    let error = relative_l2(&npy(&out.join("out_sample.npy")), &npy(&data(expected)));
    eprintln!("{model} with {loras:?}: relative L2 {error:.2e} from {expected}");
    assert!(error <= tolerance, "{model} with {loras:?}: {error:.2e} from {expected}");
    Manifest::parse(&std::fs::read(pack.join("manifest.json")).unwrap()).unwrap()
}

fn lora(name: &str) -> String {
    data(name).display().to_string()
}

#[test]
fn every_spelling_gives_what_peft_gives() {
    for model in ["unet.onnx", "unet_dynamo.onnx"] {
        judge(model, &[], "base.npy", 1e-5);
        // The diffusers file is stored in float16.
        for (file, tolerance) in [
            ("peft/adapter_model.safetensors", 1e-5),
            ("kohya.safetensors", 1e-5),
            ("diffusers.safetensors", 2e-3),
        ] {
            let manifest = judge(model, &[lora(file)], "merged-1.npy", tolerance);
            assert_eq!(manifest.conversion.loras[0].fused, MODULES, "{model} {file}");
        }
    }
}

#[test]
fn the_scale_is_the_fraction_of_the_update() {
    let file = lora("kohya.safetensors");
    judge("unet.onnx", &[format!("{file}:0.5")], "merged-0.5.npy", 1e-5);
    judge("unet.onnx", &[format!("{file}:0")], "base.npy", 1e-5);
    judge(
        "unet_dynamo.onnx",
        &[format!("{file}:0.75"), format!("{file}:0.25")],
        "merged-1.npy",
        1e-5,
    );
}

/// The bytes of a number in a type of safetensors.
fn number(kind: &str, value: f32) -> Vec<u8> {
    match kind {
        "F64" => f64::from(value).to_le_bytes().to_vec(),
        // The upper half of a float32.
        "BF16" => value.to_le_bytes()[2..].to_vec(),
        "F16" => Tensor::from_f32([1], vec![value]).to_float(DType::F16).unwrap().bytes().to_vec(),
        "I64" => (value as i64).to_le_bytes().to_vec(),
        "I32" => (value as i32).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

/// Trainers store alpha in whatever type they compute with, as a scalar or as a vector of one number.
#[test]
fn an_alpha_of_any_type_is_the_same() {
    const KINDS: [&str; 6] = ["F32", "F64", "BF16", "F16", "I64", "I32"];
    let tensors = rockshard_tensor::read_safetensors(&data("kohya.safetensors")).unwrap();
    let (mut header, mut contents, mut alphas) = (serde_json::Map::new(), Vec::new(), 0);
    for (key, tensor) in &tensors {
        let start = contents.len();
        let (mut kind, mut shape) = ("F32", tensor.shape().to_vec());
        if key.ends_with(".alpha") {
            kind = KINDS[alphas % KINDS.len()];
            shape = vec![1; alphas / KINDS.len() % 2];
            alphas += 1;
            contents.extend(number(kind, tensor.to_f32().unwrap()[0]));
        } else {
            contents.extend_from_slice(tensor.bytes());
        }
        let place = [start, contents.len()];
        let entry = serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": place});
        header.insert(key.clone(), entry);
    }
    assert_eq!(alphas, MODULES);
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    let work = Work::new();
    let file = work.path("alphas.safetensors");
    std::fs::write(&file, [&length[..], &header, &contents].concat()).unwrap();
    let manifest = judge("unet.onnx", &[file.display().to_string()], "merged-1.npy", 1e-5);
    assert_eq!(manifest.conversion.loras[0].fused, MODULES);
}

#[test]
fn what_does_not_fit_is_reported() {
    let manifest = judge("unet.onnx", &[lora("kohya.safetensors")], "merged-1.npy", 1e-5);
    assert_eq!(
        manifest.conversion.loras[0].unmatched,
        ["lora_te_text_model_encoder_layers_0_self_attn_q_proj"]
    );
    let work = Work::new();
    let convert = |file: &PathBuf| {
        let pack = work.path("pack");
        let [model, out, lora] = [&data("unet.onnx"), &pack, file].map(|p| p.display().to_string());
        let error = rockshard(&[
            "convert",
            &model,
            "--out",
            &out,
            "--sandwich",
            "off",
            "--quiet",
            "--resume",
            "--lora",
            &lora,
        ])
        .exits(1);
        // Interrupted work would be kept for another `--resume`.
        assert!(
            !pack.exists() && !work.path(".pack.partial").exists(),
            "refused before the work starts"
        );
        error
    };
    let bytes = std::fs::read(data("kohya.safetensors")).unwrap();
    let broken = work.path("short.safetensors");
    std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    assert!(convert(&broken).contains("short.safetensors: not a safetensors file, or cut short"));
    assert!(convert(&work.path("absent.safetensors")).contains("absent.safetensors"));
    let other = work.path("other.safetensors");
    let tensors = [
        ("lora_unet_nowhere.lora_down.weight", [2usize, 3]),
        ("lora_unet_nowhere.lora_up.weight", [3, 2]),
    ];
    let tensors =
        tensors.map(|(name, shape)| (name.to_owned(), Tensor::from_f32(shape, vec![1.0; 6])));
    rockshard_tensor::write_safetensors(tensors.clone().into(), &other).unwrap();
    assert!(
        convert(&other)
            .contains("none of its modules is in this model (the first is \"lora_unet_nowhere\")")
    );
    rockshard_tensor::write_safetensors([tensors[0].clone()].into(), &other).unwrap();
    assert!(convert(&other).contains("module \"lora_unet_nowhere\" has no up weight"));
    rockshard_tensor::write_safetensors(
        [("x.hada_w1_a".to_owned(), tensors[0].1.clone())].into(),
        &other,
    )
    .unwrap();
    assert!(convert(&other).contains("key \"x.hada_w1_a\" is not a LoRA key"));
}
