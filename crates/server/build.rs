//! Puts the files of `page/` into the program.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let page = Path::new(&root).join("page");
    println!("cargo::rerun-if-changed={}", page.display());
    let mut names: Vec<_> = std::fs::read_dir(&page)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut text = String::from("/// The files of the page.\nconst ASSETS: &[Asset] = &[\n");
    for name in names {
        let path = page.join(&name);
        println!("cargo::rerun-if-changed={}", path.display());
        let mut hasher = DefaultHasher::new();
        std::fs::read(&path).unwrap().hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        let bytes = format!("include_bytes!({:?})", path.display().to_string());
        writeln!(text, "    Asset {{ name: {name:?}, bytes: {bytes}, tag: {tag:?} }},").unwrap();
    }
    text += "];\n";
    let out = Path::new(&std::env::var("OUT_DIR").unwrap()).join("assets.rs");
    std::fs::write(out, text).unwrap();
}
