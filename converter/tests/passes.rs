//! Every pass is exact in real arithmetic: in float32 the rewritten graph equals the original to rounding, on random graphs.

mod common;

use common::{Builder, Named, inputs, random_graph, relative_l2, run, scaled};
use proptest::prelude::*;
use rockshard_converter::options::{Optimise, Shards, Tile};
use rockshard_converter::partition::partition;
use rockshard_converter::passes::{
    Range, Ranges, Scales, apply_scales, choose_scales, split_heads, tile_attention, uniform_scales,
};
use rockshard_converter::write_onnx;
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Op};
use rockshard_import::{ImportOptions, import_file};
use rockshard_kernels::Precision;
use rockshard_tensor::Tensor;

const TOLERANCE: f64 = 2e-5;
/// For factors that are no powers of two: every weight and every value is rounded anew.
const INEXACT_FACTOR: f64 = 1e-4;

/// Run a scaled graph on real values: inputs times their factor, outputs divided by theirs.
fn run_scaled(graph: &Graph, scales: &Scales, given: &Named) -> Named {
    let stored = given.iter().map(|(n, t)| (n.clone(), scaled(t, scales.of(n)))).collect();
    let outputs = run(graph, &stored, Precision::F32);
    outputs.into_iter().map(|(n, t)| (n.clone(), scaled(&t, 1.0 / scales.of(&n)))).collect()
}

fn assert_equal(found: &Named, expected: &Named, what: &str) {
    assert_within(TOLERANCE, found, expected, what);
}

