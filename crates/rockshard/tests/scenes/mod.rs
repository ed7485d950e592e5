//! Bundled models as packs, and the recorded drawings.
#![allow(dead_code)] // Each test program uses some of it.

use rockshard::{ConvertRequest, Pack, Rgb, convert};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const SIDE: usize = 128;
const ROW: usize = 20;

pub fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

/// A bundled model, converted.
pub fn converted(model: &str) -> (tempfile::TempDir, Pack) {
    let folder = tempfile::tempdir().unwrap();
    let request = ConvertRequest::new(repository(model), folder.path().join("pack"));
    convert(request, &mut |_| ControlFlow::Continue(())).unwrap();
    let pack = Pack::open(&folder.path().join("pack")).unwrap();
    (folder, pack)
}

/// The drawings on the recorded sheet, row by row.
pub fn drawings(count: usize) -> Vec<Rgb> {
    let sheet = std::fs::read(repository("crates/rockshard/tests/data/scenes.png")).unwrap();
    let sheet = Rgb::from_file(&sheet).unwrap();
    let drawing = |number: usize| {
        let (left, top) = (number % ROW * SIDE, number / ROW * SIDE);
        let row = |y: usize| {
            let from = ((top + y) * sheet.width + left) * 3;
            sheet.bytes[from..from + SIDE * 3].to_vec()
        };
        Rgb::new(SIDE, SIDE, (0..SIDE).flat_map(row).collect()).unwrap()
    };
    (0..count).map(drawing).collect()
}
