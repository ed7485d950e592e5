//! Decoders that were read from exports and packed: their words are transformers' (`tools/record_vlm_language.py`), whatever the export, and fewer bits cost
//! what they may.

use rockshard_converter::{ConvertError, convert_language};
use rockshard_manifest::LanguageConversion;
use rockshard_vlm::{Export, LanguageModel, Session, WeightBits};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const IMAGE: u32 = 41;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vlm/tests/data").join(file)
}

fn json(path: PathBuf) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn export() -> Export {
    Export::find(&data("model/onnx"))
}

/// The recorded model with these weights.
fn converted(export: &Export, bits: WeightBits) -> (Arc<LanguageModel>, LanguageConversion) {
    let folder = TempDir::new().unwrap();
    let config = json(data("model/config.json"));
    let to = folder.path().join("decoder.safetensors");
    let outcome = convert_language(export, &config, bits, &to).unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    (Arc::new(LanguageModel::open(folder.path(), 2048, Some(2)).unwrap()), outcome)
}

/// A recorded prompt's embeddings; places of images have features by the formula of the recording.
fn prompt(model: &LanguageModel, case: &Json) -> Vec<f32> {
    let run = |run: &Json| {
        let number = |at: usize| run[at].as_u64().unwrap() as usize;
        vec![number(0) as u32; number(1)]
    };
    let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().flat_map(run).collect();
    let mut embeddings = model.embed(&ids).unwrap();
    let places = ids.iter().enumerate().filter(|(_, id)| **id == IMAGE).map(|(at, _)| at);
    for (number, at) in places.enumerate() {
        for column in 0..model.width() {
            let value = ((number * 37 + column * 11) % 101) as f32 - 50.0;
            embeddings[at * model.width() + column] = value / 100.0;
        }
    }
    embeddings
}

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}

fn logits(case: &Json, key: &str) -> Vec<f32> {
    case[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// How far the first and the last of 32 greedy tokens' logits are from transformers', fed its own tokens.
fn distances(model: &Arc<LanguageModel>) -> Vec<(f64, f64)> {
    let cases = json(data("continued.json"));
    let distance = |case: &Json| {
        let mut session = Session::new(model.clone());
        let first = session.feed(&prompt(model, case)).unwrap();
        let mut last = Vec::new();
        let said = case["continued"].as_array().unwrap();
        for token in &said[..said.len() - 1] {
            last = session.feed(&model.embed(&[token.as_u64().unwrap() as u32]).unwrap()).unwrap();
        }
        (
            relative(&first, &logits(case, "first_logits")),
            relative(&last, &logits(case, "last_logits")),
        )
    };
    cases.as_array().unwrap().iter().map(distance).collect()
}

#[test]
fn logits_are_transformers() {
    let (model, outcome) = converted(&export(), WeightBits::ThirtyTwo);
    assert!(
        matches!(outcome, LanguageConversion::Decoder { bits: 32, difference } if difference < 1e-5)
    );
    for (first, last) in distances(&model) {
        assert!(first < 1e-5 && last < 1e-5, "{first:e} {last:e}");
    }
}

/// Exports in other precisions are read too: the most exact that are there.
#[test]
fn other_precisions_are_read() {
    let exports = data("exports");
    let found = Export::find(&exports);
    assert!(found.embed.ends_with("embed_tokens_fp16.onnx"), "{found:?}");
    assert!(found.decoder.ends_with("decoder_model_merged_fp16.onnx"), "{found:?}");
    let four = Export { decoder: exports.join("decoder_model_merged_q4.onnx"), ..found.clone() };
    for (export, limit) in [(found, 1e-2), (four, 0.5)] {
        let (model, outcome) = converted(&export, WeightBits::ThirtyTwo);
        let LanguageConversion::Decoder { difference, .. } = outcome else { panic!("{outcome:?}") };
        assert!(difference < 1e-4, "{difference:e}");
        // From transformers' float32, by what their own weights lost.
        for (first, last) in distances(&model) {
            assert!(first < limit && last < limit, "{first:e} {last:e}");
        }
    }
}

/// However a prompt is cut, and whatever was forgotten in between, the logits are those of the prompt at once.
#[test]
fn a_session_goes_on_where_it_was() {
    let (model, _) = converted(&export(), WeightBits::ThirtyTwo);
    let embeddings = prompt(&model, &json(data("continued.json"))[1]);
    let width = model.width();
    let whole = Session::new(model.clone()).feed(&embeddings).unwrap();
    for size in [1, 7, 50] {
        let mut session = Session::new(model.clone());
        let mut logits = Vec::new();
        for piece in embeddings.chunks(size * width) {
            logits = session.feed(piece).unwrap();
            session.feed(&model.embed(&[5, 6, 7]).unwrap()).unwrap();
            session.forget(session.tokens() - 3);
        }
        assert!(relative(&logits, &whole) < 1e-5, "{size}: {:e}", relative(&logits, &whole));
    }
}

/// Random weights are the worst that fewer bits can meet: nothing in them is redundant.
#[test]
fn fewer_bits_are_near() {
    for (bits, limit) in [(WeightBits::Eight, 0.05), (WeightBits::Four, 0.4)] {
        let (model, outcome) = converted(&export(), bits);
        let LanguageConversion::Decoder { bits: stored, difference } = outcome else { panic!() };
        assert_eq!((stored, difference < 1e-5), (bits.bits(), true));
        for (first, last) in distances(&model) {
            assert!(first > 1e-4 && first < 0.05, "{bits:?}: {first}");
            assert!(last < limit, "{bits:?}: {last}");
        }
    }
}

/// What is not read as a decoder is left as it was exported, and said so; in fewer bits it is refused.
#[test]
fn what_is_no_llama_decoder_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("decoder.safetensors");
    let mut config = json(data("model/config.json"));
    for (change, said) in [
        (("rope_type", Json::from("yarn")), "\"yarn\""),
        (("rope_theta", Json::from(10_000.0)), "off"),
        (("rope_theta", Json::Null), "rope_theta"),
    ] {
        let rope = &mut config["text_config"]["rope_parameters"];
        let before = std::mem::replace(&mut rope[change.0], change.1);
        let outcome = convert_language(&export(), &config, WeightBits::ThirtyTwo, &to).unwrap();
        let LanguageConversion::Exported { reason } = outcome else { panic!("{said}") };
        assert!(reason.contains(said), "{reason}");
        let refused = convert_language(&export(), &config, WeightBits::Eight, &to).unwrap_err();
        assert!(matches!(refused, ConvertError::LanguageWeights { bits: 8, .. }), "{refused}");
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        config["text_config"]["rope_parameters"][change.0] = before;
    }
}
