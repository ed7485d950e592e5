#![no_main]
//! Any bytes are refused with a message, or are a LoRA file whose updates are added to the weights of a small model, which keep their shapes.
//!
//! Half of the mutations change bytes, the other half a tensor's key, type or shape: most changed bytes are no safetensors file at all.

mod change;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rockshard_converter::{LoraFile, fuse_lora};
use rockshard_graph::{Graph, Op, ValueId, Window};
use rockshard_tensor::{DType, Tensor};

/// Modules by the names that exporters give their nodes, and the extents of their weights.
const MODULES: [(&str, &[usize]); 5] = [
    ("/mid_block/attentions.0/to_q/MatMul", &[3, 4]),
    ("/mid_block/resnets.0/conv1/Conv", &[4, 2, 3, 3]),
    ("/mid_block/resnets.0/conv_shortcut/Conv", &[4, 2, 1, 1]),
    ("/text_model/encoder/layers.0/self_attn/q_proj/MatMul", &[4, 4]),
    ("/vector/MatMul", &[4]),
];

/// A model of which only the weights matter.
fn model() -> (Graph, Vec<ValueId>) {
    let mut graph = Graph::new("model");
    let input = graph.add_value("x", DType::F32, vec![1, 4]);
    let mut weights = Vec::new();
    for (name, shape) in MODULES {
        let count = shape.iter().product();
        let weight = graph.add_constant(name, Tensor::from_f32(shape, vec![0.5; count]));
        let output = graph.add_value(format!("{name}:0"), DType::F32, vec![1, 4]);
        let op = match shape {
            [_, _, height, width] => Op::Conv { window: window([*height, *width]), group: 1 },
            _ => Op::MatMul,
        };
        graph.add_node(name, op, vec![input, weight], output);
        weights.push(weight);
    }
    (graph, weights)
}

fn window(kernel: [usize; 2]) -> Window {
    Window { kernel, strides: [1, 1], pads: [0; 4], dilations: [1, 1] }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let changed = (seed % 2 == 0).then(|| change::tensors(&data[..size], seed / 2)).flatten();
    match changed {
        Some(bytes) if bytes.len() <= max_size => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

fuzz_target!(|data: &[u8]| {
    let (mut graph, weights) = model();
    let file = LoraFile { path: "lora.safetensors".into(), scale: 0.5 };
    match fuse_lora(&data.to_vec().into(), &file, &mut graph) {
        Ok(_) => {
            for ((_, shape), weight) in MODULES.iter().zip(weights) {
                assert_eq!(graph.constant(weight).map(Tensor::shape), Some(*shape));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
