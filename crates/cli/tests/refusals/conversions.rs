//! Models that are not converted, and ways in which a model is not converted.

use crate::CONVERT;
use crate::models::{
    Extent, encode, floats, good, integers, model, node, permuted, product, value, weight,
    with_external,
};
use crate::scratch::Scratch;
use rockshard_onnx::schema::ModelProto;
use std::fs;

/// `convert` refuses a file.
fn refuses_bytes(bytes: impl AsRef<[u8]>, parts: &[&str]) {
    let scratch = Scratch::new();
    scratch.write("model.onnx", bytes);
    scratch.refuses(CONVERT, parts);
}

/// `convert` refuses a model.
fn refuses_model(model: &ModelProto, parts: &[&str]) {
    refuses_bytes(encode(model), parts);
}

#[test]
fn a_good_model_converts() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&good()));
    scratch.succeeds(CONVERT);
    assert!(
        scratch.path("pack/manifest.json").is_file() && !scratch.path(".pack.partial").exists()
    );
}

#[test]
fn truncated_onnx() {
    let whole = encode(&good());
    for length in [1, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        refuses_bytes(&whole[..length], &["model.onnx", "not an ONNX model, or cut short"]);
    }
    refuses_bytes([], &["model.onnx", "the model has no graph"]);
}

#[test]
fn garbage_onnx() {
    refuses_bytes(
        "<html>404: not found</html>\n",
        &["model.onnx", "not an ONNX model, or cut short"],
    );
    refuses_bytes([0xff; 4096], &["model.onnx", "not an ONNX model, or cut short"]);
}

#[test]
fn a_source_that_is_no_model() {
    let scratch = Scratch::new();
    scratch.refuses("convert gone --out pack", &["gone: no such file or directory"]);
    fs::create_dir(scratch.path("empty")).unwrap();
    scratch.refuses("convert empty --out pack", &["empty: is no model that is known"]);
    fs::create_dir(scratch.path("empty/unet")).unwrap();
    scratch.refuses("convert empty --out pack", &["empty: text_encoder/model.onnx is missing"]);
}

#[test]
fn external_data_outside_the_directory() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("model")).unwrap();
    scratch.write("x", [0; 64]);
    let outside = scratch.path("x");
    for location in ["../x", "a/../../x", outside.to_str().unwrap()] {
        scratch.write("model/m.onnx", encode(&with_external(location)));
        let parts = [
            "product",
            "tensor \"w\"",
            "external data",
            location,
            "is not made of plain relative components",
        ];
        scratch.refuses("convert model/m.onnx --out pack", &parts);
    }
}

#[test]
fn external_data_missing() {
    refuses_model(&with_external("gone.data"), &["tensor \"w\"", "gone.data", "No such file"]);
}

#[test]
fn external_data_too_short() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&with_external("short.data")));
    scratch.write("short.data", [0; 63]);
    scratch.refuses(CONVERT, &["tensor \"w\"", "needs bytes 0..64 of", "short.data, which has 63"]);
}

#[test]
fn cyclic_graph() {
    let cycle = |first: &str, second: &str| {
        [node(first, "Add", "x b", "a"), node(second, "Relu", "a", "b")]
    };
    let after = node("after", "Relu", "b", "y");
    for order in [[0, 1, 2], [2, 1, 0]] {
        let [first, second] = cycle("first", "second");
        let nodes = [first, second, after.clone()];
        let scratch = Scratch::new();
        scratch.write("model.onnx", encode(&model(order.map(|i| nodes[i].clone()).to_vec())));
        let ran = scratch.run(CONVERT);
        // Either node of the cycle may be named, but not the one after it.
        let names = ["first", "second"].map(|n| {
            ran.stderr.contains(&format!("the graph is cyclic: node {n:?} needs its own output"))
        });
        assert!(names.contains(&true), "{}", ran.stderr);
        scratch.refuses(CONVERT, &["model.onnx", "cyclic"]);
    }
    refuses_model(
        &model(vec![node("self", "Add", "x y", "y")]),
        &["the graph is cyclic: node \"self\""],
    );
}

#[test]
fn nan_weights() {
    let mut values = [0.5; 16];
    values[7] = f32::NAN;
    let mut model = good();
    model.graph.as_mut().unwrap().initializer[0] = weight(&values);
    refuses_model(&model, &["model: weight \"w\" of node \"product\" contains NaN"]);
    values[7] = f32::NEG_INFINITY;
    model.graph.as_mut().unwrap().initializer[0] = weight(&values);
    refuses_model(&model, &["model: weight \"w\" of node \"product\" contains -inf"]);
}

#[test]
fn unsupported_operator() {
    let boxes = node("detector/boxes", "NonMaxSuppression", "x w", "y");
    refuses_model(
        &model(vec![boxes]),
        &["node \"detector/boxes\" (NonMaxSuppression, opset 17): its number of results depends"],
    );
    let odd = node("detector/odd", "Hardmax", "x", "y");
    refuses_model(
        &model(vec![odd.clone()]),
        &["node \"detector/odd\" (Hardmax, opset 17): operator is not supported"],
    );
    let mut foreign = odd;
    foreign.domain = Some("com.example".into());
    refuses_model(
        &model(vec![foreign]),
        &["node \"detector/odd\" (Hardmax, opset 17)", "domain \"com.example\""],
    );
}

