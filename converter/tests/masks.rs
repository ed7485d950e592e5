//! Masks: whatever number hides a score, as a constant or from an input, added or chosen, the rewritten graph gives what float32 gives, in
//! float16 too; a row that is hidden whole gives what the original gives, and never NaN.

mod common;

use common::{Builder, Named, relative_l2, run};
use rockshard_converter::options::Tile;
use rockshard_converter::partition::host_nodes;
use rockshard_converter::passes::{apply_scales, legal_masks, tile_attention, uniform_scales};
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Op, ValueId};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;

const HEADS: usize = 2;
const TOKENS: usize = 6;
const WIDTH: usize = 8;

/// How a mask comes to the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    AddedConstant,
    /// Real numbers that the caller gives.
    AddedInput,
    /// `Where(seen, scores, low)`, with bools that the caller gives.
    Chosen,
    /// `Where(hidden, low, scores)`, with constant bools.
    ChosenConstant,
    /// A mask made of bools that the caller gives, added.
    MadeOfBools,
}

const FORMS: [Form; 5] =
    [Form::AddedConstant, Form::AddedInput, Form::Chosen, Form::ChosenConstant, Form::MadeOfBools];
const LOWS: [f32; 6] = [-65504.0, -1e5, -1e9, -3e38, f32::MIN, f32::NEG_INFINITY];

/// Which keys a query sees: causal with the first two tokens padding, whose own rows are hidden whole.
fn seen() -> Vec<bool> {
    let seen = |i: usize| {
        let (row, key) = (i / TOKENS, i % TOKENS);
        key <= row && key >= 2
    };
    (0..TOKENS * TOKENS).map(seen).collect()
}

fn attention(form: Form, low: f32, seed: u64) -> (Graph, Named) {
    let mut b = Builder::new(seed);
    let shape = [1, HEADS, TOKENS, WIDTH];
    let [q, k, v] = ["q", "k", "v"].map(|name| b.input(name, &shape));
    let k = b.node(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[k]);
    let product = b.node(Op::MatMul, &[q, k]);
    let scale = b.constant(Tensor::scalar(0.35));
    let scores = b.node(Op::Binary(Binary::Mul), &[product, scale]);
    let square = [1, 1, TOKENS, TOKENS];
    let low_mask = || seen().iter().map(|&s| if s { 0.0 } else { low }).collect::<Vec<f32>>();
    let bools = |b: &mut Builder| -> ValueId {
        let id = b.graph.add_value("seen", DType::Bool, square.to_vec());
        b.graph.inputs.push(id);
        id
    };
    let add = Op::Binary(Binary::Add);
    let masked = match form {
        Form::AddedConstant => {
            let mask = b.constant(Tensor::from_f32(square, low_mask()));
            b.node(add, &[scores, mask])
        }
        Form::AddedInput => {
            let mask = b.input("mask", &square);
            b.node(add, &[mask, scores])
        }
        Form::Chosen => {
            let (seen, low) = (bools(&mut b), b.constant(Tensor::scalar(low)));
            b.node(Op::Where, &[seen, scores, low])
        }
        Form::ChosenConstant => {
            let hidden = Tensor::from_bool(square, seen().iter().map(|s| !s).collect());
            let (hidden, low) = (b.constant(hidden), b.constant(Tensor::scalar(low)));
            b.node(Op::Where, &[hidden, low, scores])
        }
        Form::MadeOfBools => {
            let (zero, low) = (b.constant(Tensor::scalar(0.0)), b.constant(Tensor::scalar(low)));
            let seen = bools(&mut b);
            let mask = b.node(Op::Where, &[seen, zero, low]);
            b.node(add, &[scores, mask])
        }
    };
    let weights = b.node(Op::Softmax { axis: 3 }, &[masked]);
    let y = b.node(Op::MatMul, &[weights, v]);
    let graph = b.finish(&[y]);
    let mut inputs = common::real_inputs(&graph, seed);
    inputs.insert("mask".into(), Tensor::from_f32(square, low_mask()));
    inputs.insert("seen".into(), Tensor::from_bool(square, seen()));
    (graph, inputs)
}

/// The rows that the original leaves finite, of both.
fn finite_rows(found: &Tensor, truth: &Tensor) -> (Tensor, Tensor) {
    let (a, b) = (found.to_f32().unwrap().into_owned(), truth.to_f32().unwrap().into_owned());
    let kept: (Vec<f32>, Vec<f32>) =
        a.into_iter().zip(b).filter(|(_, truth)| truth.is_finite()).unzip();
    (Tensor::from_f32([kept.0.len()], kept.0), Tensor::from_f32([kept.1.len()], kept.1))
}

