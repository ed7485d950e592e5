//! Small files that ask for huge tensors, much work or overflowing arithmetic are refused, or imported without doing it.

use bytes::Bytes;
use prost::Message;
use rockshard_graph::Graph;
use rockshard_import::{ImportOptions, import_model};
use rockshard_onnx::Model;
use rockshard_onnx::schema::tensor_shape_proto::{Dimension, dimension};
use rockshard_onnx::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_proto::DataType, type_proto,
};
use std::path::Path;

const HUGE: i64 = 1 << 62;

/// A model under construction.
#[derive(Default)]
struct Build(GraphProto);

impl Build {
    fn input(mut self, name: &str, kind: DataType, shape: &[i64]) -> Self {
        let dim = shape
            .iter()
            .map(|&d| Dimension {
                value: Some(dimension::Value::DimValue(d)),
                ..Dimension::default()
            })
            .collect();
        let tensor = type_proto::Tensor {
            elem_type: Some(kind as i32),
            shape: Some(TensorShapeProto { dim }),
        };
        let r#type = TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        };
        self.0.input.push(ValueInfoProto {
            name: Some(name.into()),
            r#type: Some(r#type),
            ..ValueInfoProto::default()
        });
        self
    }

    fn x(self, shape: &[i64]) -> Self {
        self.input("x", DataType::Float, shape)
    }

    fn constant(mut self, name: &str, kind: DataType, dims: &[i64], raw: Vec<u8>) -> Self {
        let raw_data = Some(Bytes::from(raw));
        let data_type = Some(kind as i32);
        self.0.initializer.push(TensorProto {
            name: Some(name.into()),
            data_type,
            dims: dims.to_vec(),
            raw_data,
            ..TensorProto::default()
        });
        self
    }

    fn ints(self, name: &str, values: &[i64]) -> Self {
        self.constant(
            name,
            DataType::Int64,
            &[values.len() as i64],
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    /// Zeros.
    fn floats(self, name: &str, dims: &[i64]) -> Self {
        let count: i64 = dims.iter().product();
        self.constant(name, DataType::Float, dims, vec![0; 4 * count as usize])
    }

    fn node(mut self, op: &str, names: &str, attributes: &[(&str, &[i64])]) -> Self {
        let (input, output) = names.split_once(" -> ").unwrap();
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let attribute = attributes.iter().map(|(name, ints)| AttributeProto {
            name: Some((*name).into()),
            i: ints.first().copied(),
            ints: ints.to_vec(),
            ..AttributeProto::default()
        });
        let attribute = attribute.collect();
        self.0.node.push(NodeProto {
            op_type: Some(op.into()),
            input: list(input),
            output: list(output),
            attribute,
            ..NodeProto::default()
        });
        self
    }

    fn text(mut self, name: &str, value: &'static str) -> Self {
        let attribute = AttributeProto {
            name: Some(name.into()),
            s: Some(Bytes::from_static(value.as_bytes())),
            ..AttributeProto::default()
        };
        self.0.node.last_mut().unwrap().attribute.push(attribute);
        self
    }

    fn import(mut self, opset: i64) -> Result<Graph, String> {
        let outputs = self.0.node.last().unwrap().output.iter();
        self.0.output = outputs
            .map(|o| ValueInfoProto { name: Some(o.clone()), ..ValueInfoProto::default() })
            .collect();
        let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(opset) }];
        let proto = ModelProto { graph: Some(self.0), opset_import, ..ModelProto::default() };
        let model = Model::decode(proto.encode_to_vec().into(), Path::new("hostile.onnx")).unwrap();
        import_model(&model, &ImportOptions::fixed(), None).map_err(|e| e.to_string())
    }
}

fn refused(what: &str, opset: i64, build: Build, message: &str) {
    match build.import(opset) {
        Ok(_) => panic!("{what}: imported"),
        Err(error) => {
            assert!(error.contains(message), "{what}: {error:?} does not say {message:?}")
        }
    }
}

