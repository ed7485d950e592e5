//! Inputs so large, or so small, that a block leaves float16's range: validation without sandwich falls below the threshold and names
//! the layer; with `--sandwich auto`, calibrated on the same inputs, it passes.

mod common;

use common::{Work, model, rockshard};
use rockshard_tensor::{DType, Tensor, write_npy};
use std::path::{Path, PathBuf};

fn write_input(path: &Path, shape: &[usize], factor: f32) {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * factor).collect();
    let mut file = Vec::new();
    write_npy(&Tensor::from_f32(shape, values), &mut file).unwrap();
    std::fs::write(path, file).unwrap();
}

/// Convert one part of the bundled model with a sandwich option and validate it on the input.
fn validate(work: &Work, part: &Path, input: &str, sandwich: &str) -> (i32, serde_json::Value) {
    let pack = work.path(&format!("pack-{sandwich}"));
    let (pack, part) = (pack.to_str().unwrap(), part.to_str().unwrap());
    rockshard(&[
        "convert",
        part,
        "--out",
        pack,
        "--shards",
        "block",
        "--sandwich",
        sandwich,
        "--calibrate",
        input,
        "--quiet",
    ])
    .success();
    let run = rockshard(&["validate", pack, "--input", input, "--json", "--quiet"]);
    (run.output.status.code().unwrap(), serde_json::from_str(&run.stdout()).unwrap())
}

fn first_divergence(report: &serde_json::Value) -> &serde_json::Value {
    &report["models"][0]["first_divergence"]
}

#[test]
fn a_block_that_overflows_is_named_and_then_repaired() {
    let work = Work::new();
    let part = fixed_part(&work, "vae_encoder", &[("sample", &[1, 3, 64, 64])]);
    let file = work.path("large.npy");
    write_input(&file, &[1, 3, 64, 64], 4.0e4);
    let input = format!("sample={}", file.display());

    let (code, report) = validate(&work, &part, &input, "off");
    assert_eq!(code, 3, "{report:#}");
    let layer = first_divergence(&report)["layer"].as_str().unwrap();
    let layers = report["models"][0]["layers"].as_array().unwrap();
    let named = layers.iter().position(|l| l["name"] == layer).unwrap();
    assert!(named > 0 && named + 1 < layers.len(), "the layer lies within the model: {layer}");
    let verdict = |l: &serde_json::Value| l["verdict"].to_string();
    assert!(layers[..named].iter().all(|l| verdict(l).contains("pass")), "{report:#}");
    assert!(verdict(&layers[named]).contains("fail"), "{report:#}");

    let (code, report) = validate(&work, &part, &input, "auto");
    assert_eq!(code, 0, "{report:#}");
    assert!(first_divergence(&report).is_null());
}

#[test]
fn a_block_that_underflows_is_named_and_then_repaired() {
    let work = Work::new();
    let part = work.path("chain.onnx");
    write_chain(&part);
    let file = work.path("small.npy");
    write_input(&file, &[1, 8, 16, 16], 2.0e-7);
    let input = format!("x={}", file.display());

    let (code, report) = validate(&work, &part, &input, "off");
    assert_eq!(code, 3, "{report:#}");
    assert!(first_divergence(&report)["layer"].as_str().is_some(), "{report:#}");

    let (code, report) = validate(&work, &part, &input, "auto");
    assert_eq!(code, 0, "{report:#}");
}

/// Three convolutions without bias, each after an activation that passes small values on in proportion, with a residual each.
fn write_chain(path: &Path) {
    use rockshard_graph::{Binary, Graph, Op, Unary, Window};
    let mut graph = Graph::new("chain");
    let shape = vec![1, 8, 16, 16];
    let mut x = graph.add_value("x", DType::F32, shape.clone());
    graph.inputs.push(x);
    let window = Window { kernel: [3, 3], strides: [1, 1], pads: [1; 4], dilations: [1, 1] };
    for i in 0..3 {
        let weights =
            (0..8 * 8 * 9).map(|j| ((j * 31 + i * 17) % 23) as f32 / 80.0 - 0.1).collect();
        let weight = graph.add_constant(format!("w{i}"), Tensor::from_f32([8, 8, 3, 3], weights));
        let mut node = |op: Op, inputs: Vec<_>, name: String| {
            let out = graph.add_value(name.clone(), DType::F32, shape.clone());
            graph.add_node(format!("/block{i}/{name}"), op, inputs, out);
            out
        };
        let active = node(Op::Unary(Unary::LeakyRelu(0.2)), vec![x], format!("active{i}"));
        let conv = node(
            Op::Conv { window: window.clone(), group: 1 },
            vec![active, weight],
            format!("conv{i}"),
        );
        x = node(Op::Binary(Binary::Add), vec![x, conv], format!("sum{i}"));
    }
    graph.outputs.push(x);
    rockshard_converter::write_onnx(&graph, path).unwrap();
}

/// A part of the bundled model as a file of its own with its dynamic dimensions fixed.
fn fixed_part(work: &Work, part: &str, shapes: &[(&str, &[usize])]) -> PathBuf {
    use rockshard_import::{ImportOptions, import_file};
    let shapes = shapes.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect();
    let graph = import_file(
        &model().join(part).join("model.onnx"),
        &ImportOptions { shapes, ..ImportOptions::default() },
    )
    .unwrap();
    let path = work.path(&format!("{part}.onnx"));
    rockshard_converter::write_onnx(&graph, &path).unwrap();
    path
}
