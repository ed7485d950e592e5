//! The bundled model draws what its held-out captions ask for, and the simulator draws it as well as the CPU reference.

mod checker;
mod common;

use checker::{Scene, is_right};
use common::{Work, model, rockshard};
use rockshard_diffusion::Picture;
use std::path::Path;

/// Share of the captions for which it must be.
const REQUIRED: f64 = 0.9;
/// Points the simulator may differ from the reference.
const DIFFERENCE: f64 = 0.02;

fn score(scenes: &[Scene], pack: &Path, work: &Work, device: &str) -> f64 {
    let mut right = 0;
    for scene in scenes {
        let out = work.path(&format!("{device}.png"));
        let (seed, path) = (scene.seed.to_string(), out.to_str().unwrap());
        let args = [
            "generate",
            "--prompt",
            &scene.caption,
            "--seed",
            &seed,
            "--device",
            device,
            "--out",
            path,
            "--quiet",
        ];
        rockshard(&[&args[..], &[pack.to_str().unwrap()]].concat()).success();
        let picture = Picture::from_bytes(&std::fs::read(&out).unwrap()).unwrap();
        right += usize::from(is_right(&picture, scene, device));
    }
    right as f64 / scenes.len() as f64
}

#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn held_out_captions_are_drawn_on_both_devices() {
    let text = std::fs::read(model().join("held_out.json")).unwrap();
    let scenes: Vec<Scene> = serde_json::from_slice(&text).unwrap();
    assert_eq!(scenes.len(), 64);
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(&pack, &["--sandwich", "off"]);
    let (sim, cpu) = (score(&scenes, &pack, &work, "sim"), score(&scenes, &pack, &work, "cpu"));
    eprintln!(
        "held-out captions right: simulator {:.1} %, CPU reference {:.1} %",
        sim * 100.0,
        cpu * 100.0
    );
    assert!((sim - cpu).abs() <= DIFFERENCE, "simulator {sim}, reference {cpu}");
    assert!(sim >= REQUIRED && cpu >= REQUIRED, "simulator {sim}, reference {cpu}");
}
