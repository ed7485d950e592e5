//! The model against every figure it is built on.

use rockshard_cost::{Rk3588, fused_bias};
use rockshard_graph::{Binary, Graph, Op, Unary, ValueId, Window, infer};
use rockshard_tensor::{DType, Tensor};

fn input(graph: &mut Graph, shape: &[usize]) -> ValueId {
    let id = graph.add_value(format!("in{}", graph.inputs.len()), DType::F32, shape.to_vec());
    graph.inputs.push(id);
    id
}

fn constant(graph: &mut Graph, shape: &[usize]) -> ValueId {
    let count: usize = shape.iter().product();
    graph.add_constant(
        format!("c{}", graph.values().len()),
        Tensor::from_f16(shape, vec![half::f16::ONE; count]),
    )
}

fn node(graph: &mut Graph, op: Op, inputs: Vec<ValueId>) -> ValueId {
    let values: Vec<_> = inputs.iter().map(|&v| graph.value(v)).collect();
    let (dtype, shape) = infer(&op, &values).unwrap();
    let name = format!("n{}", graph.nodes().len());
    let out = graph.add_value(name.clone(), dtype, shape);
    graph.add_node(name, op, inputs, out);
    out
}

fn conv(kernel: usize, stride: usize) -> Op {
    Op::Conv {
        window: Window {
            kernel: [1, kernel],
            strides: [1, stride],
            pads: [0, kernel / 2, 0, kernel / 2],
            dilations: [1, 1],
        },
        group: 1,
    }
}

#[test]
fn convolution_cycles_equal_the_vendors() {
    // docs/rk3588.md 2.4: batch, tokens in, channels in and out, kernel, stride, modelled us, measured us (0: on three cores).
    let rows = [
        (4, 257, 384, 384, 1, 1, 313, 410.0),
        (1, 1000, 512, 1536, 1, 1, 1548, 2333.0),
        (1, 1000, 512, 512, 1, 1, 516, 841.0),
        (4, 257, 384, 1536, 1, 1, 1253, 2091.0),
        (1, 1000, 512, 2048, 1, 1, 2064, 4650.0),
        (1, 1024, 768, 3072, 1, 1, 4719, 13740.0),
        (1, 1000, 2048, 512, 1, 1, 2064, 12110.0),
        (1, 1024, 3072, 768, 1, 1, 4719, 0.0),
        (1, 1024, 768, 768, 1, 1, 1180, 0.0),
        (1, 2000, 512, 512, 3, 2, 1548, 5282.0),
    ];
    let chip = Rk3588::default();
    for (batch, tokens, from, to, kernel, stride, micros, measured) in rows {
        let mut graph = Graph::new("conv");
        let x = input(&mut graph, &[batch, from, 1, tokens]);
        let w = constant(&mut graph, &[to, from, 1, kernel]);
        node(&mut graph, conv(kernel, stride), vec![x, w]);
        let cost = chip.node(&graph, &graph.nodes()[0]);
        assert_eq!((cost.cycles.unwrap() as f64 / 1e3).round() as u64, micros, "{from} to {to}");
        if measured > 0.0 {
            // The fused GELU rows run longer than their convolution: they are priced as two operators.
            assert!(
                (0.45..1.35).contains(&(cost.micros / measured)),
                "{from} to {to}: {} us, measured {measured}",
                cost.micros
            );
        }
    }
}

#[test]
fn products_equal_the_vendors() {
    let chip = Rk3588::default();
    for (a, b, cycles) in
        [([8, 512, 40], [8, 40, 4096], 2_097_152), ([8, 512, 4096], [8, 4096, 40], 1_572_864)]
    {
        let mut graph = Graph::new("product");
        let (x, y) = (input(&mut graph, &a), input(&mut graph, &b));
        node(&mut graph, Op::MatMul, vec![x, y]);
        let cost = chip.node(&graph, &graph.nodes()[0]);
        assert_eq!(cost.cycles, Some(cycles));
        if a[2] == 4096 {
            assert_eq!((cost.dram_bytes as f64 / chip.ddr_bytes_per_cycle).round(), 1_543_230.0);
        }
    }
    // By a constant: a 1x1 convolution.
    let mut graph = Graph::new("product");
    let x = input(&mut graph, &[4, 257, 384]);
    let w = constant(&mut graph, &[384, 1536]);
    node(&mut graph, Op::MatMul, vec![x, w]);
    assert_eq!(chip.node(&graph, &graph.nodes()[0]).cycles, Some(1_253_376));
}

