//! Words against those of transformers' Llama, recorded by `tools/record_vlm_language.py`.

use rockshard_vlm::{End, LanguageError, LanguageModel, Sampler, Sampling, Session, generate};
use serde_json::Value as Json;
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

const CONTEXT: usize = 2048;
const IMAGE: u32 = 41;

static MODEL: LazyLock<Arc<LanguageModel>> =
    LazyLock::new(|| Arc::new(LanguageModel::open(&data(), CONTEXT, Some(2)).unwrap()));

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model/onnx")
}

fn recorded() -> Vec<Json> {
    let text = std::fs::read_to_string(data().join("../../continued.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers<T>(json: &Json, of: impl Fn(&Json) -> T) -> Vec<T> {
    json.as_array().unwrap().iter().map(of).collect()
}

fn token(json: &Json) -> u32 {
    json.as_u64().unwrap() as u32
}

/// A recorded prompt's tokens and embeddings; places of images have features by the formula of the recording.
fn prompt(case: &Json) -> (Vec<u32>, Vec<f32>) {
    let runs = numbers(&case["ids"], |run| vec![token(&run[0]); token(&run[1]) as usize]);
    let ids = runs.concat();
    let mut embeddings = MODEL.embed(&ids).unwrap();
    let width = MODEL.width();
    let places = ids.iter().enumerate().filter(|(_, id)| **id == IMAGE).map(|(at, _)| at);
    for (number, at) in places.enumerate() {
        for column in 0..width {
            let value = ((number * 37 + column * 11) % 101) as f32 - 50.0;
            embeddings[at * width + column] = value / 100.0;
        }
    }
    (ids, embeddings)
}

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}

/// Thirty-two greedy tokens and their logits are transformers', after words, an image, and a conversation about seventeen views.
#[test]
fn words_are_transformers() {
    let mut longest = 0;
    for case in recorded() {
        let (ids, embeddings) = prompt(&case);
        longest = longest.max(ids.len());
        let mut session = Session::new(MODEL.clone());
        let first = session.feed(&embeddings).unwrap();
        let logits = |key: &str| numbers(&case[key], |v| v.as_f64().unwrap() as f32);
        let off = relative(&first, &logits("first_logits"));
        assert!(off < 1e-5, "prompt {}: {off:e}", case["prompt"]);
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        let mut told = Vec::new();
        let mut tell = |token| {
            told.push(token);
            Continue(())
        };
        let found =
            generate(&mut session, first, &mut sampler, (&ids, &[]), 32, &mut tell).unwrap();
        assert_eq!(found.tokens, numbers(&case["continued"], token));
        assert_eq!((found.end, &told), (End::Length, &found.tokens));
        assert_eq!(session.tokens(), ids.len() + 32);
        // The logits of the last token, fed again.
        session.forget(ids.len() + 31 - 1);
        let last = session.feed(&MODEL.embed(&found.tokens[30..31]).unwrap()).unwrap();
        let off = relative(&last, &logits("last_logits"));
        assert!(off < 1e-5, "prompt {}: {off:e}", case["prompt"]);
    }
    assert!(longest > 1088, "{longest}");
}

/// However a prompt is cut, and whatever was forgotten in between, the logits are those of the prompt at once.
#[test]
fn a_session_goes_on_where_it_was() {
    let case = &recorded()[1];
    let (_, embeddings) = prompt(case);
    let width = MODEL.width();
    let whole = Session::new(MODEL.clone()).feed(&embeddings).unwrap();
    for size in [1, 7, 50] {
        let mut session = Session::new(MODEL.clone());
        let mut logits = Vec::new();
        for piece in embeddings.chunks(size * width) {
            logits = session.feed(piece).unwrap();
            session.feed(&MODEL.embed(&[5, 6, 7]).unwrap()).unwrap();
            let kept = session.tokens() - 3;
            session.forget(kept);
        }
        assert!(relative(&logits, &whole) < 1e-5, "{size}: {:e}", relative(&logits, &whole));
    }
}

#[test]
fn a_generation_ends_for_a_reason() {
    let case = &recorded()[0];
    let (ids, embeddings) = prompt(case);
    let expected = numbers(&case["continued"], token);
    let mut greedy = Sampler::new(Sampling::default()).unwrap();
    let mut run =
        |stops: &[u32], most: usize, tell: &mut dyn FnMut(u32) -> std::ops::ControlFlow<()>| {
            let mut session = Session::new(MODEL.clone());
            let logits = session.feed(&embeddings).unwrap();
            generate(&mut session, logits, &mut greedy, (&ids, stops), most, tell).unwrap()
        };
    // The first token that was not there before.
    let at = (2..32).find(|&at| !expected[..at].contains(&expected[at])).unwrap();
    let stopped = run(&expected[at..=at], 32, &mut |_| Continue(()));
    assert_eq!((stopped.end, &stopped.tokens[..]), (End::Stop, &expected[..at]));
    let mut left = 3;
    let interrupted = run(&[], 32, &mut |_| {
        left -= 1;
        if left == 0 { Break(()) } else { Continue(()) }
    });
    assert_eq!((interrupted.end, interrupted.tokens.len()), (End::Interrupted, 3));
    assert_eq!(run(&[], 0, &mut |_| Continue(())).tokens.len(), 0);

    let small = LanguageModel::open(&data(), ids.len() + 4, None).unwrap();
    let mut session = Session::new(Arc::new(small));
    let logits = session.feed(&embeddings).unwrap();
    let end = generate(&mut session, logits, &mut greedy, (&ids, &[]), 32, &mut |_| Continue(()));
    assert_eq!(
        end.unwrap(),
        rockshard_vlm::Generation { tokens: expected[..5].to_vec(), end: End::Context }
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let mut session = Session::new(MODEL.clone());
    assert!(matches!(session.feed(&[]), Err(LanguageError::Width { .. })));
    assert!(matches!(session.feed(&[0.0; 33]), Err(LanguageError::Width { found: 33, width: 32 })));
    let long = vec![0.0; 32 * (CONTEXT + 1)];
    let said = session.feed(&long).unwrap_err().to_string();
    assert!(said.contains("2049 tokens; the model has room for 2048"), "{said}");
    assert_eq!(session.tokens(), 0);
    let said = MODEL.embed(&[3, 9999]).unwrap_err().to_string();
    assert!(said.contains("token 9999 is unknown"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let said = || LanguageModel::open(folder.path(), 9, None).err().unwrap().to_string();
    assert!(said().contains("decoder_model_merged.onnx: no such file"));
    std::fs::write(folder.path().join("decoder_model_merged.onnx"), b"not a model").unwrap();
    assert!(said().contains("decoder_model_merged.onnx: "));
    // An embedding in the decoder's place.
    std::fs::copy(
        data().join("embed_tokens.onnx"),
        folder.path().join("decoder_model_merged.onnx"),
    )
    .unwrap();
    std::fs::copy(
        data().join("embed_tokens.onnx_data"),
        folder.path().join("embed_tokens.onnx_data"),
    )
    .unwrap();
    let said = said();
    assert!(
        said.contains("there is no \"inputs_embeds\"")
            || said.contains("expected are inputs_embeds"),
        "{said}"
    );
}
