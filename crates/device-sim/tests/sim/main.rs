//! The simulated device on small graphs.

mod refusals;

use half::f16;
use rockshard_cost::Rk3588;
use rockshard_device::{Device, DeviceErrorKind, Session, ShardFile};
use rockshard_device_sim::{Numerics, SimDevice};
use rockshard_graph::{Binary, Graph, Op, Unary, ValueId, Window, infer};
use rockshard_kernels::{Precision, evaluate};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_onnx::schema::{
    self, ModelProto, NodeProto, tensor_shape_proto::dimension, type_proto,
};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;

const CORE: CoreId = CoreId::Npu(0);

fn noise(shape: &[usize], seed: u64, size: f32) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape.iter().product::<usize>()).map(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
    });
    Tensor::from_f32(shape.to_vec(), values.collect())
}

fn input(graph: &mut Graph, name: &str, dtype: DType, shape: &[usize]) -> ValueId {
    let id = graph.add_value(name, dtype, shape.to_vec());
    graph.inputs.push(id);
    id
}

fn node(graph: &mut Graph, name: &str, op: Op, inputs: &[ValueId]) -> ValueId {
    let values: Vec<_> = inputs.iter().map(|&v| graph.value(v)).collect();
    let (dtype, shape) = infer(&op, &values).unwrap();
    let out = graph.add_value(name, dtype, shape);
    graph.add_node(name, op, inputs.to_vec(), out);
    out
}

fn conv(kernel: usize) -> Op {
    Op::Conv {
        window: Window {
            kernel: [kernel; 2],
            strides: [1; 2],
            pads: [kernel / 2; 4],
            dilations: [1; 2],
        },
        group: 1,
    }
}

fn shard(graph: &Graph) -> ShardFile {
    let specs = |ids: &[ValueId]| {
        let spec = |&id: &ValueId| {
            let value = graph.value(id);
            TensorSpec {
                name: value.name.clone(),
                dtype: value.dtype,
                shape: value.shape.clone(),
                scale: 1.0,
            }
        };
        ids.iter().map(spec).collect()
    };
    ShardFile {
        name: graph.name.clone(),
        path: "memory".into(),
        inputs: specs(&graph.inputs),
        outputs: specs(&graph.outputs),
    }
}

/// A block with the operators of a U-Net: conv, bias, norm, swish, projections with and without bias, attention, residual.
fn block() -> Graph {
    let mut g = Graph::new("block");
    let x = input(&mut g, "x", DType::F32, &[1, 16, 8, 8]);
    let weight = g.add_constant("conv.weight", noise(&[32, 16, 3, 3], 1, 0.1));
    let bias = g.add_constant("conv.bias", noise(&[1, 32, 1, 1], 2, 0.1));
    let (gamma, beta) = (
        g.add_constant("gamma", noise(&[32], 3, 1.0)),
        g.add_constant("beta", noise(&[32], 4, 0.1)),
    );
    let c = node(&mut g, "conv", conv(3), &[x, weight]);
    let c = node(&mut g, "conv.add", Op::Binary(Binary::Add), &[c, bias]);
    let n = node(&mut g, "norm", Op::GroupNorm { groups: 8, epsilon: 1e-5 }, &[c, gamma, beta]);
    let s = node(&mut g, "swish", Op::Swish { beta: 1.0 }, &[n]);
    let flat = node(&mut g, "flat", Op::Reshape { shape: vec![1, 32, 64] }, &[s]);
    let tokens = node(&mut g, "tokens", Op::Transpose { perm: vec![0, 2, 1] }, &[flat]);
    let project = |g: &mut Graph, name: &str, seed| {
        let w = g.add_constant(format!("{name}.weight"), noise(&[32, 32], seed, 0.2));
        let b = g.add_constant(format!("{name}.bias"), noise(&[32], seed + 20, 0.2));
        let y = node(g, name, Op::MatMul, &[tokens, w]);
        node(g, &format!("{name}.add"), Op::Binary(Binary::Add), &[b, y])
    };
    let (q, k, v) = (project(&mut g, "q", 5), project(&mut g, "k", 6), project(&mut g, "v", 7));
    let heads = |g: &mut Graph, name: &str, value, perm: [usize; 4]| {
        let split =
            node(g, &format!("{name}.split"), Op::Reshape { shape: vec![1, 64, 4, 8] }, &[value]);
        node(g, &format!("{name}.heads"), Op::Transpose { perm: perm.to_vec() }, &[split])
    };
    let (q, k, v) = (
        heads(&mut g, "q", q, [0, 2, 1, 3]),
        heads(&mut g, "k", k, [0, 2, 3, 1]),
        heads(&mut g, "v", v, [0, 2, 1, 3]),
    );
    let a = node(&mut g, "attention", Op::Attention { scale: 0.35 }, &[q, k, v]);
    let a = node(&mut g, "merge", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[a]);
    let a = node(&mut g, "join", Op::Reshape { shape: vec![1, 64, 32] }, &[a]);
    let sum = node(&mut g, "residual", Op::Binary(Binary::Add), &[a, tokens]);
    g.outputs = vec![sum, s];
    g.verify().unwrap();
    g
}

