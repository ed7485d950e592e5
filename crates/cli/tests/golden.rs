//! `convert --golden` and `validate --golden`.

mod common;

use common::{Work, model, rockshard};
use rockshard_manifest::Manifest;
use rockshard_tensor::{DType, read_safetensors};
use std::path::Path;

fn convert(pack: &Path, options: &[&str]) {
    let source = model().join("unet/model_dynamo.onnx").display().to_string();
    let out = pack.display().to_string();
    let mut args = vec!["convert", &source, "--out", &out, "--shards", "block", "--quiet"];
    args.extend(options);
    rockshard(&args).success();
}

fn manifest(pack: &Path) -> Manifest {
    Manifest::parse(&std::fs::read(pack.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn recorded_tensors_stand_in_for_the_reference() {
    let work = Work::new();
    let pack = work.path("pack");
    convert(&pack, &["--golden", "--golden-steps", "2"]);
    let manifest = manifest(&pack);
    let model = &manifest.models[0];
    assert_eq!(model.golden.as_ref().map(|g| (g.steps, g.dtype)), Some((2, DType::F32)));
    for shard in &model.shards {
        let tensors = read_safetensors(&pack.join(shard.golden.as_ref().unwrap())).unwrap();
        assert_eq!(tensors.len(), 2 * shard.outputs.len(), "{}", shard.name);
        for output in &shard.outputs {
            assert_eq!(tensors[&format!("1/{}", output.name)].shape(), output.shape);
        }
    }
    let inputs = read_safetensors(&pack.join(&model.golden.as_ref().unwrap().inputs)).unwrap();
    let timesteps: Vec<i64> =
        (0..2).map(|i| inputs[&format!("{i}/timestep")].to_i64().unwrap()[0]).collect();
    assert_eq!(timesteps, [999, 500], "noise is drawn at timesteps over the whole schedule");

    let report = |options: &[&str]| {
        let path = pack.display().to_string();
        let mut args = vec!["validate", &path, "--golden", "--json", "--quiet"];
        args.extend(options);
        rockshard(&args)
    };
    let text = report(&[]).success();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["models"].as_array().map(Vec::len), Some(2), "one report a recorded run");
    report(&["--threshold", "0.99999999999"]).exits(3);
    report(&["--device", "cpu", "--threshold", "0.9999999"]).success();
    report(&["--prompt", "x"]).exits(2);
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let work = Work::new();
    let source = model().join("unet/model_dynamo.onnx").display().to_string();
    let file = work.path("x.npy");
    let mut bytes = Vec::new();
    rockshard_tensor::write_npy(
        &rockshard_tensor::Tensor::from_f32([1, 4, 16, 16], vec![0.0; 1024]),
        &mut bytes,
    )
    .unwrap();
    std::fs::write(&file, bytes).unwrap();
    let (given, out) =
        (format!("sample={}", file.display()), work.path("pack").display().to_string());
    let args = [
        "convert",
        &source,
        "--out",
        &out,
        "--sandwich",
        "off",
        "--golden",
        "--quiet",
        "--calibrate",
        &given,
    ];
    let error = rockshard(&args).exits(1);
    assert!(error.contains("input \"timestep\" is missing"), "{error}");
}

#[test]
fn float16_takes_half_the_size_and_a_pack_without_golden_tensors_says_so() {
    let work = Work::new();
    let [f32, f16, none] = ["f32", "f16", "none"].map(|n| work.path(n));
    convert(&f32, &["--golden", "--sandwich", "off"]);
    convert(&f16, &["--golden=f16", "--sandwich", "off"]);
    convert(&none, &["--sandwich", "off"]);
    let size = |pack: &Path| {
        manifest(pack)
            .files
            .iter()
            .filter(|(n, _)| n.starts_with("golden/"))
            .map(|(_, e)| e.size)
            .sum::<u64>()
    };
    assert!((size(&f16) as f64) < 0.6 * size(&f32) as f64, "{} {}", size(&f16), size(&f32));
    rockshard(&["validate", &f16.display().to_string(), "--golden", "--quiet"]).success();
    let error =
        rockshard(&["validate", &none.display().to_string(), "--golden", "--quiet"]).exits(1);
    assert!(error.contains("has no golden tensors; convert it with --golden"), "{error}");
    let file = f32.join(manifest(&f32).models[0].shards[3].golden.as_ref().unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error =
        rockshard(&["validate", &f32.display().to_string(), "--golden", "--quiet"]).exits(1);
    assert!(error.contains("its SHA-256 is not the manifest's"), "{error}");
}