#[test]
fn unsupported_opset() {
    for opset in [1, 10, 27, i64::MAX] {
        let mut model = good();
        model.opset_import[0].version = Some(opset);
        let number = format!("opset {opset} is not supported");
        refuses_model(
            &model,
            &["model.onnx", &number, "export the model with an opset from 11 to 26"],
        );
    }
}

#[test]
fn dynamic_shape() {
    let mut model = good();
    model.graph.as_mut().unwrap().input[0] =
        value("x", &[Extent::Named("batch"), Extent::Fixed(4)]);
    refuses_model(
        &model,
        &[
            "model.onnx",
            "input \"x\": dimension 0 (batch) is dynamic and nothing fixes it",
            "known dimensions: none",
        ],
    );
}

#[test]
fn inputs_and_outputs_that_nothing_makes() {
    refuses_model(
        &model(vec![node("sum", "Add", "x ghost", "y")]),
        &["node \"sum\" (Add, opset 17)", "\"ghost\" is made by no node"],
    );
    refuses_model(
        &model(vec![node("product", "MatMul", "x w", "z")]),
        &["output \"y\" is made by no node"],
    );
}

#[test]
fn shapes_that_do_not_fit() {
    let mut model = model(vec![product()]);
    model.graph.as_mut().unwrap().input[0] = value("x", &[Extent::Fixed(1), Extent::Fixed(5)]);
    refuses_model(&model, &["node \"product\" (MatMul, opset 17)", "5"]);
}

#[test]
fn resolutions() {
    let scratch = Scratch::with_model();
    let convert = |size: &str| format!("convert tiny-lcm --out pack --resolution={size}");
    scratch.refuses(
        &convert("100x128"),
        &[
            "resolution 100x128: unet needs width and height divisible by 32",
            "the nearest sizes are 96x128 and 128x128",
        ],
    );
    scratch.refuses(
        &convert("128x132"),
        &["resolution 128x132: unet needs width and height divisible by 32"],
    );
    scratch.refuses(&convert("8x8"), &["resolution 8x8: width and height must be from 64 to 2048"]);
    for size in ["128", "0x128", "-8x8", "axb"] {
        scratch.misuses(&convert(size), &["--resolution", size]);
    }
}

#[test]
fn existing_output() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&good()));
    fs::create_dir(scratch.path("pack")).unwrap();
    scratch.write("pack/mine", "keep this");
    scratch.write("file", "keep this");
    for out in ["pack", "pack/", "file", "."] {
        let message = format!("{out} exists already; remove it or choose another --out");
        scratch.refuses(&format!("convert model.onnx --out {out}"), &[&message]);
        scratch.refuses(&format!("convert model.onnx --resume --out {out}"), &[&message]);
    }
    for file in ["pack/mine", "file"] {
        assert_eq!(fs::read_to_string(scratch.path(file)).unwrap(), "keep this");
    }
}

#[test]
fn more_shards_than_nodes() {
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&good()));
    scratch
        .refuses(&format!("{CONVERT} --shards 5"), &["model: 5 shards asked for", "only 1 nodes"]);
    scratch.misuses(&format!("{CONVERT} --shards 0"), &["--shards"]);
}

/// A connector's rows of 8320 values are longer than an axis may be, until the product over them is a convolution: it converts.
#[test]
fn a_connector_of_wide_rows_converts() {
    const CHANNELS: i64 = 2080;
    const OUT: i64 = 4;
    let (two, four) = (2 * CHANNELS, 4 * CHANNELS);
    let mut model = good();
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("x", &[Extent::Fixed(1), Extent::Fixed(16), Extent::Fixed(CHANNELS)])];
    graph.output = vec![value("y", &[Extent::Fixed(1), Extent::Fixed(4), Extent::Fixed(OUT)])];
    let shapes: [(&str, &[i64]); 4] = [
        ("grid", &[1, 4, 4, CHANNELS]),
        ("pairs", &[1, 4, 2, two]),
        ("blocks", &[1, 2, 2, four]),
        ("rows", &[1, 4, four]),
    ];
    graph.initializer = shapes.map(|(name, shape)| integers(name, shape)).into();
    graph.initializer.push(floats("w", &[four, OUT]));
    let turned = |name: &str, from: &str, to: &str| permuted(name, from, to, &[0, 2, 1, 3]);
    graph.node = vec![
        node("a", "Reshape", "x grid", "a"),
        node("b", "Reshape", "a pairs", "b"),
        turned("c", "b", "c"),
        node("d", "Reshape", "c blocks", "d"),
        turned("e", "d", "e"),
        node("f", "Reshape", "e rows", "f"),
        node("g", "MatMul", "f w", "y"),
    ];
    let scratch = Scratch::new();
    scratch.write("model.onnx", encode(&model));
    scratch.succeeds(CONVERT);
}