/// Every node in f32.
fn reference(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut known: HashMap<ValueId, Tensor> =
        graph.inputs.iter().copied().zip(inputs.iter().cloned()).collect();
    for node in graph.nodes() {
        let arguments: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|v| graph.constant(*v).unwrap_or_else(|| &known[v]).clone())
            .collect();
        known.insert(
            node.output,
            evaluate(&node.op, &arguments.iter().collect::<Vec<_>>(), Precision::F32).unwrap(),
        );
    }
    graph.outputs.iter().map(|v| known[v].clone()).collect()
}

fn run(graph: Graph, inputs: &[Tensor], numerics: Numerics) -> Vec<Tensor> {
    let shard = shard(&graph);
    SimDevice::new(numerics, Rk3588::default())
        .session(graph, &shard, CORE)
        .unwrap()
        .run(inputs)
        .unwrap()
        .outputs
}

#[test]
fn a_block_is_near_its_reference_and_the_same_with_any_number_of_threads() {
    let graph = block();
    let x = [noise(&[1, 16, 8, 8], 9, 1.0)];
    let exact = reference(&graph, &x);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(graph.clone(), &x, Numerics::default()))
    };
    let found = with(1);
    for (found, exact) in found.iter().zip(&exact) {
        assert_eq!((found.dtype(), found.shape()), (DType::F16, exact.shape()));
        let (a, b) = (found.to_f32().unwrap(), exact.to_f32().unwrap());
        let error = a.iter().zip(&*b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error > 0.0 && error < 0.01, "{error}");
    }
    assert_eq!(found, with(2));
}

#[test]
fn memory_is_freed_at_the_last_use_and_matches_the_model() {
    let graph = block();
    let chip = Rk3588::default();
    let cost = chip.graph(&graph);
    let attention = chip.attention_bytes(4, 64, 64);
    let shard = shard(&graph);
    let mut session = SimDevice::default().session(graph.clone(), &shard, CORE).unwrap();
    let done = session.run(&[noise(&[1, 16, 8, 8], 9, 1.0)]).unwrap();
    assert!((done.modelled.unwrap().as_secs_f64() * 1e6 - cost.micros).abs() < 0.01);
    // swish (output), tokens, q, k, v, attention or a split: far fewer than all values together.
    let all: u64 = graph.nodes().iter().map(|n| graph.value(n.output).npu_bytes()).sum();
    assert_eq!(session.peak_bytes(), 6 * 4096);
    assert!(session.peak_bytes() * 2 < all);
    assert_eq!(cost.internal_bytes, session.peak_bytes() + attention);
}

