//! `generate --init-image` with every kind of file: what is drawn is what is drawn from the same picture as a plain, upright PNG. The files
//! and how they look are Pillow's (`tools/record_init_images.py`).

mod common;

use common::{PACK, Work, rockshard};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest mean difference of what is drawn from files with loss: two decoders round differently, and JPEG changes the picture.
const LOSS: f64 = 1.5;
/// What is drawn from a picture that is not turned differs at least by this.
const NOT_TURNED: f64 = 20.0;

#[derive(Deserialize)]
struct Case {
    file: String,
    expected: String,
    exact: bool,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/init_images").join(name)
}

/// What is drawn from a picture, little changed.
fn drawn(work: &Work, initial: &Path) -> Vec<u8> {
    let out = work.path("out.png");
    let [pack, initial, to] = [&PACK.1, initial, &out].map(|path| path.to_str().unwrap());
    let args = ["generate", pack, "--prompt", "red", "--init-image", initial, "--out", to];
    let rest = ["--steps", "1", "--strength", "0.1", "--device", "cpu", "--quiet"];
    rockshard(&[&args[..], &rest].concat()).success();
    rockshard_diffusion::Picture::from_bytes(&std::fs::read(&out).unwrap()).unwrap().rgb
}

fn difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn every_kind_of_file_is_the_upright_picture() {
    let work = Work::new();
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(data("files.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 10 + 8 + 2 * 4);
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for Case { file, expected: upright, exact } in &cases {
        let wanted =
            expected.entry(upright.clone()).or_insert_with(|| drawn(&work, &data(upright)));
        let found = difference(&drawn(&work, &data(file)), wanted);
        assert!(found <= if *exact { 0.0 } else { LOSS }, "{file}: {found:.2} of 255");
    }
}

/// The comparison above would notice a picture that is not turned.
#[test]
fn a_turned_picture_is_another_one() {
    let work = Work::new();
    let upright = drawn(&work, &data("upright.png"));
    let turned = work.path("turned.png");
    let image = image_of(&data("upright.png"));
    let rgb = image.rgb.chunks_exact(3).rev().flatten().copied().collect();
    rockshard_diffusion::Picture { rgb, ..image }.save(&turned).unwrap();
    let found = difference(&drawn(&work, &turned), &upright);
    assert!(found >= NOT_TURNED, "{found:.2} of 255");
}

fn image_of(path: &Path) -> rockshard_diffusion::Picture {
    rockshard_diffusion::Picture::from_bytes(&std::fs::read(path).unwrap()).unwrap()
}
