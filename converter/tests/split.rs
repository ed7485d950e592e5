//! Dividing operators over the cores, and moving tokens to planes: exact, and worth it in the cost model.

mod common;

use common::{Builder, Named, inputs, random_graph, relative_l2, run};
use proptest::prelude::*;
use rockshard_converter::partition::{host_nodes, levels};
use rockshard_converter::passes::{SplitGraph, planes, split};
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Op, Resize, ValueId, Window};
use rockshard_kernels::Precision;
use std::collections::BTreeSet;

const TOLERANCE: f64 = 2e-5;

/// Where every linear layer over a plane's tokens gains by a plane.
fn eager() -> Rk3588 {
    Rk3588 {
        flat_depth: 1.0,
        transpose_bytes_per_second: 1e18,
        copy_bytes_per_second: 1e18,
        ..Rk3588::default()
    }
}

fn on_planes(graph: &Graph, npu: &Rk3588) -> Graph {
    planes(graph, npu, &mut Ok).unwrap()
}

fn divided(graph: &Graph, cores: u8) -> SplitGraph {
    split(graph, &host_nodes(graph), cores).unwrap()
}

fn assert_equal(found: &Named, expected: &Named, what: &str) {
    for (name, tensor) in expected {
        let error = relative_l2(&found[name], tensor);
        assert!(error <= TOLERANCE, "{what}: {name} differs by {error:.2e}");
    }
}

/// Run the segments of a divided graph in order, each alone with what those before it gave.
fn run_segments(split: &SplitGraph, given: &Named) -> Named {
    let mut values = given.clone();
    for segment in levels(split) {
        let outputs: Vec<ValueId> =
            segment.nodes.iter().map(|&n| split.graph.node(n).output).collect();
        let piece = split.graph.subgraph(&segment.name, &segment.nodes, &outputs);
        let early = piece.inputs.iter().find(|&&v| !values.contains_key(&piece.value(v).name));
        assert!(
            early.is_none(),
            "{} runs before {:?} is there",
            segment.name,
            early.map(|&v| &piece.value(v).name)
        );
        values.extend(run(&piece, &values, Precision::F32));
    }
    values
}

fn residual(b: &mut Builder, x: ValueId, y: ValueId) -> ValueId {
    b.node(Op::Binary(Binary::Add), &[x, y])
}

fn slice(b: &mut Builder, x: ValueId, from: usize, to: usize) -> ValueId {
    let shape = b.shape(x);
    let (mut begin, mut end) = (vec![0; 3], shape);
    (begin[2], end[2]) = (from, to);
    b.node(Op::Slice { begin, end, step: vec![1; 3] }, &[x])
}

/// A resnet, a transformer over the pixels with self-attention, cross-attention and a gated feed-forward, a sampler each way and a skip.
fn unet_block() -> Graph {
    let (c, side, heads) = (64, 12, 2);
    let tokens = side * side;
    let mut b = Builder::new(3);
    let x = b.input("x", &[1, 4, side, side]);
    let context = b.input("context", &[1, 50, 24]);
    let time = b.input("time", &[1, 32]);
    let stem = b.conv(x, c, 3, true);
    let n = b.group_norm(stem, 32);
    let n = b.node(Op::Swish { beta: 1.0 }, &[n]);
    let h = b.conv(n, c, 3, true);
    let t = b.linear(time, c);
    let t = b.node(Op::Reshape { shape: vec![1, c, 1, 1] }, &[t]);
    let h = residual(&mut b, h, t);
    let n = b.group_norm(h, 32);
    let n = b.node(Op::Swish { beta: 1.0 }, &[n]);
    let h = b.conv(n, c, 3, true);
    let skip = residual(&mut b, stem, h);
    let n = b.group_norm(skip, 32);
    let h = b.conv(n, c, 1, true);
    let h = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[h]);
    let h = b.node(Op::Reshape { shape: vec![1, tokens, c] }, &[h]);
    let h = b.attention(h, heads, false);
    // Cross-attention.
    let n = b.layer_norm(h);
    let head = |b: &mut Builder, x: ValueId, perm: [usize; 4]| {
        let y = b.linear(x, c);
        let l = b.shape(y)[1];
        let y = b.node(Op::Reshape { shape: vec![1, l, heads, c / heads] }, &[y]);
        b.node(Op::Transpose { perm: perm.to_vec() }, &[y])
    };
    let (q, k, v) = (
        head(&mut b, n, [0, 2, 1, 3]),
        head(&mut b, context, [0, 2, 3, 1]),
        head(&mut b, context, [0, 2, 1, 3]),
    );
    let y = b.node(Op::Attention { scale: 0.2 }, &[q, k, v]);
    let y = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
    let y = b.node(Op::Reshape { shape: vec![1, tokens, c] }, &[y]);
    let y = b.linear(y, c);
    let h = residual(&mut b, h, y);
    // Gated feed-forward.
    let n = b.layer_norm(h);
    let up = b.linear(n, 2 * 96);
    let (value, gate) = (slice(&mut b, up, 0, 96), slice(&mut b, up, 96, 192));
    let gate = b.node(Op::Gelu { tanh: false }, &[gate]);
    let y = b.node(Op::Binary(Binary::Mul), &[value, gate]);
    let y = b.linear(y, c);
    let h = residual(&mut b, h, y);
    let h = b.node(Op::Reshape { shape: vec![1, side, side, c] }, &[h]);
    let h = b.node(Op::Transpose { perm: vec![0, 3, 1, 2] }, &[h]);
    let h = b.conv(h, c, 1, true);
    let h = residual(&mut b, h, skip);
    let w = b.weight(&[c, c, 3, 3], 0.05);
    let down = Op::Conv {
        window: Window { kernel: [3; 2], strides: [2; 2], pads: [1; 4], dilations: [1; 2] },
        group: 1,
    };
    let h = b.node(down, &[h, w]);
    let h = b.node(Op::Resize { mode: Resize::Nearest, size: [side, side] }, &[h]);
    let h = b.node(Op::Concat { axis: 1 }, &[h, skip]);
    let n = b.group_norm(h, 32);
    let n = b.node(Op::Swish { beta: 1.0 }, &[n]);
    let wide = b.node(Op::Resize { mode: Resize::Nearest, size: [4 * side, 4 * side] }, &[n]);
    let y = b.conv(wide, 3, 3, true);
    b.finish(&[y])
}