#[test]
fn constants_by_channel_join_their_operator_and_other_additions_do_not() {
    // 2048 + 1 is 2048 in f16; with one more before the rounding it is 2050.
    let build = |bias: Tensor| {
        let mut g = Graph::new("bias");
        let x = input(&mut g, "x", DType::F32, &[2, 2]);
        let w = g.add_constant("w", Tensor::from_f32([2, 2], vec![1.0; 4]));
        let b = g.add_constant("b", bias);
        let y = node(&mut g, "product", Op::MatMul, &[x, w]);
        let z = node(&mut g, "add", Op::Binary(Binary::Add), &[y, b]);
        g.outputs = vec![z];
        g
    };
    let x = [Tensor::from_f32([2, 2], vec![2048.0, 1.0, 2048.0, 1.0])];
    let out = |bias| run(build(bias), &x, Numerics::default())[0].to_f32().unwrap()[..2].to_vec();
    assert_eq!(out(Tensor::from_f32([2], vec![1.0; 2])), [2050.0; 2]);
    assert_eq!(out(Tensor::from_f32([1], vec![1.0])), [2050.0; 2]);
    assert_eq!(out(Tensor::from_f32([2, 1], vec![1.0; 2])), [2048.0; 2]);
}

#[test]
fn deep_sums_are_cut_and_every_piece_is_rounded() {
    // Ones at `at` and the first channel's 2048: an f16 sum beside 2048 loses ones that it meets alone, and keeps them in pairs.
    let build = |depth: usize, as_conv: bool, values: Vec<f32>| {
        let mut g = Graph::new("deep");
        if as_conv {
            let x = input(&mut g, "x", DType::F32, &[1, depth, 1, 1]);
            let w = g.add_constant("w", Tensor::from_f32([1, depth, 1, 1], values));
            g.outputs = vec![node(&mut g, "conv", conv(1), &[x, w])];
        } else {
            let x = input(&mut g, "x", DType::F32, &[1, depth]);
            let w = g.add_constant("w", Tensor::from_f32([depth, 1], values));
            g.outputs = vec![node(&mut g, "product", Op::MatMul, &[x, w])];
        }
        g
    };
    let out = |depth: usize, as_conv: bool, at: [usize; 2], deepest_sum| {
        let mut values = vec![0.0; depth];
        (values[0], values[at[0]], values[at[1]]) = (2048.0, 1.0, 1.0);
        let graph = build(depth, as_conv, values);
        let x = Tensor::from_f32(graph.value(graph.inputs[0]).shape.clone(), vec![1.0; depth]);
        run(graph, &[x], Numerics { deepest_sum, ..Numerics::default() })[0].to_f32().unwrap()[0]
    };
    let default = Numerics::default().deepest_sum;
    for as_conv in [false, true] {
        // Halves of 1024.
        assert_eq!(out(2048, as_conv, [1, 1023], default), 2050.0);
        assert_eq!(out(2048, as_conv, [1, 1024], default), 2048.0);
        assert_eq!(out(2048, as_conv, [1024, 2047], default), 2050.0);
        assert_eq!(out(2048, as_conv, [1, 1024], None), 2050.0);
        assert_eq!(out(1536, as_conv, [1, 1535], default), 2050.0);
        // 1552 has no halves of whole groups of 16 channels: 1536 and 16. 4096: 1536, 1536 and 1024.
        assert_eq!(out(1552, as_conv, [1, 1535], default), 2050.0);
        assert_eq!(out(1552, as_conv, [1535, 1536], default), 2048.0);
        assert_eq!(out(4096, as_conv, [1536, 3071], default), 2050.0);
        assert_eq!(out(4096, as_conv, [3071, 3072], default), 2048.0);
    }
}