#[test]
fn attention_norm_and_elementwise() {
    let chip = Rk3588::default();
    let mut graph = Graph::new("attention");
    let (q, k, v) = (
        input(&mut graph, &[8, 4096, 40]),
        input(&mut graph, &[8, 40, 4096]),
        input(&mut graph, &[8, 4096, 40]),
    );
    node(&mut graph, Op::Attention { scale: 0.1 }, vec![q, k, v]);
    let micros = chip.node(&graph, &graph.nodes()[0]).micros;
    assert!((micros - 4.8e-3 * 8.0 * 4096.0 * 4096.0).abs() < 1.0, "{micros}");
    // docs/rk3588.md 2.4: 3.51 s of attention in a U-Net at 512 pixels.
    let layers = 5.0 * (4096f64.powi(2) + 1024f64.powi(2) + 256f64.powi(2))
        + 64f64.powi(2)
        + 77.0 * (5.0 * 5376.0 + 64.0);
    assert!((layers * 8.0 * chip.attention_nanos * 1e-9 - 3.51).abs() < 0.01);
    // docs/rk3588.md 2.4 and 2.2: exNorm of 768 x 1024 in 2.6 to 2.7 ms; Add of two at 6.9 GB/s.
    let mut graph = Graph::new("norm");
    let x = input(&mut graph, &[1024, 768]);
    let (gamma, beta) = (constant(&mut graph, &[768]), constant(&mut graph, &[768]));
    node(&mut graph, Op::LayerNorm { axis: 1, epsilon: 1e-5 }, vec![x, gamma, beta]);
    node(&mut graph, Op::Binary(Binary::Add), vec![x, x]);
    let micros = |i: usize| chip.node(&graph, &graph.nodes()[i]).micros;
    assert!((2600.0..2700.0).contains(&micros(0)), "{}", micros(0));
    assert!((micros(1) - 3.0 * 1_572_864.0 / 6.9e3).abs() < 1.0);
}

#[test]
fn attention_memory_follows_the_rows_not_the_heads() {
    let chip = Rk3588::default();
    for (rows, megabytes) in [(4096, 167.0), (512, 20.5)] {
        let bytes = chip.attention_bytes(8, rows, 4096) as f64 / 1e6;
        assert!((bytes / megabytes - 1.0).abs() < 0.02, "{rows} rows: {bytes} MB");
        assert_eq!(chip.attention_bytes(3, rows, 4096), chip.attention_bytes(8, rows, 4096));
    }
}

#[test]
fn memory_is_that_of_the_fullest_moment() {
    let mut graph = Graph::new("chain");
    let x = input(&mut graph, &[1, 8, 32, 32]);
    let a = node(&mut graph, Op::Unary(Unary::Relu), vec![x]);
    let b = node(&mut graph, Op::Unary(Unary::Neg), vec![a]);
    let c = node(&mut graph, Op::Binary(Binary::Add), vec![x, b]);
    graph.outputs.push(c);
    // At Neg and at Add three tensors of 16 KiB live.
    let cost = Rk3588::default().graph(&graph);
    assert_eq!((cost.internal_bytes, cost.weight_bytes), (3 * 16384, 0));
    let bytes = 16384.0;
    let work = (2.0 + 2.0 + 3.0) * bytes / 6.9e3;
    let boundary = 85.0 + 2.0 * bytes / 3.5e3;
    assert!(
        (cost.micros - work - boundary).abs() < 1e-6
            && (cost.overhead_micros - boundary).abs() < 1e-6
    );
}

#[test]
fn a_token_boundary_of_1024_by_768_costs_four_milliseconds() {
    let mut graph = Graph::new("boundary");
    let x = input(&mut graph, &[1, 1024, 768]);
    graph.outputs.push(x);
    let micros = Rk3588::default().graph(&graph).overhead_micros - 85.0;
    assert!((4000.0..4600.0).contains(&micros), "{micros}");
}

