//! What is not loaded, and what a session does not take.

use super::*;

#[test]
fn what_cannot_be_loaded_says_why() {
    let build = |weight: f32, dtype: DType, tokens: usize| {
        let mut g = Graph::new("shard");
        let x = input(&mut g, "x", dtype, &[1, tokens, 2]);
        let w = g.add_constant("layer.weight", Tensor::from_f32([2], vec![1.0, weight]));
        let x = if dtype.is_float() { x } else { node(&mut g, "cast", Op::Cast(DType::F32), &[x]) };
        g.outputs = vec![node(&mut g, "mul", Op::Binary(Binary::Mul), &[x, w])];
        g
    };
    let device = SimDevice::default();
    let fails = |graph: Graph, shard: &ShardFile, core| {
        let error = device.session(graph, shard, core).err().unwrap();
        (error.kind, error.to_string())
    };
    use DeviceErrorKind::*;
    let good = || build(1.0, DType::F32, 4);
    let spec = shard(&good());
    let cases = [
        (
            build(65520.0, DType::F32, 4),
            spec.clone(),
            CORE,
            Load,
            "weight \"layer.weight\": element 1 is 65520, which float16 cannot hold",
        ),
        (
            build(f32::NAN, DType::F32, 4),
            spec.clone(),
            CORE,
            Load,
            "weight \"layer.weight\": element 1 is NaN",
        ),
        (
            build(1.0, DType::F32, 9000),
            shard(&build(1.0, DType::F32, 9000)),
            CORE,
            Limit,
            "node \"mul\": value \"x\" of shape [1, 9000, 2]",
        ),
        (
            build(1.0, DType::I64, 4),
            shard(&build(1.0, DType::I64, 4)),
            CORE,
            Limit,
            "input \"x\" is int64: the NPU takes real numbers",
        ),
        (good(), spec.clone(), CoreId::Host, Unavailable, "does not run host shards"),
        (good(), spec.clone(), CoreId::Npu(3), Unavailable, "has 3 cores"),
        (
            good(),
            ShardFile { inputs: vec![], ..spec.clone() },
            CORE,
            Load,
            "the graph has 1 inputs, the manifest 0",
        ),
        (
            build(1.0, DType::F32, 5),
            spec.clone(),
            CORE,
            Load,
            "input \"x\" of the manifest is float32[1, 4, 2], the graph has \"x\", float32[1, 5, 2]",
        ),
    ];
    for (graph, spec, core, kind, text) in cases {
        let (found, message) = fails(graph, &spec, core);
        assert_eq!(found, kind, "{message}");
        assert!(
            message.starts_with(&format!("shard shard on {core}: ")) && message.contains(text),
            "{message}"
        );
    }
    assert_eq!(device.open(&spec, CORE).err().unwrap().kind, Load);
}

#[test]
fn wrong_inputs_are_refused() {
    let graph = block();
    let shard = shard(&graph);
    let mut session = SimDevice::default().session(graph, &shard, CORE).unwrap();
    for inputs in [
        vec![],
        vec![noise(&[1, 16, 8, 7], 1, 1.0)],
        vec![Tensor::from_i64([1, 16, 8, 8], vec![0; 1024])],
    ] {
        assert_eq!(session.run(&inputs).unwrap_err().kind, DeviceErrorKind::Input);
    }
}