fn assert_within(tolerance: f64, found: &Named, expected: &Named, what: &str) {
    for (name, tensor) in expected {
        let error = relative_l2(&found[name], tensor);
        assert!(error <= tolerance, "{what}: {name} differs by {error:.2e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_uniform_sandwich_is_exact(seed in any::<u64>(), factor in prop_oneof![Just(10.0f32), Just(0.1), Just(0.3), Just(64.0), Just(1.0 / 256.0)]) {
        let graph = random_graph(seed);
        let given = inputs(&graph, seed);
        let scales = uniform_scales(&graph, factor);
        prop_assert!(!scales.is_identity());
        let rewritten = apply_scales(&graph, &scales).unwrap();
        let tolerance = if factor.log2().fract() == 0.0 { TOLERANCE } else { INEXACT_FACTOR };
        assert_within(tolerance, &run_scaled(&rewritten, &scales, &given), &run(&graph, &given, Precision::F32), "sandwich");
    }

    #[test]
    fn chosen_factors_are_exact(seed in any::<u64>()) {
        let graph = random_graph(seed);
        let given = inputs(&graph, seed);
        // Pretend that a third of the values overflow and a third underflow, so that classes get different factors.
        let mut ranges = Ranges::new();
        for (i, value) in graph.values().iter().enumerate() {
            let size = [1.0e6, 1.0, 1.0e-6][(seed as usize).wrapping_add(i * 7) % 3];
            let mut range = Range::default();
            range.add(&[size, -size / 2.0]);
            ranges.insert(value.name.clone(), range);
        }
        let scales = choose_scales(&graph, &ranges, &Default::default());
        let rewritten = apply_scales(&graph, &scales).unwrap();
        assert_equal(&run_scaled(&rewritten, &scales, &given), &run(&graph, &given, Precision::F32), "sandwich auto");
    }

    #[test]
    fn tiled_attention_is_exact(seed in any::<u64>(), tile in prop_oneof![
        (1usize..40).prop_map(Tile::Rows), ((1usize..40), (1usize..40)).prop_map(|(r, c)| Tile::Grid(r, c))]) {
        let mut graph = random_graph(seed);
        let given = inputs(&graph, seed);
        let expected = run(&graph, &given, Precision::F32);
        tile_attention(&mut graph, tile, &Rk3588::default()).unwrap();
        assert_equal(&run(&graph, &given, Precision::F32), &expected, "tile");
    }

    #[test]
    fn split_heads_are_exact(seed in any::<u64>()) {
        let mut graph = random_graph(seed);
        let given = inputs(&graph, seed);
        let expected = run(&graph, &given, Precision::F32);
        split_heads(&mut graph, 3).unwrap();
        assert_equal(&run(&graph, &given, Precision::F32), &expected, "heads");
    }

    #[test]
    fn shards_in_a_row_are_the_whole(seed in any::<u64>(), shards in prop_oneof![
        Just(Shards::Auto), Just(Shards::Block), Just(Shards::Layer), (1usize..6).prop_map(Shards::Count)]) {
        let graph = random_graph(seed);
        let given = inputs(&graph, seed);
        let segments = partition(&graph, "random", shards, Optimise::Throughput, &Rk3588::default()).unwrap();
        if let Shards::Count(n) = shards {
            prop_assert_eq!(segments.len(), n);
        }
        let total: usize = segments.iter().map(|s| s.nodes.len()).sum();
        prop_assert_eq!(total, graph.nodes().len());
        let mut values = given.clone();
        for segment in &segments {
            let outputs: Vec<_> = segment.nodes.iter().map(|&n| graph.node(n).output).collect();
            let piece = graph.subgraph(&segment.name, &segment.nodes, &outputs);
            piece.verify().unwrap();
            values.extend(run(&piece, &values, Precision::F32));
        }
        // The same operators on the same values: equal to the bit.
        for (name, tensor) in run(&graph, &given, Precision::F32) {
            prop_assert_eq!(&values[&name], &tensor);
        }
    }

    #[test]
    fn written_onnx_imports_as_the_same_graph(seed in any::<u64>()) {
        let graph = random_graph(seed);
        let given = inputs(&graph, seed);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph.onnx");
        write_onnx(&graph, &path).unwrap();
        let back = import_file(&path, &ImportOptions::fixed()).unwrap();
        assert_equal(&run(&back, &given, Precision::F32), &run(&graph, &given, Precision::F32), "onnx");
    }
}

/// A transformer's residual block, y = x + f(LN(x)).
fn residual_block() -> Graph {
    let mut b = Builder::new(5);
    let x = b.input("x", &[1, 8, 16]);
    let n = b.layer_norm(x);
    let h = b.linear(n, 32);
    let h = b.node(Op::Gelu { tanh: false }, &[h]);
    let h = b.linear(h, 16);
    let y = b.node(Op::Binary(Binary::Add), &[x, h]);
    b.finish(&[y])
}

/// The seed's form, taken literally: multiply the block's input by ten, run it unchanged, divide its output by ten.
#[test]
fn times_ten_divided_by_ten_is_wrong_where_scale_inference_is_right() {
    let graph = residual_block();
    let given = inputs(&graph, 5);
    let expected = run(&graph, &given, Precision::F32);
    let output = expected.keys().next().unwrap().clone();

    let tenfold = given.iter().map(|(n, t)| (n.clone(), scaled(t, 10.0))).collect();
    let literal = scaled(&run(&graph, &tenfold, Precision::F32)[&output], 0.1);
    let error = relative_l2(&literal, &expected[&output]);
    assert!(error > 0.1, "the literal form is off by only {error:.2e}");

    let scales = uniform_scales(&graph, 10.0);
    assert_eq!(scales.of("x"), 10.0);
    let ours = run_scaled(&apply_scales(&graph, &scales).unwrap(), &scales, &given);
    let error = relative_l2(&ours[&output], &expected[&output]);
    assert!(error < 1e-5, "scale inference is off by {error:.2e}");
}

/// In float16 a class that overflows gives infinities, and the same graph with chosen factors does not.
#[test]
fn chosen_factors_keep_float16_finite() {
    let mut b = Builder::new(9);
    let x = b.input("x", &[1, 4, 6, 6]);
    let big = b.conv(x, 4, 3, false);
    let factor = b.constant(Tensor::scalar(2.0e5));
    let big = b.node(Op::Binary(Binary::Mul), &[big, factor]);
    let n = b.group_norm(big, 2);
    let y = b.conv(n, 4, 1, true);
    let graph = b.finish(&[y]);
    let given = inputs(&graph, 9);
    let expected = run(&graph, &given, Precision::F32);
    let finite =
        |named: &Named| named.values().all(|t| t.to_f32().unwrap().iter().all(|v| v.is_finite()));
    assert!(
        !finite(&run(&graph, &given, Precision::F16)),
        "the unscaled graph should overflow in float16"
    );
    let mut ranges = Ranges::new();
    let mut all = graph.clone();
    all.outputs = graph.nodes().iter().map(|n| n.output).collect();
    for (name, tensor) in run(&all, &given, Precision::F32) {
        ranges.entry(name).or_default().add(&tensor.to_f32().unwrap());
    }
    let scales = choose_scales(&graph, &ranges, &Default::default());
    let rewritten = apply_scales(&graph, &scales).unwrap();
    let stored = given.iter().map(|(n, t)| (n.clone(), scaled(t, scales.of(n)))).collect();
    let found = run(&rewritten, &stored, Precision::F16);
    assert!(finite(&found));
    for (name, tensor) in &expected {
        let error = relative_l2(&scaled(&found[name], 1.0 / scales.of(name)), tensor);
        assert!(error < 5e-3, "{name} differs by {error:.2e}");
    }
}
