#![no_main]
//! Any bytes are refused with a message, or become a graph that holds together. External data is looked up in a directory
//! that does not exist.

use libfuzzer_sys::{Corpus, fuzz_target};
use rockshard_import::{Options, fuse, import_model};
use rockshard_onnx::Model;
use std::path::Path;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(model) = Model::decode(data.to_vec().into(), Path::new("/nonexistent/rockshard/model.onnx")) else {
        return Corpus::Reject;
    };
    match import_model(&model, &Options::fixed()) {
        Ok(mut graph) => {
            graph.verify().expect("an imported graph verifies");
            fuse(&mut graph, None).expect("a fused graph verifies");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Corpus::Keep
});
