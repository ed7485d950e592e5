//! Vision encoders as exporters write them (`tools/record_vision_exports.py`): with masks that show everything, a filter of empty pictures, position ids that
//! rounding or a wrong type has damaged, and in other precisions. Judged by transformers and ONNX Runtime.

mod common;

use common::{Run, Work, npy, relative_l2, rockshard, unfolded};
use rockshard_manifest::{ImportCheck, Manifest};
use rockshard_onnx::encode;
use rockshard_onnx::schema::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};
use rockshard_tensor::{Tensor, write_npy};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Whether the reference gives what the original's engine gave.
const SAME: f64 = 1e-5;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vision_exports").join(name)
}

/// A model's directory with a recorded file under each of these names.
fn directory(work: &Work, files: &[(&str, &str)]) -> String {
    let folder = work.path("model");
    std::fs::create_dir_all(folder.join("onnx")).unwrap();
    std::fs::copy(data("config.json"), folder.join("config.json")).unwrap();
    for (recorded, name) in files {
        std::fs::copy(data(recorded), folder.join("onnx").join(name)).unwrap();
    }
    folder.display().to_string()
}

/// Convert a directory, comparing it with its file.
fn convert(work: &Work, source: &str) -> (Manifest, Run) {
    let pack = work.path("pack");
    let out = pack.display().to_string();
    let run = rockshard(&["convert", source, "--out", &out, "--wide-weights", "--check"]);
    assert!(run.output.status.success(), "{}{}", run.stdout(), run.stderr());
    let manifest = std::fs::read(pack.join("manifest.json")).unwrap();
    (Manifest::parse(&manifest).unwrap(), run)
}

/// What the pack's reference makes of the recorded pixels.
fn features(work: &Work, manifest: &Manifest) -> Tensor {
    let pixels = npy(&data("pixel_values.npy"));
    let pixels = pixels.reshape(manifest.models[0].inputs[0].shape.clone()).unwrap();
    let file = work.path("pixels.npy");
    write_npy(&pixels, &mut File::create(&file).unwrap()).unwrap();
    let (pack, out) = (work.path("pack").display().to_string(), work.path("out"));
    let (input, folder) = (format!("pixel_values={}", file.display()), out.display().to_string());
    let options = ["--device", "cpu", "--input", &input, "--out", &folder, "--quiet"];
    rockshard(&[&["run", pack.as_str()][..], &options].concat()).success();
    npy(&out.join("image_features.npy"))
}

/// Operators of all shards' graphs.
fn operators(manifest: &Manifest) -> Vec<&str> {
    manifest.models[0].shards.iter().flat_map(|s| s.operators.keys()).map(String::as_str).collect()
}

fn count(manifest: &Manifest, operator: &str) -> usize {
    manifest.models[0].shards.iter().filter_map(|s| s.operators.get(operator)).sum()
}

fn notes<'a>(manifest: &'a Manifest, kind: &str) -> Vec<&'a str> {
    let notes = manifest.models[0].notes.iter().map(String::as_str);
    notes.filter(|note| note.starts_with(kind)).collect()
}

/// transformers' whole get_image_features: of the masks and the filter nothing is left, neither as inputs nor as operators.
#[test]
fn masks_that_show_everything_are_left_out() {
    let work = Work::new();
    let source = directory(&work, &[("dynamo.onnx", "vision_encoder.onnx")]);
    let (manifest, run) = convert(&work, &source);
    let inputs: Vec<&str> = manifest.models[0].inputs.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(inputs, ["pixel_values"]);
    for operator in ["Where", "Expand", "Gather", "Equal", "Cast", "ReduceSum"] {
        assert!(
            !operators(&manifest).contains(&operator),
            "{operator}: {:?}",
            operators(&manifest)
        );
    }
    assert_eq!(manifest.models[0].shards.iter().filter(|s| s.inputs.is_empty()).count(), 0);
    // A layer has six biases and two residuals, and positions are added once; a mask would be one more a layer.
    assert_eq!(count(&manifest, "Add"), 17);
    let plain = Work::new();
    let source = directory(&plain, &[("torchscript.onnx", "vision_encoder.onnx")]);
    let (other, _) = convert(&plain, &source);
    assert_eq!(count(&other, "Add"), 17, "whatever exported it");

    let constant = notes(&manifest, "constant: ");
    assert!(constant.iter().any(|note| note.contains("pixel_attention_mask")), "{constant:?}");
    assert!(constant.iter().any(|note| note.contains("0 throughout")), "{constant:?}");
    assert!(
        unfolded(&run.stdout()).contains("vision: constant: input \"pixel_attention_mask\""),
        "{}",
        run.stdout()
    );
    assert!(notes(&manifest, "repaired: ").is_empty() && notes(&manifest, "kept: ").is_empty());
    assert!(
        matches!(manifest.models[0].import, Some(ImportCheck::Pass { .. })),
        "{:?}",
        manifest.models[0].import
    );
    let error = relative_l2(&features(&work, &manifest), &npy(&data("image_features.npy")));
    assert!(error < SAME, "{error:.1e}");
}

