//! More tokens than an axis may have: bands are exact, no axis is too long, and the cuts are where the compiler needs them.

mod common;

use common::{Builder, Named, inputs, relative_l2, run, scaled};
use proptest::prelude::*;
use rockshard_converter::ConvertError;
use rockshard_converter::options::{Optimise, Shards, Tile};
use rockshard_converter::partition::{Segment, host_nodes, levels, partition};
use rockshard_converter::passes::{
    apply_scales, in_parts, planes, split, tile_attention, uniform_scales,
};
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Op, ValueId};
use rockshard_kernels::Precision;

const TOLERANCE: f64 = 2e-5;

fn chip(largest_extent: usize) -> Rk3588 {
    Rk3588 { largest_extent, ..Rk3588::default() }
}

fn assert_within(tolerance: f64, found: &Named, expected: &Named, what: &str) {
    for (name, tensor) in expected {
        let error = relative_l2(&found[name], tensor);
        assert!(error <= tolerance, "{what}: {name} differs by {error:.2e}");
    }
}

/// How a network gets from a plane to tokens and back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// As U-Nets do: channels last, with convolutions on both sides.
    ChannelsLast,
    /// As VAEs do: a flattened plane, normalised, and transposed.
    Flattened,
}

#[derive(Debug)]
struct Block {
    way: Way,
    plane: [usize; 2],
    heads: usize,
    batch: usize,
    /// Spread of the scores. Ones that float16 cannot hold apart (a key 2^18 times as heavy as the keys in common) are not for these tests.
    sharpness: f32,
    cross: bool,
}

/// A transformer over the pixels of a plane between two convolutions.
fn block(of: &Block, seed: u64) -> Graph {
    let Block { way, plane: [height, width], heads, batch, .. } = *of;
    let (c, tokens) = (16, height * width);
    let mut b = Builder::new(seed);
    let x = b.input("x", &[batch, 4, height, width]);
    let stem = b.conv(x, c, 3, true);
    let h = match way {
        Way::ChannelsLast => {
            let n = b.group_norm(stem, 4);
            let n = b.conv(n, c, 1, true);
            let h = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[n]);
            b.node(Op::Reshape { shape: vec![batch, tokens, c] }, &[h])
        }
        Way::Flattened => {
            let h = b.node(Op::Reshape { shape: vec![batch, c, tokens] }, &[stem]);
            let h = b.group_norm(h, 4);
            b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[h])
        }
    };
    let head = |b: &mut Builder, x: ValueId, perm: [usize; 4]| {
        let y = b.linear(x, c);
        let l = b.shape(y)[1];
        let y = b.node(Op::Reshape { shape: vec![batch, l, heads, c / heads] }, &[y]);
        b.node(Op::Transpose { perm: perm.to_vec() }, &[y])
    };
    let attend = |b: &mut Builder, x: ValueId, context: Option<ValueId>| {
        let n = b.layer_norm(x);
        let from = context.unwrap_or(n);
        let q = head(b, n, [0, 2, 1, 3]);
        let k = head(b, from, [0, 2, 3, 1]);
        let v = head(b, from, [0, 2, 1, 3]);
        let scale = of.sharpness / ((c / heads) as f32).sqrt();
        let y = b.node(Op::Attention { scale }, &[q, k, v]);
        let y = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
        let y = b.node(Op::Reshape { shape: vec![batch, tokens, c] }, &[y]);
        let y = b.linear(y, c);
        b.node(Op::Binary(Binary::Add), &[y, x])
    };
    let mut h = attend(&mut b, h, None);
    if of.cross {
        let context = b.input("context", &[batch, 7, 12]);
        h = attend(&mut b, h, Some(context));
        let n = b.layer_norm(h);
        let up = b.linear(n, 2 * c);
        let half = |b: &mut Builder, from: usize| {
            let (begin, end) = (vec![0, 0, from], vec![batch, tokens, from + c]);
            b.node(Op::Slice { begin, end, step: vec![1; 3] }, &[up])
        };
        let (value, gate) = (half(&mut b, 0), half(&mut b, c));
        let gate = b.node(Op::Gelu { tanh: false }, &[gate]);
        let y = b.node(Op::Binary(Binary::Mul), &[value, gate]);
        let y = b.linear(y, c);
        h = b.node(Op::Binary(Binary::Add), &[h, y]);
    }
    let h = match way {
        Way::ChannelsLast => {
            let h = b.node(Op::Reshape { shape: vec![batch, height, width, c] }, &[h]);
            let h = b.node(Op::Transpose { perm: vec![0, 3, 1, 2] }, &[h]);
            b.conv(h, c, 1, true)
        }
        Way::Flattened => {
            let h = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[h]);
            b.node(Op::Reshape { shape: vec![batch, c, height, width] }, &[h])
        }
    };
    let h = b.node(Op::Binary(Binary::Add), &[h, stem]);
    let y = b.conv(h, 3, 3, true);
    b.finish(&[y])
}

/// The segments in order, each alone with what those before it gave.
fn run_segments(graph: &Graph, segments: &[Segment], given: &Named) -> Named {
    let mut values = given.clone();
    for segment in segments {
        let outputs: Vec<ValueId> = segment.nodes.iter().map(|&n| graph.node(n).output).collect();
        let piece = graph.subgraph(&segment.name, &segment.nodes, &outputs);
        values.extend(run(&piece, &values, Precision::F32));
    }
    values
}

