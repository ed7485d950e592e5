#![no_main]
//! Any bytes are refused with a message, or are a manifest that reads back as itself.

use libfuzzer_sys::fuzz_target;
use rockshard_manifest::Manifest;

fuzz_target!(|data: &[u8]| {
    match Manifest::parse(data) {
        Ok(manifest) => {
            let text = manifest.to_json();
            let again = Manifest::parse(text.as_bytes()).expect("what to_json writes is accepted");
            assert_eq!(again.to_json(), text);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