/// Damaged and undamaged files give the same features, transformers' own; what was repaired is said, and does not fail the check.
#[test]
fn damaged_position_ids_are_repaired_and_said() {
    let (good, damaged) =
        (npy(&data("image_features.npy")), npy(&data("image_features_damaged.npy")));
    assert!(relative_l2(&damaged, &good) > 0.5, "the damage shows");
    for (file, repairs) in [
        ("dynamo_damaged.onnx", &["one too low"][..]),
        ("torchscript.onnx", &["real numbers as indices"]),
        ("torchscript_damaged.onnx", &["real numbers as indices", "one too low"]),
    ] {
        let work = Work::new();
        let source = directory(&work, &[(file, "vision_encoder.onnx")]);
        let (manifest, run) = convert(&work, &source);
        let repaired = notes(&manifest, "repaired: ");
        assert_eq!(repaired.len(), repairs.len(), "{file}: {repaired:?}");
        for (note, said) in repaired.iter().zip(repairs) {
            assert!(note.contains(said) && note.contains("embedding"), "{file}: {note}");
            assert!(run.stderr().contains(said), "{file}: {}", run.stderr());
        }
        let import = &manifest.models[0].import;
        assert!(matches!(import, Some(ImportCheck::Pass { .. })), "{file}: {import:?}");
        let error = relative_l2(&features(&work, &manifest), &good);
        eprintln!("{file}: relative L2 {error:.2e} from transformers");
        assert!(error < SAME, "{file}: {error:.1e}");

        let pack = work.path("pack").display().to_string();
        let run = rockshard(&["validate", &pack, "--device", "cpu", "--original", &source]);
        assert!(run.output.status.success(), "{file}: {}{}", run.stdout(), run.stderr());
        assert!(run.stderr().contains("compared as it was read"), "{file}: {}", run.stderr());
    }
}

/// A file by itself keeps its mask as an input, and position ids that depend on it.
#[test]
fn a_file_by_itself_keeps_its_mask() {
    let work = Work::new();
    let (file, out) =
        (data("dynamo_damaged.onnx").display().to_string(), work.path("no").display().to_string());
    let refused = rockshard(&["convert", &file, "--out", &out, "--quiet"]).exits(1);
    assert!(refused.contains("NonZero"), "{refused}");
    let file = data("torchscript.onnx").display().to_string();
    rockshard(&["convert", &file, "--out", &out, "--quiet"]).success();
    let manifest = Manifest::parse(&std::fs::read(work.path("no/manifest.json")).unwrap()).unwrap();
    let inputs: Vec<&str> = manifest.models[0].inputs.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(inputs, ["pixel_values", "patch_attention_mask"]);
    assert_eq!(notes(&manifest, "repaired: ").len(), 1);
}

