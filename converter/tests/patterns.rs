//! Patterns that the NPU's compiler cannot take are rewritten, exactly, and what only looks like them is left alone.

mod common;

use common::{Builder, inputs, relative_l2, run};
use proptest::prelude::*;
use rockshard_converter::passes::shuffled_linears;
use rockshard_graph::{Graph, Op, ValueId, Window, fusion_rules, rewrite};
use rockshard_kernels::Precision;

fn fused(graph: &Graph) -> Graph {
    let mut copy = graph.clone();
    let rules = fusion_rules();
    rewrite(&mut copy, &rules.iter().map(AsRef::as_ref).collect::<Vec<_>>(), None).unwrap();
    copy
}

fn assert_same(rewritten: &Graph, graph: &Graph) {
    let given = inputs(graph, 3);
    for (name, expected) in run(graph, &given, Precision::F32) {
        let error = relative_l2(&run(rewritten, &given, Precision::F32)[&name], &expected);
        // An output of few elements may be what is left after cancellation.
        assert!(error < 1e-4, "{name} differs by {error:.2e}");
    }
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes().iter().filter(|n| n.op.name() == name).count()
}

fn reshape(b: &mut Builder, x: ValueId, shape: &[usize]) -> ValueId {
    b.node(Op::Reshape { shape: shape.to_vec() }, &[x])
}

fn transpose(b: &mut Builder, x: ValueId, perm: &[usize]) -> ValueId {
    b.node(Op::Transpose { perm: perm.to_vec() }, &[x])
}

/// SmolVLM's connector as transformers writes it: rows of `block * block * channels` from a grid of tokens, then a linear layer.
fn connector(batch: usize, side: usize, channels: usize, block: usize, width: usize) -> Graph {
    let (mut b, few) = (Builder::new(1), side / block);
    let x = b.input("x", &[batch, side * side, channels]);
    let v = reshape(&mut b, x, &[batch, side, side, channels]);
    let v = reshape(&mut b, v, &[batch, side, few, channels * block]);
    let v = transpose(&mut b, v, &[0, 2, 1, 3]);
    let v = reshape(&mut b, v, &[batch, few, few, channels * block * block]);
    let v = transpose(&mut b, v, &[0, 2, 1, 3]);
    let v = reshape(&mut b, v, &[batch, few * few, channels * block * block]);
    let y = b.linear(v, width);
    b.finish(&[y])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_linear_layer_over_blocks_of_tokens_is_a_convolution(
        batch in 1usize..4, few in 1usize..5, block in 2usize..5, channels in 1usize..7, width in 1usize..9,
    ) {
        let graph = connector(batch, few * block, channels, block, width);
        let mut rewritten = graph.clone();
        shuffled_linears(&mut rewritten).unwrap();
        prop_assert_eq!((count(&rewritten, "Conv"), count(&rewritten, "MatMul")), (1, 0));
        assert_same(&rewritten, &graph);
    }

    #[test]
    fn padding_becomes_the_convolutions_own(before in proptest::array::uniform2(0usize..3), after in proptest::array::uniform2(0usize..3), pad in 0usize..2) {
        let mut b = Builder::new(2);
        let x = b.input("x", &[1, 3, 7, 6]);
        let op = Op::Pad { before: vec![0, 0, before[0], before[1]], after: vec![0, 0, after[0], after[1]], value: 0.0 };
        let padded = b.node(op, &[x]);
        let w = b.weight(&[4, 3, 3, 3], 0.3);
        let window = Window { kernel: [3; 2], strides: [2; 2], pads: [pad; 4], dilations: [1; 2] };
        let y = b.node(Op::Conv { window, group: 1 }, &[padded, w]);
        let graph = b.finish(&[y]);
        let rewritten = fused(&graph);
        prop_assert_eq!(count(&rewritten, "Pad"), 0);
        assert_same(&rewritten, &graph);
    }
}

#[test]
fn tokens_in_another_order_stay_a_product() {
    let mut b = Builder::new(1);
    let x = b.input("x", &[1, 16, 3]);
    // Rows of four neighbouring tokens of a line are no square blocks.
    let v = reshape(&mut b, x, &[1, 4, 12]);
    let y = b.linear(v, 5);
    let mut graph = b.finish(&[y]);
    shuffled_linears(&mut graph).unwrap();
    assert_eq!((count(&graph, "Conv"), count(&graph, "MatMul")), (0, 1));
}

#[test]
fn padding_that_is_not_zero_or_is_used_twice_stays() {
    for (value, twice) in [(1.0, false), (0.0, true)] {
        let mut b = Builder::new(2);
        let x = b.input("x", &[1, 3, 7, 6]);
        let padded =
            b.node(Op::Pad { before: vec![0, 0, 1, 1], after: vec![0, 0, 1, 1], value }, &[x]);
        let y = b.conv(padded, 4, 3, true);
        let graph = b.finish(&if twice { vec![y, padded] } else { vec![y] });
        assert_eq!(count(&fused(&graph), "Pad"), 1);
    }
}

#[test]
fn a_slice_that_is_one_of_the_joined_values_is_that_value() {
    let slice = |b: &mut Builder, x, from: usize, to: usize| {
        b.node(Op::Slice { begin: vec![0, from], end: vec![1, to], step: vec![1, 1] }, &[x])
    };
    // Sines and cosines change places, as in the timestep embedding of diffusers.
    let mut b = Builder::new(3);
    let (sin, cos) = (b.input("sin", &[1, 8]), b.input("cos", &[1, 8]));
    let both = b.node(Op::Concat { axis: 1 }, &[sin, cos]);
    let (first, second) = (slice(&mut b, both, 0, 8), slice(&mut b, both, 8, 16));
    let y = b.node(Op::Concat { axis: 1 }, &[second, first]);
    let graph = b.finish(&[y]);
    let rewritten = fused(&graph);
    assert_eq!((count(&rewritten, "Slice"), count(&rewritten, "Concat")), (0, 1));
    assert_same(&rewritten, &graph);

    let mut b = Builder::new(3);
    let (sin, cos) = (b.input("sin", &[1, 8]), b.input("cos", &[1, 8]));
    let both = b.node(Op::Concat { axis: 1 }, &[sin, cos]);
    let across = slice(&mut b, both, 4, 12);
    let y = b.linear(across, 3);
    let graph = b.finish(&[y]);
    assert_eq!(count(&fused(&graph), "Slice"), 1);
}
