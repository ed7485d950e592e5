//! The chain of shards against ONNX Runtime on the original files (recorded by `tools/record_onnxruntime.py`): the float32 reference to
//! rounding, the simulator to float16's. Both exporters' U-Nets are judged.

mod common;

use common::{Work, model, npy, relative_l2, rockshard};
use rockshard_import::{ImportOptions, import_file};
use rockshard_tensor::{Tensor, write_npy};
use std::path::{Path, PathBuf};

/// Relative L2 that the float32 reference may differ by: two engines sum in different orders.
const FLOAT32: f64 = 2e-5;
/// The same for float16 numerics.
const FLOAT16: f64 = 2e-2;

fn pattern(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(shape, (0..count).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect())
}

/// Run one model of a pack on both devices and compare with the recorded output.
fn judge(
    work: &Work,
    pack: &Path,
    part: &str,
    recorded: &str,
    output: &str,
    inputs: &[(&str, Tensor)],
) {
    let expected = npy(&Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/data/onnxruntime/{recorded}.npy")));
    for (device, rewritten, tolerance) in
        [("cpu", false, FLOAT32), ("cpu", true, FLOAT32), ("sim", false, FLOAT16)]
    {
        let out = work.path(&format!("{recorded}-{device}"));
        let mut args = vec![
            "run".to_owned(),
            pack.display().to_string(),
            "--model".into(),
            part.into(),
            "--device".into(),
            device.into(),
        ];
        args.extend(rewritten.then(|| "--rewritten".to_owned()));
        args.extend(["--quiet".to_owned(), "--out".into(), out.display().to_string()]);
        for (name, tensor) in inputs {
            let file = work.path(&format!("{name}.npy"));
            let mut bytes = Vec::new();
            write_npy(tensor, &mut bytes).unwrap();
            std::fs::write(&file, bytes).unwrap();
            args.extend(["--input".to_owned(), format!("{name}={}", file.display())]);
        }
        rockshard(&args.iter().map(String::as_str).collect::<Vec<_>>()).success();
        let error = relative_l2(&npy(&out.join(format!("{output}.npy"))), &expected);
        eprintln!(
            "{recorded} on {device}{}: relative L2 {error:.2e} from ONNX Runtime",
            if rewritten { ", rewritten" } else { "" }
        );
        assert!(error <= tolerance, "{recorded} on {device}: {error:.2e}");
    }
}

fn unet_inputs() -> [(&'static str, Tensor); 4] {
    [
        ("sample", pattern(&[1, 4, 16, 16])),
        ("timestep", Tensor::from_i64([1], vec![499])),
        ("encoder_hidden_states", pattern(&[1, 77, 96])),
        ("timestep_cond", pattern(&[1, 64])),
    ]
}

#[test]
fn shards_give_what_onnx_runtime_gives() {
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(
        &pack,
        &["--shards", "block", "--tile", "rows:64", "--sandwich", "10", "--wide-weights"],
    );
    let ids = Tensor::from_i64([1, 77], (0..77).map(|i| i * 7 % 500).collect());
    judge(&work, &pack, "text_encoder", "text_encoder", "last_hidden_state", &[("input_ids", ids)]);
    judge(&work, &pack, "unet", "unet", "out_sample", &unet_inputs());
    judge(
        &work,
        &pack,
        "vae_encoder",
        "vae_encoder",
        "latent_parameters",
        &[("sample", pattern(&[1, 3, 128, 128]))],
    );
}

#[test]
fn the_dynamo_export_gives_the_same() {
    let work = Work::new();
    let pack = work.path("pack");
    let source: PathBuf = model().join("unet/model_dynamo.onnx");
    assert!(import_file(&source, &ImportOptions::fixed()).is_ok());
    let (source, target) = (source.display().to_string(), pack.display().to_string());
    rockshard(&[
        "convert",
        &source,
        "--out",
        &target,
        "--shards",
        "layer",
        "--sandwich",
        "off",
        "--wide-weights",
        "--quiet",
    ])
    .success();
    judge(&work, &pack, "model_dynamo", "unet_dynamo", "out_sample", &unet_inputs());
}
