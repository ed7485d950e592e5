//! Holds each crate's dependencies within the workspace to the picture in `docs/architecture.md`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Each crate, without the prefix `rockshard-`, and the crates it may depend on.
const ALLOWED: &[(&str, &str)] = &[
    ("tensor", ""),
    ("onnx", "tensor"),
    ("graph", "tensor"),
    ("kernels", "graph tensor"),
    ("import", "graph kernels onnx tensor"),
    ("manifest", "tensor"),
    ("cost", "clock graph tensor"),
    ("clock", ""),
    ("device", "manifest tensor"),
    ("device-kit", "device manifest pack tensor"),
    ("pack", "device manifest tensor"),
    ("device-cpu", "device manifest tensor"),
    ("device-rknn", "device manifest rknn-abi tensor"),
    ("device-sim", "cost device graph import kernels manifest onnx tensor"),
    ("devices", "cost device device-cpu device-rknn device-sim pack"),
    ("rknn-abi", ""),
    ("rknnrt-sim", "cost device device-sim graph import manifest onnx rknn-abi tensor"),
    ("runtime", "clock device manifest pack tensor"),
    ("plan", "clock cost graph import manifest pack"),
    ("image-file", ""),
    ("diffusion", "image-file manifest tensor"),
    ("vlm", "image-file tensor"),
    ("converter", "cost device graph import kernels manifest onnx tensor vlm"),
    ("validation", "device manifest pack tensor"),
    (
        "rockshard",
        "converter cost device device-cpu devices diffusion manifest pack plan runtime tensor validation vlm",
    ),
    ("server", "rockshard"),
    ("cli", ANY),
    ("benches", ANY),
    ("rknn-rs-check", "device device-sim manifest pack tensor"),
];
const ANY: &str = "*";
const PREFIX: &str = "rockshard-";
/// The crate that programs use; it has no prefix.
const FACADE: &str = "rockshard";

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A crate's name without the prefix.
fn short(package: &Value) -> Option<&str> {
    let name = package["name"].as_str()?;
    if name == FACADE { Some(name) } else { name.strip_prefix(PREFIX) }
}

/// What breaks the picture, a line each.
fn broken(metadata: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for package in list(&metadata["packages"]) {
        let Some((name, may)) =
            short(package).and_then(|name| ALLOWED.iter().find(|(n, _)| *n == name))
        else {
            broken.push(format!("crate {} is not in the table: add it with what it may depend on, here and in the page", package["name"]));
            continue;
        };
        // The kind of a dependency that only tests have is "dev", that of a normal one is null.
        let used =
            list(&package["dependencies"]).iter().filter(|d| d["kind"] != "dev").filter_map(short);
        let forbidden = used
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|u| *may != ANY && may.split(' ').all(|m| m != *u));
        broken.extend(
            forbidden.map(|used| format!("{name} -> {used}: {name} may depend on [{may}]")),
        );
    }
    broken
}

#[test]
fn crates_depend_only_as_the_picture_shows() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
        "--manifest-path",
        manifest,
    ]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let broken = broken(&metadata);
    assert!(
        broken.is_empty(),
        "dependencies that docs/architecture.md does not show:\n{}",
        broken.join("\n")
    );
    let present: BTreeSet<&str> = list(&metadata["packages"]).iter().filter_map(short).collect();
    let gone: Vec<&str> =
        ALLOWED.iter().map(|(name, _)| *name).filter(|name| !present.contains(name)).collect();
    assert!(gone.is_empty(), "in the table but not in the workspace: {gone:?}");
}

#[test]
fn a_wrong_arrow_is_named() {
    let normal = |name: &str| serde_json::json!({ "name": name, "kind": null });
    let metadata = serde_json::json!({ "packages": [
        { "name": "rockshard-tensor", "dependencies": [normal("rockshard-graph"), normal("serde")] },
        { "name": "rockshard-graph", "dependencies": [normal("rockshard-tensor"), { "name": "rockshard-cli", "kind": "dev" }] },
        { "name": "rockshard-cli", "dependencies": [normal("rockshard-graph")] },
        { "name": "rockshard-extra", "dependencies": [] },
    ] });
    let broken = broken(&metadata);
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert_eq!(broken[0], "tensor -> graph: tensor may depend on []");
    assert!(broken[1].starts_with("crate \"rockshard-extra\" is not in the table"), "{broken:?}");
}
