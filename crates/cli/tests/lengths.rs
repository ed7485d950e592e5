//! Holds every source file to a length that can be read at once.

use std::path::{Path, PathBuf};

/// The most lines a source file may have.
const LINES: usize = 500;
/// Files that may be longer: what a program writes, and what is still to be split.
const LONGER: &[&str] = &["crates/onnx/src/schema.rs"];
/// Folders of the workspace that hold Rust; `fuzz` is a workspace of its own.
const FOLDERS: &[&str] =
    &["benches", "converter", "crates", "fuzz", "shards", "tools", "validation"];

/// All `.rs` files under a folder, without build outputs.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_source_file_is_over_the_limit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    FOLDERS.iter().for_each(|folder| sources(&root.join(folder), &mut found));
    assert!(found.len() > 100, "only {} sources found", found.len());
    let long: Vec<String> = found
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            let lines = std::fs::read_to_string(path).unwrap().lines().count();
            (lines > LINES && !LONGER.contains(&name)).then(|| format!("{name}: {lines} lines"))
        })
        .collect();
    assert!(long.is_empty(), "over {LINES} lines; split by subject:\n{}", long.join("\n"));
}