#[test]
fn a_bias_after_a_product_is_free() {
    let build = |bias: &[usize], twice: bool| {
        let mut graph = Graph::new("bias");
        let x = input(&mut graph, &[1, 64, 32]);
        let (w, b) = (constant(&mut graph, &[32, 48]), constant(&mut graph, bias));
        let y = node(&mut graph, Op::MatMul, vec![x, w]);
        let z = node(&mut graph, Op::Binary(Binary::Add), vec![b, y]);
        graph.outputs.push(if twice { y } else { z });
        graph
    };
    let fuses = |graph: &Graph| {
        fused_bias(graph, &graph.links(), graph.node_ids().next().unwrap()).is_some()
    };
    let graph = build(&[48], false);
    assert!(fuses(&graph) && fuses(&build(&[1, 1, 48], false)));
    assert!(
        !fuses(&build(&[64, 1], false))
            && !fuses(&build(&[1], false))
            && !fuses(&build(&[48], true))
    );
    let chip = Rk3588::default();
    let cost = chip.graph(&graph);
    assert!(
        (cost.micros - cost.overhead_micros - chip.node(&graph, &graph.nodes()[0]).micros).abs()
            < 1e-9
    );
}

#[test]
fn limits_name_the_node_and_fallbacks_are_no_limits() {
    let chip = Rk3588::default();
    let mut graph = Graph::new("long");
    let x = input(&mut graph, &[1, 8192, 4]);
    let y = node(&mut graph, Op::Unary(Unary::Relu), vec![x]);
    graph.outputs.push(y);
    let found = chip.limits(&graph);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "node \"n0\": value \"in0\" of shape [1, 8192, 4] has an axis longer than 8191 (channels: 65535)"
    );

    // The feed-forward of a U-Net: the compiler cuts channels itself.
    let mut graph = Graph::new("wide");
    let x = input(&mut graph, &[1, 64, 1280]);
    let w = constant(&mut graph, &[1280, 10240]);
    let y = node(&mut graph, Op::MatMul, vec![x, w]);
    graph.outputs.push(y);
    assert!(chip.limits(&graph).is_empty());

    let mut graph = Graph::new("merged");
    let x = input(&mut graph, &[100, 100, 4, 4, 4]);
    let y = node(&mut graph, Op::Unary(Unary::Relu), vec![x]);
    graph.outputs.push(y);
    assert_eq!(chip.limits(&graph).len(), 1);

    let mut graph = Graph::new("transpose");
    let x = input(&mut graph, &[1, 8, 4096, 40]);
    let y = node(&mut graph, Op::Transpose { perm: vec![0, 1, 3, 2] }, vec![x]);
    let z = node(&mut graph, Op::Unary(Unary::Erf), vec![y]);
    graph.outputs.push(z);
    assert!(chip.limits(&graph).is_empty());
    let reasons: Vec<_> = chip.fallbacks(&graph).into_iter().map(|f| (f.node, f.reason)).collect();
    assert_eq!(reasons[0], ("n0".into(), "the shape is not in the NPU's transpose table"));
    assert_eq!(reasons[1], ("n1".into(), "the NPU does not have this function"));
    assert!((chip.node(&graph, &graph.nodes()[0]).micros - 2.0 * 2_621_440.0 / 1e3).abs() < 1.0);

    let small = Rk3588 { address_space: 1000, ..Rk3588::default() };
    let error = small.limits(&graph).remove(0);
    assert_eq!(error.node, "transpose");
    assert!(error.limit.contains("exceed the address space of 1000"), "{error}");
}

#[test]
fn the_description_is_written_and_read() {
    let chip = Rk3588 { cores: 2, ..Rk3588::default() };
    let text = serde_json::to_string(&chip).unwrap();
    assert_eq!(serde_json::from_str::<Rk3588>(&text).unwrap(), chip);
    assert_eq!(serde_json::from_str::<Rk3588>(r#"{"cores": 2}"#).unwrap(), chip);
    assert!(serde_json::from_str::<Rk3588>(r#"{"core": 2}"#).is_err());
}