#[test]
fn extents_that_overflow_are_refused() {
    let new = Build::default;
    let image: &[i64] = &[1, 4, 8, 8];
    let kernel = || new().x(image).floats("w", &[4, 4, 3, 3]);
    refused(
        "an input of 2^80 elements",
        17,
        new().x(&[1 << 40, 1 << 40]).node("Neg", "x -> y", &[]),
        "is over",
    );
    refused(
        "an input of no elements but endless strides",
        17,
        new().x(&[0, HUGE, HUGE]).node("Neg", "x -> y", &[]),
        "is over",
    );
    refused(
        "an initializer of that shape",
        17,
        new().floats("w", &[0]).constant("v", DataType::Float, &[0, HUGE, HUGE], vec![]).node(
            "Add",
            "v w -> y",
            &[],
        ),
        "is over",
    );
    refused("an input of 40 axes", 17, new().x(&[1; 40]).node("Neg", "x -> y", &[]), "40 axes");
    refused(
        "Reshape",
        17,
        new().x(image).ints("s", &[HUGE, 4]).node("Reshape", "x s -> y", &[]),
        "is over",
    );
    refused(
        "Reshape with an open axis",
        17,
        new().x(image).ints("s", &[HUGE, 4, -1]).node("Reshape", "x s -> y", &[]),
        "is over",
    );
    refused(
        "Expand",
        17,
        new().floats("c", &[1]).ints("s", &[HUGE, HUGE]).node("Expand", "c s -> y", &[]),
        "is over",
    );
    refused(
        "ConstantOfShape",
        17,
        new().ints("s", &[HUGE, HUGE]).node("ConstantOfShape", "s -> y", &[]),
        "is over",
    );
    refused(
        "Pad",
        17,
        new().x(image).ints("p", &[0, 0, 0, HUGE, 0, 0, 0, HUGE]).node("Pad", "x p -> y", &[]),
        "is over",
    );
    refused(
        "Pad, negative",
        17,
        new().x(image).ints("p", &[0, 0, 0, i64::MIN, 0, 0, 0, 0]).node("Pad", "x p -> y", &[]),
        "crop more than there is",
    );
    refused(
        "Conv groups",
        17,
        kernel().node("Conv", "x w -> y", &[("group", &[i64::MAX])]),
        "groups of 4 filters",
    );
    refused(
        "Conv pads",
        17,
        kernel().node("Conv", "x w -> y", &[("pads", &[HUGE, HUGE, HUGE, HUGE])]),
        "is over",
    );
    refused(
        "Conv dilations",
        17,
        kernel().node("Conv", "x w -> y", &[("dilations", &[HUGE, HUGE])]),
        "larger than the padded input",
    );
    refused(
        "Resize of nothing",
        17,
        new().x(&[1, 4, 0, 8]).floats("r", &[0]).ints("s", &[1, 4, 8, 8]).node(
            "Resize",
            "x r r s -> y",
            &[],
        ),
        "axis 2 of shape",
    );
    refused(
        "Split into many",
        18,
        new().x(image).node("Split", "x -> a y", &[("num_outputs", &[HUGE])]),
        "num_outputs is",
    );
    refused(
        "Split sizes",
        17,
        new().x(image).ints("s", &[HUGE, HUGE, HUGE, HUGE]).node(
            "Split",
            "x s -> a b c y",
            &[("axis", &[1])],
        ),
        "axis of 4",
    );
    refused(
        "Unsqueeze",
        17,
        new().x(image).ints("a", &[0; 4096]).node("Unsqueeze", "x a -> y", &[]),
        "axes",
    );
    refused(
        "a long list",
        17,
        new().x(image).ints("a", &[0; 5000]).node("Squeeze", "x a -> y", &[]),
        "axes: 5000 values",
    );
    // Whatever it gives, SAME padding of nothing is no overflow.
    let same = new()
        .x(&[1, 4, 0, 8])
        .floats("w", &[4, 4, 3, 3])
        .node("Conv", "x w -> y", &[])
        .text("auto_pad", "SAME_UPPER");
    drop(same.import(17));
}