#[test]
fn biases_are_wide_and_constants_by_channel_are_folded_into_weights() {
    let build = |edit: &dyn Fn(&mut Graph, ValueId) -> ValueId| {
        let mut g = Graph::new("fold");
        let x = input(&mut g, "x", DType::F32, &[1, 1, 1, 1]);
        g.outputs = vec![edit(&mut g, x)];
        g
    };
    let scalar =
        |g: &mut Graph, name: &str, v: f32| g.add_constant(name, Tensor::from_f32([], vec![v]));
    let weight =
        |g: &mut Graph, v: f32| g.add_constant("w", Tensor::from_f32([1, 1, 1, 1], vec![v]));
    let out = |edit: &dyn Fn(&mut Graph, ValueId) -> ValueId, x: f32| {
        run(build(edit), &[Tensor::from_f32([1, 1, 1, 1], vec![x])], Numerics::default())[0]
            .to_f32()
            .unwrap()[0]
    };
    let round = |v: f32| f16::from_f32(v).to_f32();
    // 1 + 2^-11 + 2^-13 rounds up as a float32 bias; float16 would make the bias 1.
    let bias = |g: &mut Graph, x| {
        let (w, b) = (
            weight(g, 1.0),
            g.add_constant("b", Tensor::from_f32([1], vec![1.0 + 2f32.powi(-13)])),
        );
        node(g, "conv", conv(1), &[x, w, b])
    };
    assert_eq!(out(&bias, 2f32.powi(-11)), 1.0 + 2f32.powi(-10));
    // Factor and term behind a convolution: one rounding of the weight, one of the result.
    let behind = |g: &mut Graph, x| {
        let (w, c, d) = (weight(g, 0.7), scalar(g, "c", 0.37), scalar(g, "d", 0.11));
        let y = node(g, "conv", conv(1), &[x, w]);
        let y = node(g, "mul", Op::Binary(Binary::Mul), &[y, c]);
        node(g, "sub", Op::Binary(Binary::Sub), &[y, d])
    };
    assert_eq!(out(&behind, 3.0), round(3.0 * round(0.7 * 0.37) - 0.11));
    // Without a convolution, factor and term round once.
    let apart = |g: &mut Graph, x| {
        let (c, d) = (scalar(g, "c", 0.37), scalar(g, "d", 0.11));
        let y = node(g, "mul", Op::Binary(Binary::Mul), &[c, x]);
        node(g, "add", Op::Binary(Binary::Add), &[y, d])
    };
    assert_eq!(out(&apart, 3.0), round(3.0 * 0.37 + 0.11));
    // A factor before it; alone, a division multiplies by the rounded reciprocal.
    let divide = |g: &mut Graph, x| {
        let c = scalar(g, "c", 3.0);
        node(g, "div", Op::Binary(Binary::Div), &[x, c])
    };
    let before = |g: &mut Graph, x| {
        let (y, w) = (divide(g, x), weight(g, 0.7));
        node(g, "conv", conv(1), &[y, w])
    };
    assert_eq!(out(&before, 1.5), round(1.5 * round(0.7 / 3.0)));
    assert_eq!(out(&divide, 1.5), round(1.5 * round(1.0 / 3.0)));
}

#[test]
fn overflow_becomes_infinite_and_is_located() {
    let mut g = Graph::new("square");
    let x = input(&mut g, "x", DType::F32, &[2]);
    let n = node(&mut g, "neg", Op::Unary(Unary::Neg), &[x]);
    let y = node(&mut g, "square", Op::Binary(Binary::Mul), &[n, n]);
    let z = node(&mut g, "relu", Op::Unary(Unary::Relu), &[y]);
    g.outputs = vec![z];
    let shard = shard(&g);
    let mut session = SimDevice::default().session(g, &shard, CORE).unwrap();
    let out = session.run(&[Tensor::from_f32([2], vec![255.0, 256.0])]).unwrap().outputs;
    assert_eq!(&*out[0].to_f32().unwrap(), &[65024.0, f32::INFINITY]);
    assert_eq!(session.first_non_finite(), Some("square"));
    session.run(&[Tensor::from_f32([2], vec![1.0, 70000.0])]).unwrap();
    assert_eq!(session.first_non_finite(), Some("x"));
    session.run(&[Tensor::from_f32([2], vec![1.0, 2.0])]).unwrap();
    assert_eq!(session.first_non_finite(), None);
}