#[test]
fn a_unet_block_is_the_same_on_planes_and_on_any_number_of_cores() {
    let graph = unet_block();
    let given = inputs(&graph, 3);
    let expected = run(&graph, &given, Precision::F32);
    for npu in [Rk3588::default(), eager()] {
        let graph = on_planes(&graph, &npu);
        assert_equal(&run(&graph, &given, Precision::F32), &expected, "planes");
        for cores in 1..=3 {
            let split = divided(&graph, cores);
            assert_equal(&run(&split.graph, &given, Precision::F32), &expected, "split");
            assert_equal(&run_segments(&split, &given), &expected, "segments");
        }
    }
}

#[test]
fn all_that_is_heavy_is_divided_evenly() {
    let npu = Rk3588::default();
    for graph in [unet_block(), on_planes(&unet_block(), &eager())] {
        let split = divided(&graph, 3);
        let mut load = [0.0f64; 3];
        for node in split.graph.nodes() {
            if matches!(
                node.op,
                Op::Conv { .. }
                    | Op::MatMul
                    | Op::Attention { .. }
                    | Op::GroupNorm { .. }
                    | Op::LayerNorm { .. }
            ) {
                load[usize::from(split.cores[&node.output])] += npu.node(&split.graph, node).micros;
            }
        }
        let most = load.iter().fold(0.0f64, |a, &b| a.max(b)) / load.iter().sum::<f64>();
        assert!(most < 0.39, "the busiest core has {most:.3} of the work: {load:?}");
        let attentions =
            split.graph.nodes().iter().filter(|n| matches!(n.op, Op::Attention { .. }));
        let cores: BTreeSet<u8> = attentions.map(|n| split.cores[&n.output]).collect();
        assert_eq!(cores.len(), 3);
    }
}

#[test]
fn a_gated_feed_forward_on_planes_has_no_slices_and_attention_no_more_moves() {
    let before = unet_block();
    let after = on_planes(&before, &eager());
    let count = |g: &Graph, name: &str| g.operators().get(name).copied().unwrap_or(0);
    assert_eq!(count(&before, "Slice"), 2);
    assert_eq!(count(&after, "Slice"), 0);
    // Only what has no tokens of a plane (50 of the context: 5 x 10) or no tokens at all is left as a product.
    assert_eq!(count(&after, "MatMul"), 1, "{:?}", after.operators());
    // Keys reach attention without a transpose.
    let attention = after.nodes().iter().find(|n| matches!(n.op, Op::Attention { .. })).unwrap();
    let links = after.links();
    let maker = |v: ValueId| &after.node(links.producer(v).unwrap()).op;
    assert!(
        matches!(maker(attention.inputs[1]), Op::Reshape { .. }),
        "{:?}",
        maker(attention.inputs[1])
    );
}

#[test]
fn what_is_too_small_to_divide_is_named() {
    let mut b = Builder::new(1);
    let x = b.input("x", &[1, 4, 6, 6]);
    let y = b.conv(x, 8, 3, true);
    let graph = b.finish(&[y]);
    let split = divided(&graph, 3);
    assert_eq!(split.declined.len(), 1);
    assert!(
        split.declined[0].ends_with("too few channels or rows to divide, stays on core 0"),
        "{:?}",
        split.declined
    );
    assert_eq!(split.graph.nodes().len(), 1);
    assert!(divided(&unet_block(), 3).declined.iter().all(|d| !d.contains("Attention")));
}

#[test]
fn shallow_layers_stay_where_they_are() {
    let graph = unet_block();
    assert_eq!(on_planes(&graph, &Rk3588::default()).operators(), graph.operators());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_are_the_same(seed in any::<u64>(), cores in 1u8..4, plane in any::<bool>()) {
        let graph = random_graph(seed);
        let given = inputs(&graph, seed);
        let expected = run(&graph, &given, Precision::F32);
        let moved = on_planes(&graph, &if plane { eager() } else { Rk3588::default() });
        assert_equal(&run(&moved, &given, Precision::F32), &expected, "planes");
        assert_equal(&run_segments(&divided(&moved, cores), &given), &expected, "split");
    }
}
