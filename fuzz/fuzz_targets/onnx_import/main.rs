#![no_main]
//! Any bytes are refused with a message, or become a graph that holds together. External data is looked up in a directory
//! that does not exist.
//!
//! Half of the mutations change bytes, the other half the decoded message: most changed bytes are no ONNX file at all, most
//! changed messages reach the operators.

mod change;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use rockshard_import::{ImportOptions, fuse, import_model};
use rockshard_onnx::Model;
use std::path::Path;

fn decode(data: &[u8]) -> Option<Model> {
    Model::decode(data.to_vec().into(), Path::new("/nonexistent/rockshard/model.onnx")).ok()
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let changed =
        (seed % 2 == 0).then(|| change::message(&decode(&data[..size])?.proto, seed / 2)).flatten();
    match changed {
        Some(bytes) if bytes.len() <= max_size => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(model) = decode(data) else { return Corpus::Reject };
    match import_model(&model, &ImportOptions::fixed(), None) {
        Ok(mut graph) => {
            graph.verify().expect("an imported graph verifies");
            fuse(&mut graph, None).expect("a fused graph verifies");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Corpus::Keep
});