#[test]
fn a_mask_is_what_it_was_in_float32_and_fits_float16() {
    for form in FORMS {
        for low in LOWS {
            for seed in 0..3 {
                let (graph, inputs) = attention(form, low, seed);
                let truth = run(&graph, &inputs, Precision::F32).into_values().next().unwrap();
                let mut legal = graph.clone();
                let log = legal_masks(&mut legal).unwrap();
                assert_eq!(log.edits.len(), 1, "{form:?} {low}");
                rockshard_import::fuse(&mut legal, None).unwrap();
                let fused = legal.nodes().iter().any(|n| matches!(n.op, Op::Attention { .. }));
                assert!(fused, "{form:?} {low}: the attention keeps the form that is fused");
                let variants = [
                    ("whole", legal.clone()),
                    ("rows", tiled(&legal, Tile::Rows(4))),
                    ("grid", tiled(&legal, Tile::Grid(4, 4))),
                    ("scaled", apply_scales(&legal, &uniform_scales(&legal, 8.0)).unwrap()),
                ];
                for (name, variant) in variants {
                    // A mask that is not far below leaves something of the scores of a row that it hides whole, as few bits of it as
                    // float32 has room for beside the mask.
                    let added = !matches!(form, Form::Chosen | Form::ChosenConstant);
                    let exact = if added && low > -1e8 { 5e-3 } else { 1e-5 };
                    for (precision, bound) in [(Precision::F32, exact), (Precision::F16, 6e-3)] {
                        let given = common::stored(&variant, &inputs, name == "scaled", 8.0);
                        let found = computed(&variant, &given, precision);
                        let factor = if name == "scaled" { 0.125 } else { 1.0 };
                        let found = common::scaled(&found, factor);
                        let place = format!("{form:?} {low} seed {seed} {name} {precision:?}");
                        let all = found.to_f32().unwrap().iter().all(|v| v.is_finite());
                        assert!(all, "{place}: every value is finite");
                        let (found, truth) = finite_rows(&found, &truth);
                        let distance = relative_l2(&found, &truth);
                        assert!(distance < bound, "{place}: off by {distance:.1e}");
                    }
                }
            }
        }
    }
}

/// The output, where the host's nodes compute in float32 whatever the NPU's do.
fn computed(graph: &Graph, inputs: &Named, precision: Precision) -> Tensor {
    let host = host_nodes(graph);
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    let given = graph.inputs.iter().map(|&v| (v, inputs[&graph.value(v).name].clone()));
    values.extend(given);
    for (id, node) in graph.node_ids().zip(graph.nodes()) {
        let precision = if host.contains(&id) { Precision::F32 } else { precision };
        let given: Vec<&Tensor> =
            node.inputs.iter().map(|v| values.get(v).or(graph.constant(*v)).unwrap()).collect();
        values.insert(node.output, evaluate(&node.op, &given, precision).unwrap());
    }
    values[&graph.outputs[0]].clone()
}

fn tiled(graph: &Graph, tile: Tile) -> Graph {
    let mut graph = graph.clone();
    tile_attention(&mut graph, tile, &Rk3588::default()).unwrap();
    graph
}

#[test]
fn what_is_no_mask_stays() {
    let mut b = Builder::new(1);
    let x = b.input("x", &[1, 4, 4]);
    let bias = b.constant(Tensor::from_f32([4], vec![-5.0, 2.0, -100.0, 0.0]));
    let sum = b.node(Op::Binary(Binary::Add), &[x, bias]);
    let y = b.node(Op::Softmax { axis: 2 }, &[sum]);
    let mut graph = b.finish(&[y]);
    let before = graph.clone();
    assert!(legal_masks(&mut graph).unwrap().edits.is_empty());
    assert_eq!(graph, before);
}

/// Scores of a constant mask that hides nothing, and whether they need it.
#[test]
fn a_constant_mask_that_hides_nothing_is_left_out() {
    for (mask, left) in [([0.0, -0.0], 0), ([0.0, 1e-3], 1)] {
        let mut b = Builder::new(3);
        let [q, k] = ["q", "k"].map(|name| b.input(name, &[1, HEADS, TOKENS, TOKENS]));
        let product = b.node(Op::MatMul, &[q, k]);
        let values = (0..TOKENS * TOKENS).map(|i| mask[i % 2]).collect();
        let mask = b.constant(Tensor::from_f32([1, 1, TOKENS, TOKENS], values));
        let scores = b.node(Op::Binary(Binary::Add), &[product, mask]);
        let probabilities = b.node(Op::Softmax { axis: 3 }, &[scores]);
        let mut graph = b.graph;
        graph.outputs.push(probabilities);
        let mut inputs = Named::new();
        for (name, factor) in [("q", 0.3), ("k", -0.2)] {
            let values = (0..HEADS * TOKENS * TOKENS).map(|i| factor * (i % 7) as f32).collect();
            inputs.insert(name.into(), Tensor::from_f32([1, HEADS, TOKENS, TOKENS], values));
        }
        let expected = run(&graph, &inputs, Precision::F32);
        let log = legal_masks(&mut graph).unwrap();
        let adds = graph.nodes().iter().filter(|n| n.op == Op::Binary(Binary::Add)).count();
        assert_eq!((adds, log.edits.len()), (left, 1 - left), "{:?}", log.edits);
        assert_eq!(run(&graph, &inputs, Precision::F32), expected);
    }
}