/// Weights of 16 and 4 bits give what ONNX Runtime gives with the same files.
#[test]
fn other_precisions_are_read() {
    for (precision, limit, dequantised) in
        [("fp16", 2e-3, false), ("q4", SAME, true), ("q4f16", 2e-3, true)]
    {
        let work = Work::new();
        let name = format!("vision_encoder_{precision}.onnx");
        let source = directory(&work, &[(&format!("dynamo_{precision}.onnx"), &name)]);
        let (manifest, _) = convert(&work, &source);
        let expected = npy(&data(&format!("image_features_{precision}.npy")));
        let error = relative_l2(&features(&work, &manifest), &expected);
        eprintln!(
            "{precision}: relative L2 {error:.2e} from ONNX Runtime, import {:?}",
            manifest.models[0].import
        );
        assert!(error < limit, "{precision}: {error:.1e}");
        let dequantise = notes(&manifest, "dequantised: ");
        assert_eq!(dequantise.len(), usize::from(dequantised), "{dequantise:?}");
        assert!(
            dequantise.iter().all(|note| note.contains("13 products, 4 bits each in blocks of 32")),
            "{dequantise:?}"
        );
        assert!(
            !matches!(manifest.models[0].import, Some(ImportCheck::Fail { .. })),
            "{:?}",
            manifest.models[0].import
        );
    }
}

/// The most exact file is taken; where there is none that can be read, the error says which could.
#[test]
fn quantised_files_name_what_works() {
    let work = Work::new();
    let both =
        [("dynamo.onnx", "vision_encoder.onnx"), ("dynamo_q4.onnx", "vision_encoder_q4.onnx")];
    let source = directory(&work, &both);
    let (manifest, _) = convert(&work, &source);
    assert!(notes(&manifest, "dequantised: ").is_empty());

    let out = work.path("no").display().to_string();
    let refuse = |source: &str| rockshard(&["convert", source, "--out", &out, "--quiet"]).exits(1);
    let beside = work.path("model/onnx/vision_encoder_int8.onnx");
    std::fs::copy(data("dynamo_int8.onnx"), &beside).unwrap();
    let error = refuse(&beside.display().to_string());
    assert!(
        error.contains("can be converted is vision_encoder.onnx, vision_encoder_q4.onnx"),
        "{error}"
    );
    for (_, name) in both {
        std::fs::remove_file(work.path("model/onnx").join(name)).unwrap();
    }
    let error = refuse(&source);
    let all = "vision_encoder.onnx, vision_encoder_fp16.onnx, vision_encoder_q4.onnx, vision_encoder_q4f16.onnx";
    assert!(error.contains("vision_encoder_int8.onnx") && error.contains(all), "{error}");
    let error = refuse(&beside.display().to_string());
    assert!(error.contains(all), "{error}");
    assert!(!work.path("no").exists());
}

/// A mask of real numbers is not known to be ones: it stays an input, and it is said why.
#[test]
fn a_mask_of_real_numbers_stays_and_is_said() {
    let work = Work::new();
    let source = directory(&work, &[]);
    let input = |name: &str, dims: &[i64]| {
        let dim = |&extent: &i64| Dimension {
            value: Some(dimension::Value::DimValue(extent)),
            ..Dimension::default()
        };
        let tensor = type_proto::Tensor {
            elem_type: Some(DataType::Float as i32),
            shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
        };
        let value = Some(type_proto::Value::TensorType(tensor));
        ValueInfoProto {
            name: Some(name.into()),
            r#type: Some(TypeProto { value, ..TypeProto::default() }),
            ..ValueInfoProto::default()
        }
    };
    let add = NodeProto {
        op_type: Some("Add".into()),
        input: vec!["pixel_values".into(), "pixel_mask".into()],
        output: vec!["image_features".into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![add],
        input: vec![input("pixel_values", &[1, 3, 64, 64]), input("pixel_mask", &[1, 1, 64, 64])],
        output: vec![input("image_features", &[1, 3, 64, 64])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    std::fs::write(work.path("model/onnx/vision_encoder.onnx"), encode(&model)).unwrap();
    let (manifest, run) = convert(&work, &source);
    assert_eq!(manifest.models[0].inputs.len(), 2);
    let kept = notes(&manifest, "kept: ");
    assert!(matches!(&kept[..], [note] if note.contains("\"pixel_mask\"")), "{kept:?}");
    assert!(unfolded(&run.stdout()).contains(kept[0]), "{}", run.stdout());
}