#[test]
fn subnormals_are_kept_unless_flushed() {
    let build = || {
        let mut g = Graph::new("small");
        let x = input(&mut g, "x", DType::F32, &[2]);
        let half = g.add_constant("half", Tensor::from_f32([], vec![0.5]));
        g.outputs = vec![node(&mut g, "mul", Op::Binary(Binary::Mul), &[x, half])];
        g
    };
    let x = [Tensor::from_f32([2], vec![6.2e-5, -6.2e-5])];
    let bits = |flush_subnormals| {
        let out = run(build(), &x, Numerics { flush_subnormals, ..Numerics::default() });
        out[0].to_f16().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let kept = f16::from_f32(f16::from_f32(6.2e-5).to_f32() / 2.0).to_bits();
    assert_eq!(bits(false), [kept, kept | 0x8000]);
    assert_eq!(bits(true), [0, 0x8000]);
}

#[test]
fn the_sigmoid_is_exact_unless_it_comes_from_the_boards_table() {
    let out = |tabled_sigmoid| {
        let mut g = Graph::new("sigmoid");
        let x = input(&mut g, "x", DType::F32, &[6]);
        g.outputs = vec![node(&mut g, "sigmoid", Op::Unary(Unary::Sigmoid), &[x])];
        let x = [Tensor::from_f32([6], vec![-20.0, -6.5, -1.0, 0.0, 2.5, 20.0])];
        run(g, &x, Numerics { tabled_sigmoid, ..Numerics::default() })[0].to_f32().unwrap().to_vec()
    };
    let (exact, table) = (out(false), out(true));
    assert_eq!(exact[3], 0.5);
    assert!(exact[0] < 1e-6 && exact[1] < 0.001_83 && exact[5] == 1.0, "{exact:?}");
    let floor = f16::from_f32(60.0 / 32768.0).to_f32();
    assert_eq!(table[..2], [floor; 2]);
    assert!(table[5] < 0.9985);
    assert!(exact[2..5].iter().zip(&table[2..5]).all(|(a, b)| (a - b).abs() < 2e-4), "{table:?}");
}

#[test]
fn masks_of_the_lowest_number_are_stored_as_the_toolkit_does() {
    let mut g = Graph::new("mask");
    let x = input(&mut g, "x", DType::F32, &[2]);
    let mask = g.add_constant("mask", Tensor::from_f32([2], vec![f32::MIN, f32::NEG_INFINITY]));
    g.outputs = vec![node(&mut g, "add", Op::Binary(Binary::Add), &[x, mask])];
    let out = run(g, &[Tensor::from_f32([2], vec![0.0; 2])], Numerics::default());
    assert_eq!(&*out[0].to_f32().unwrap(), &[-10000.0; 2]);
}

#[test]
fn a_file_is_opened_and_its_constants_fold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.onnx");
    let mut weights = rockshard_onnx::Weights::default();
    let info = |name: &str| {
        let dim = |d: i64| schema::tensor_shape_proto::Dimension {
            value: Some(dimension::Value::DimValue(d)),
            denotation: None,
        };
        let shape = schema::TensorShapeProto { dim: vec![dim(1), dim(64)] };
        let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
        let kind = schema::TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            denotation: None,
        };
        schema::ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
    };
    let operator = |name: &str, inputs: [&str; 2], output: &str| NodeProto {
        op_type: Some(name.into()),
        name: Some(output.into()),
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    let weight =
        noise(&[64, 64], 1, 0.2).to_float(DType::F16).unwrap().to_float(DType::F32).unwrap();
    let graph = schema::GraphProto {
        name: Some("shard".into()),
        node: vec![
            operator("Add", ["one", "one"], "two"),
            operator("MatMul", ["x", "weight"], "product"),
            operator("Mul", ["product", "two"], "y"),
        ],
        initializer: vec![
            weights.initializer("weight", &weight, "shard.onnx"),
            weights.initializer("one", &Tensor::scalar(1.0), "shard.onnx"),
        ],
        input: vec![info("x")],
        output: vec![info("y")],
        ..Default::default()
    };
    let opset = schema::OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    rockshard_onnx::save(&model, &weights, &path, &|| ()).unwrap();

    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![1, 64],
        scale: 1.0,
    };
    let file =
        ShardFile { name: "shard".into(), path, inputs: vec![spec("x")], outputs: vec![spec("y")] };
    let device: &dyn Device = &SimDevice::default();
    assert_eq!((device.name(), device.cores()), ("sim", 3));
    let x = noise(&[1, 64], 2, 1.0);
    let done = device.open(&file, CoreId::Npu(2)).unwrap().run(std::slice::from_ref(&x)).unwrap();
    let product = evaluate(&Op::MatMul, &[&x, &weight], Precision::F16).unwrap();
    let expected =
        evaluate(&Op::Binary(Binary::Add), &[&product, &product], Precision::F16).unwrap();
    assert_eq!(done.outputs, [expected]);
    assert!(done.modelled.unwrap().as_micros() > 85);
}
