//! `--memory-limit` and `--vae-tile` on the bundled model.

mod common;

use common::{Work, rockshard};
use rockshard_diffusion::Picture;
use serde_json::Value;
use std::path::Path;

fn draw(pack: &Path, out: &Path, options: &[&str]) -> Value {
    let args = [
        "generate",
        pack.to_str().unwrap(),
        "--prompt",
        "a large red circle on a blue background",
        "--seed",
        "3",
        "--json",
    ];
    let json =
        rockshard(&[&args[..], &["--quiet", "--out", out.to_str().unwrap()], options].concat())
            .success();
    serde_json::from_str(&json).unwrap()
}

#[test]
fn models_take_turns_and_the_picture_is_the_same() {
    let work = Work::new();
    let (pack, free, tight) = (work.path("pack"), work.path("free.png"), work.path("tight.png"));
    work.convert(&pack, &[]);
    let all = draw(&pack, &free, &[])["modelled_resident_peak_bytes"].as_u64().unwrap();
    let limit = all - 1;
    let peak = draw(&pack, &tight, &["--memory-limit", &limit.to_string()])["modelled_resident_peak_bytes"].as_u64().unwrap();
    assert!(peak > 0 && peak <= limit, "{peak} of {limit}, all at once {all}");
    assert!(std::fs::read(free).unwrap() == std::fs::read(tight).unwrap());
    let out = work.path("none.png");
    let args = [
        "generate",
        pack.to_str().unwrap(),
        "--prompt",
        "a ring",
        "--out",
        out.to_str().unwrap(),
        "--memory-limit",
        "10kB",
    ];
    let error = rockshard(&args).exits(1);
    assert!(
        error.contains("bytes of device memory (modelled") && error.contains("--tile rows:R"),
        "{error}"
    );
}

/// Mean absolute difference of neighbouring lines, for each line but the first.
fn steps(p: &Picture) -> Vec<f64> {
    let line = p.width as usize * 3;
    let lines: Vec<&[u8]> = p.rgb.chunks_exact(line).collect();
    let step = |w: &[&[u8]]| {
        w[0].iter().zip(w[1]).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / line as f64
    };
    lines.windows(2).map(step).collect()
}

#[test]
fn a_picture_decoded_in_tiles_is_almost_the_same() {
    let work = Work::new();
    let (pack, whole, tiled) = (work.path("pack"), work.path("whole.png"), work.path("tiled.png"));
    work.convert(
        &pack,
        &["--resolution", "192x192", "--resolution", "128x128", "--placement", "replicate"],
    );
    draw(&pack, &whole, &["--size", "192x192"]);
    let result = draw(&pack, &tiled, &["--size", "192x192", "--vae-tile", "16"]);
    assert_eq!(result["incidents"], serde_json::json!([]));
    // The U-Net fits, the decoder of this size does not: tiles come by themselves.
    let auto = work.path("auto.png");
    let args = [
        "generate",
        pack.to_str().unwrap(),
        "--prompt",
        "a ring",
        "--size",
        "192x192",
        "--memory-limit",
        "1MB",
    ];
    let error = rockshard(&args).exits(1);
    let limit =
        error.split_once("model unet needs ").and_then(|(_, rest)| rest.split_once(' ')).unwrap().0;
    draw(&pack, &auto, &["--size", "192x192", "--memory-limit", limit]);
    assert!(std::fs::read(&auto).unwrap() == std::fs::read(&tiled).unwrap());
    let [whole, tiled] =
        [whole, tiled].map(|path| Picture::from_bytes(&std::fs::read(path).unwrap()).unwrap());
    assert_eq!((tiled.width, tiled.height), (192, 192));
    let difference: f64 =
        whole.rgb.iter().zip(&tiled.rgb).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>()
            / whole.rgb.len() as f64;
    assert!(difference < 4.0, "mean difference {difference} of 255");
    // No line stands out that does not in the whole picture.
    let [rough, seams] = [&whole, &tiled].map(|p| steps(p).into_iter().fold(0.0, f64::max));
    assert!(seams < rough * 1.25 + 1.0, "steepest step {seams}, {rough} in the whole picture");
    let error =
        rockshard(&["generate", pack.to_str().unwrap(), "--prompt", "a ring", "--vae-tile", "5"])
            .exits(1);
    assert!(
        error.contains("the pack has no decoder of 5x5 latent values, only 24x24, 16x16"),
        "{error}"
    );
}
