//! Views against those of transformers' processor with Pillow, recorded by `tools/record_vlm_images.py`.

use rockshard_vlm::{ImageError, ImageProcessor, Rgb, Views};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// By how much the mean of a view of a JPEG file may differ: other decoders than libjpeg round otherwise.
const LOSSY_MEAN: f64 = 0.01;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

fn processor() -> ImageProcessor {
    let text = std::fs::read_to_string(data("preprocessor_config.json")).unwrap();
    ImageProcessor::from_json(&text).unwrap()
}

fn recorded() -> Vec<Json> {
    let text = std::fs::read_to_string(data("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn views(case: &Json) -> Views {
    let file = data("images").join(case["file"].as_str().unwrap());
    let image = Rgb::from_file(&std::fs::read(&file).unwrap()).unwrap();
    let processor = processor().with_grid(case["edge"].as_u64().unwrap() as usize).unwrap();
    processor.views(&image)
}

/// Every byte of every view is Pillow's, for images of odd sizes and of every mode, at grids of one to four; values to the bit of float32.
#[test]
fn views_are_transformers() {
    let cases = recorded();
    let exact = cases.iter().filter(|c| c["lossy"] == false);
    let files: std::collections::BTreeSet<&str> =
        exact.clone().filter_map(|c| c["file"].as_str()).collect();
    assert!(files.len() >= 24 && cases.len() >= 45, "{} files, {} cases", files.len(), cases.len());
    for case in &cases {
        let name = format!("{} at {}", case["file"], case["edge"]);
        let views = views(case);
        let number = |value: &Json| value.as_u64().unwrap() as usize;
        assert_eq!(
            views.grid().to_vec(),
            case["grid"].as_array().unwrap().iter().map(number).collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(views.count(), number(&case["views"]), "{name}");
        if case["lossy"] == true {
            for (at, mean) in case["mean"].as_array().unwrap().iter().enumerate() {
                let values = views.pixel_values(at).unwrap();
                let values = values.to_f32().unwrap();
                let found = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
                assert!(
                    (found - mean.as_f64().unwrap()).abs() < LOSSY_MEAN,
                    "{name}: {found} {mean}"
                );
            }
            continue;
        }
        for (at, image) in views.images().iter().enumerate() {
            let digest =
                Sha256::digest(&image.bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!(digest, case["sha256"][at].as_str().unwrap(), "{name}, view {at}");
        }
        let of_a_view = 3 * processor().side() * processor().side();
        for (at, value) in
            case["at"].as_array().unwrap().iter().zip(case["values"].as_array().unwrap())
        {
            let at = number(at);
            let tensor = views.pixel_values(at / of_a_view).unwrap();
            let found = tensor.to_f32().unwrap()[at % of_a_view];
            assert_eq!(found, value.as_f64().unwrap() as f32, "{name}, value {at}");
        }
    }
}

/// What cannot be read is refused by name, and soon: damaged files, bombs, nothing.
#[test]
fn bad_images_are_refused() {
    let whole = std::fs::read(data("images/00-640x480-RGB.png")).unwrap();
    let said = |bytes: &[u8]| Rgb::from_file(bytes).unwrap_err().to_string();
    assert_eq!(said(b""), "the image cannot be read: it is empty (0 bytes)");
    assert!(said(b"GIF89a").contains("cannot be read"));
    assert!(said(&whole[..whole.len() / 2]).contains("cannot be read"));
    let jpeg = std::fs::read(data("images/20-200x150-RGB-exif6.jpg")).unwrap();
    assert!(said(&jpeg[..jpeg.len() / 2]).contains("the JPEG is cut off"));
    for (width, height) in [(20_000u32, 10), (16_384, 16_384), (u32::MAX / 2, u32::MAX / 2)] {
        let mut bomb = whole.clone();
        bomb[16..20].copy_from_slice(&width.to_be_bytes());
        bomb[20..24].copy_from_slice(&height.to_be_bytes());
        // The checksum of the header goes with it.
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let said = said(&bomb);
        assert!(said.contains(&width.to_string()) || said.contains("imit"), "{said}");
    }
    assert!(matches!(Rgb::new(2, 2, vec![0; 11]), Err(ImageError::Bytes { found: 11, .. })));
    assert!(Rgb::new(0, 2, Vec::new()).is_err());
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |c, _| bit(c)))
}

#[test]
fn configurations_that_cannot_be_followed_are_refused() {
    let text = std::fs::read_to_string(data("preprocessor_config.json")).unwrap();
    for (from, to, said) in [
        ("\"resample\": 1", "\"resample\": 3", "only 1 (Lanczos)"),
        ("\"longest_edge\": 2048", "\"longest_edge\": 0", "from 1 to 4096"),
        ("\"do_rescale\": true", "\"do_rescale\": false", "must be true"),
        ("\"max_image_size\"", "\"other\"", "max_image_size"),
        ("\"image_std\": [\n    0.5", "\"image_std\": [\n    0.0", "image_std has a 0"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let found = ImageProcessor::from_json(&changed).unwrap_err().to_string();
        assert!(found.contains(said), "{found}");
    }
    assert!(processor().with_grid(0).is_err() && processor().with_grid(9).is_err());
}

/// transformers' `get_image_prompt_string`, for one view and for a grid.
#[test]
fn what_stands_for_an_image() {
    let image = Rgb::new(20, 10, vec![90; 600]).unwrap();
    let one = processor().with_grid(1).unwrap().views(&image);
    assert_eq!(
        one.placeholder(2),
        "<fake_token_around_image><global-img><image><image><fake_token_around_image>"
    );
    let four = processor().with_grid(2).unwrap().views(&image);
    assert_eq!((four.grid(), four.count()), ([1, 2], 3));
    assert_eq!(
        four.placeholder(1),
        "<fake_token_around_image><row_1_col_1><image><fake_token_around_image><row_1_col_2><image>\n\n<fake_token_around_image><global-img><image><fake_token_around_image>"
    );
    assert!(four.pixel_values(3).is_none());
}