#[test]
fn little_text_cannot_ask_for_much_memory() {
    let mut ranges =
        Build::default().ints("a", &[0]).ints("b", &[9_000_000]).ints("d", &[1]).x(&[1]);
    for i in 0..8 {
        ranges = ranges.node("Range", &format!("a b d -> r{i}"), &[]);
    }
    refused(
        "eight ranges",
        17,
        ranges.node("Concat", "r0 r1 r2 r3 r4 r5 r6 r7 -> y", &[("axis", &[0])]),
        "too many for a model of this size",
    );
    let tail = 1 << 38;
    let norm = Build::default().x(&[1, tail]).input("g", DataType::Float, &[tail]).node(
        "LayerNormalization",
        "x g -> y",
        &[],
    );
    refused("a bias for a huge axis", 17, norm, "too many for a model of this size");
    let back = Build::default()
        .x(&[tail])
        .ints("b", &[-1])
        .ints("e", &[i64::MIN])
        .ints("a", &[0])
        .ints("s", &[-1]);
    refused(
        "a huge axis backwards",
        17,
        back.node("Slice", "x b e a s -> y", &[]),
        "too many for a model of this size",
    );
    // Folding stops when its work is used up; the rest stays in the graph.
    let mut chain = Build::default().floats("c", &[1]).ints("s", &[2048, 2048]).node(
        "Expand",
        "c s -> v0",
        &[],
    );
    for i in 0..64 {
        chain = chain.node("Exp", &format!("v{i} -> v{}", i + 1), &[]);
    }
    let graph = chain.import(17).unwrap();
    assert!(graph.nodes().len() > 40, "{:?}", graph.operators());
}

#[test]
fn little_text_cannot_ask_for_much_work() {
    let square: &[i64] = &[512, 512];
    let product = Build::default()
        .floats("c", &[1])
        .ints("s", square)
        .node("Expand", "c s -> a", &[])
        .node("MatMul", "a a -> y", &[]);
    assert_eq!(
        product.import(17).unwrap().operators().get("MatMul"),
        Some(&1),
        "2^27 multiplications are left to the device"
    );
    let edge = 1 << 20;
    let pool = Build::default().floats("c", &[1, 1, 2, 2]).node(
        "MaxPool",
        "c -> y",
        &[
            ("kernel_shape", &[edge, edge]),
            ("pads", &[edge, edge, edge, edge]),
            ("strides", &[edge, edge]),
        ],
    );
    assert_eq!(
        pool.import(17).unwrap().operators().get("MaxPool"),
        Some(&1),
        "2^40 comparisons are left to the device"
    );
}

#[test]
fn backward_slices_end_where_numpy_ends_them() {
    // (start, end, step) of an axis of 5, and the length of the result.
    for ([start, end, step], length) in [
        ([4, i64::MIN, -1], 5),
        ([-1, 0, -2], 2),
        ([2, 2, -1], 0),
        ([0, -6, i64::MIN], 1),
        ([-9, i64::MIN, -1], 0),
    ] {
        let new = Build::default()
            .x(&[5])
            .ints("b", &[start])
            .ints("e", &[end])
            .ints("a", &[0])
            .ints("s", &[step]);
        let graph = new.node("Slice", "x b e a s -> y", &[]).import(17).unwrap();
        assert_eq!(graph.value(graph.outputs[0]).shape, [length], "[{start}:{end}:{step}]");
    }
}

#[test]
fn steps_beyond_an_axis_take_its_first_element() {
    let new = Build::default()
        .x(&[1])
        .floats("c", &[4, 4])
        .ints("b", &[1])
        .ints("e", &[4])
        .ints("a", &[0])
        .ints("s", &[i64::MAX]);
    let graph =
        new.node("Slice", "c b e a s -> t", &[]).node("Add", "x t -> y", &[]).import(17).unwrap();
    assert_eq!(graph.value(graph.outputs[0]).shape, [1, 4]);
}
