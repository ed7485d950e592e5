//! `crates/onnx/src/schema.rs` is generated from `crates/onnx/proto/onnx-ml.proto`, without protoc. Regenerate with
//! `ROCKSHARD_REGENERATE=1 cargo test --manifest-path schemas/Cargo.toml --test onnx`.

use std::{fs, path::Path};

#[test]
fn schema_is_what_the_proto_file_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/onnx");
    let descriptors = protox::compile(["onnx-ml.proto"], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();
    let generated = fs::read_to_string(out.path().join("onnx.rs")).unwrap();
    let committed = root.join("src/schema.rs");
    if std::env::var_os("ROCKSHARD_REGENERATE").is_some() {
        fs::write(&committed, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&committed).unwrap() == generated,
        "src/schema.rs differs from its proto file: regenerate it"
    );
}
