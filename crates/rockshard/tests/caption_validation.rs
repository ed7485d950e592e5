//! Validation of a vision-language pack covers its language model: against ONNX Runtime's logits of the exported files (`tools/record_language_logits.py`), and
//! on the words about a picture.

mod scenes;

use rockshard::{
    ConvertRequest, DType, DeviceName, LanguageReport, Pack, Recording, Rgb, WeightBits, convert,
    test_picture, validate_language,
};
use scenes::{drawings, repository};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

const LOGITS: &str = "language_logits.safetensors";

/// The bundled model with recorded logits; they are damaged where `swap` says so.
fn source(folder: &Path, swap: bool) {
    fs::create_dir_all(folder.join("onnx")).unwrap();
    for part in ["", "onnx"] {
        for file in fs::read_dir(repository("shards/tiny-vlm").join(part)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), folder.join(part).join(file.file_name())).unwrap();
            }
        }
    }
    let mut recorded = fs::read(repository("crates/rockshard/tests/data").join(LOGITS)).unwrap();
    if swap {
        // The last row's values, turned round.
        let row = recorded.len() - 482 * 4;
        let values: Vec<[u8; 4]> = recorded[row..].as_chunks::<4>().0.to_vec();
        let turned = values.iter().rev().flatten().copied();
        recorded.truncate(row);
        recorded.extend(turned.collect::<Vec<u8>>());
    }
    fs::write(folder.join(LOGITS), recorded).unwrap();
}

fn judged(source: &Path, bits: WeightBits, picture: Option<&Rgb>) -> LanguageReport {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let request = ConvertRequest {
        golden: Some(Recording { dtype: DType::F32, steps: 1 }),
        language_weights: bits,
        ..ConvertRequest::new(source, &path)
    };
    convert(request, &mut |_| ControlFlow::Continue(())).unwrap();
    let pack = Pack::open(&path).unwrap();
    let cores = rockshard::take_cores(DeviceName::Sim).unwrap();
    validate_language(&pack, &cores, picture, 0.999).unwrap().unwrap()
}

#[test]
fn logits_are_onnx_runtimes() {
    let folder = tempfile::tempdir().unwrap();
    source(folder.path(), false);
    let report = judged(folder.path(), WeightBits::ThirtyTwo, None);
    let [logits] = &report.logits[..] else { panic!("{report:?}") };
    assert!(logits.engine.starts_with("ONNX Runtime "), "{}", logits.engine);
    assert_eq!((logits.agreement.tokens, logits.agreement.same), (33, 33));
    assert!(logits.agreement.difference < 1e-5, "{report:?}");
    assert!(report.verdict.is_pass() && report.words.is_none());
    // Of fewer bits it is said how far they are.
    let four = judged(folder.path(), WeightBits::Four, None);
    assert!(four.verdict.is_fail() && four.logits[0].agreement.cosine > 0.98, "{four:?}");
}

#[test]
fn other_logits_fail() {
    let folder = tempfile::tempdir().unwrap();
    source(folder.path(), true);
    let report = judged(folder.path(), WeightBits::ThirtyTwo, None);
    assert!(report.verdict.is_fail(), "{report:?}");
    assert!(report.verdict.reason().contains("ONNX Runtime"), "{}", report.verdict.reason());
    assert_eq!(report.logits[0].agreement.same, 32);
}

/// Without logits of another engine those of rten's own reading of the exported files are recorded.
#[test]
fn words_are_those_of_the_reference() {
    let drawing = drawings(1).remove(0);
    for picture in [test_picture(), drawing] {
        let report = judged(&repository("shards/tiny-vlm"), WeightBits::Eight, Some(&picture));
        assert!(report.logits[0].engine.starts_with("rten"), "{report:?}");
        let words = report.words.unwrap();
        assert_eq!(words.device, words.reference);
        assert!(words.device.contains("background"), "{words:?}");
        assert!(words.agreement.cosine > 0.9999, "{words:?}");
    }
}