/// No operator that makes or joins bands of a plane is in one shard with what works on bands.
fn assert_cuts(graph: &Graph, segments: &[Segment]) {
    for segment in segments {
        let names: Vec<&str> = segment.nodes.iter().map(|&n| &graph.node(n).name[..]).collect();
        let outside = |n: &&&str| n.contains("@rows") || n.ends_with("/joined");
        let mixed = names.iter().any(|n| n.contains("@band")) && names.iter().any(|n| outside(&n));
        assert!(!mixed, "{}: {names:?}", segment.name);
    }
}

fn any_block() -> impl Strategy<Value = Block> {
    let way = prop_oneof![Just(Way::ChannelsLast), Just(Way::Flattened)];
    (
        way,
        4usize..11,
        4usize..11,
        prop_oneof![Just(1usize), Just(2)],
        1usize..3,
        0.05f32..0.4,
        any::<bool>(),
    )
        .prop_map(|(way, height, width, heads, batch, sharpness, cross)| Block {
            way,
            plane: [height, width],
            heads,
            batch,
            sharpness,
            cross,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn bands_are_exact(of in any_block(), seed in any::<u64>(), limit in 21usize..60) {
        let graph = block(&of, seed);
        let given = inputs(&graph, seed);
        let expected = run(&graph, &given, Precision::F32);
        let npu = chip(limit);
        let (banded, told) = in_parts(graph.clone(), &npu).unwrap();
        if of.plane[0] * of.plane[1] <= limit {
            prop_assert_eq!(banded, graph);
            return Ok(());
        }
        prop_assert_eq!(told.len(), 1);
        assert_within(TOLERANCE, &run(&banded, &given, Precision::F32), &expected, "bands");
        prop_assert_eq!(npu.limits(&banded), vec![]);
        for shards in [Shards::Auto, Shards::Block, Shards::Count(5)] {
            let segments = partition(&banded, "test", shards, Optimise::Latency, &npu).unwrap();
            if shards == Shards::Count(5) {
                prop_assert_eq!(segments.len(), 5);
            }
            assert_cuts(&banded, &segments);
            assert_within(TOLERANCE, &run_segments(&banded, &segments, &given), &expected, "shards");
        }
        let scales = uniform_scales(&banded, 64.0);
        let mut stored = apply_scales(&banded, &scales).unwrap();
        tile_attention(&mut stored, Tile::Rows(3), &npu).unwrap();
        let larger = given.iter().map(|(n, t)| (n.clone(), scaled(t, scales.of(n)))).collect();
        let outputs = run(&stored, &larger, Precision::F32);
        let outputs = outputs.into_iter().map(|(n, t)| (n.clone(), scaled(&t, 1.0 / scales.of(&n)))).collect();
        assert_within(TOLERANCE, &outputs, &expected, "sandwich and tiles");
    }

    #[test]
    fn bands_are_exact_on_planes_and_on_any_number_of_cores(of in any_block(), seed in any::<u64>(), limit in 21usize..60, cores in 1u8..4) {
        let graph = block(&of, seed);
        let given = inputs(&graph, seed);
        let expected = run(&graph, &given, Precision::F32);
        let npu = chip(limit);
        let (banded, _) = in_parts(graph, &npu).unwrap();
        let eager = Rk3588 { flat_depth: 1.0, transpose_bytes_per_second: 1e18, copy_bytes_per_second: 1e18, ..npu.clone() };
        let moved = planes(&banded, &eager, &mut Ok).unwrap();
        let divided = split(&moved, &host_nodes(&moved), cores).unwrap();
        prop_assert_eq!(npu.limits(&divided.graph), vec![]);
        assert_within(TOLERANCE, &run_segments(&divided.graph, &levels(&divided), &given), &expected, "split");
    }
}

#[test]
fn float16_is_as_near_as_without_bands() {
    for (way, sharpness) in
        [(Way::ChannelsLast, 0.3), (Way::ChannelsLast, 1.0), (Way::Flattened, 1.0)]
    {
        let of = Block { way, plane: [24, 24], heads: 2, batch: 1, sharpness, cross: true };
        let graph = block(&of, 11);
        let given = inputs(&graph, 11);
        let expected = run(&graph, &given, Precision::F32);
        let error = |graph: &Graph| {
            let found = run(graph, &given, Precision::F16);
            let errors = expected.iter().map(|(name, tensor)| relative_l2(&found[name], tensor));
            errors.fold(0.0, f64::max)
        };
        let (banded, _) = in_parts(graph.clone(), &chip(300)).unwrap();
        let (before, after) = (error(&graph), error(&banded));
        assert!(after < 1.5 * before, "{way:?} {sharpness}: {after:.2e}, without {before:.2e}");
    }
}

#[test]
fn fewer_shards_than_the_cuts_are_refused() {
    let of = Block {
        way: Way::ChannelsLast,
        plane: [8, 8],
        heads: 2,
        batch: 1,
        sharpness: 1.0,
        cross: true,
    };
    let npu = chip(50);
    let (banded, _) = in_parts(block(&of, 1), &npu).unwrap();
    let cut = |n| partition(&banded, "unet", Shards::Count(n), Optimise::Latency, &npu);
    let error = cut(2).unwrap_err();
    assert!(matches!(error, ConvertError::TooFewShards { asked: 2, least: 3, .. }), "{error}");
    assert_eq!(cut(3).unwrap().len(), 3);
    assert_eq!(cut(9).unwrap().len(), 9);
    // The weights are in one shard, whatever the number of bands.
    let one = &partition(&banded, "unet", Shards::Block, Optimise::Latency, &npu).unwrap()[1];
    let products = one.nodes.iter().filter(|&&n| banded.node(n).op == Op::MatMul).count();
    assert!(products > 16, "{products}");
}
