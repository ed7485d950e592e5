//! A transformers-style vision-language directory: its vision encoder in one attention and one MLP shard a layer, against ONNX Runtime
//! (recorded by `tools/record_vision.py`).

mod common;

use common::{Work, model, npy, relative_l2, rockshard};
use rockshard_manifest::{CoreId, Manifest};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vision").join(name)
}

fn convert(pack: &Path, options: &[&str]) -> Manifest {
    let (source, out) = (data("").display().to_string(), pack.display().to_string());
    let mut args = vec!["convert", &source, "--out", &out, "--shards", "layer", "--quiet"];
    args.extend(options);
    rockshard(&args).success();
    Manifest::parse(&std::fs::read(pack.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn a_vision_encoder_is_cut_into_attention_and_mlp_shards_on_cores_in_turn() {
    let work = Work::new();
    let pack = work.path("pack");
    let manifest = convert(&pack, &["--tile", "rows:16", "--wide-weights"]);
    let shards = &manifest.models[0].shards;
    assert_eq!(
        (manifest.models[0].name.as_str(), manifest.models[0].resolution),
        ("vision", Some([64, 64]))
    );
    let of = |part: &str| shards.iter().filter(|s| s.name.contains(part)).count();
    assert_eq!((of("self_attn"), of("mlp"), shards.len()), (2, 2, 6), "and the stem and the head");
    assert!(shards.iter().enumerate().all(|(i, s)| s.core == CoreId::Npu((i % 3) as u8)));
    let head = &shards[5].operators;
    assert!(
        head.contains_key("Conv") && !head.contains_key("MatMul"),
        "the connector is a convolution: {head:?}"
    );

    let why = rockshard(&["inspect", &pack.display().to_string(), "--why"]).success();
    let told = ["fusion: attention 2, ", "pixel shuffle: ", "sandwich: not needed: ", "is rows:16"];
    let why = common::unfolded(&why);
    assert!(told.iter().all(|line| why.contains(line)), "{why}");

    let input = format!("pixel_values={}", data("pixel_values.npy").display());
    let expected = npy(&data("image_features.npy"));
    for (device, rewritten, tolerance) in
        [("cpu", false, 1e-5), ("cpu", true, 1e-5), ("sim", false, 1e-2)]
    {
        let (pack, out) = (pack.display().to_string(), work.path("out"));
        let folder = out.display().to_string();
        let mut args =
            vec!["run", &pack, "--device", device, "--input", &input, "--out", &folder, "--quiet"];
        args.extend(rewritten.then_some("--rewritten"));
        rockshard(&args).success();
        let error = relative_l2(&npy(&out.join("image_features.npy")), &expected);
        eprintln!("vision on {device}: relative L2 {error:.2e} from ONNX Runtime");
        assert!(error <= tolerance, "{device}, rewritten {rewritten}: {error:.2e}");
    }
}

#[test]
fn batches_and_what_cannot_be_asked_for() {
    let work = Work::new();
    let manifest = convert(&work.path("pack"), &["--batch", "2"]);
    assert_eq!(manifest.models[0].inputs[0].shape, [2, 3, 64, 64]);
    let refuse = |source: &Path, options: &[&str]| {
        let (source, out) = (source.display().to_string(), work.path("no").display().to_string());
        let args = [&["convert", source.as_str(), "--out", &out, "--quiet"], options].concat();
        rockshard(&args).exits(1)
    };
    assert!(refuse(&data(""), &["--resolution", "64x64"]).contains("leave --resolution out"));
    assert!(
        refuse(&model().join("unet/model_dynamo.onnx"), &["--batch", "2"])
            .contains("leave --batch out")
    );

    let pair = work.path("pair");
    work.convert(&pair, &["--batch", "2", "--sandwich", "off"]);
    let error = rockshard(&[
        "generate",
        &pair.display().to_string(),
        "--prompt",
        "a red circle",
        "--quiet",
    ])
    .exits(1);
    assert!(
        error.contains(
            "converted for a batch of 2; making pictures from text needs a pack of batch 1"
        ),
        "{error}"
    );
    let error = rockshard(&[
        "run",
        &pair.display().to_string(),
        "--model",
        "unet",
        "--rewritten",
        "--quiet",
    ])
    .exits(1);
    assert!(error.contains("--rewritten is for --device cpu"), "{error}");
}
