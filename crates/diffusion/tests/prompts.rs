//! Prompts with weights are read as AUTOMATIC1111's web UI and compel read them (`tools/record_prompts.py`), and what those would do something
//! else with is refused.

use rockshard_diffusion::{ClipTokenizer, WeightedPrompt};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Recorded {
    web_ui: Vec<Read>,
    compel: Vec<Read>,
}

#[derive(Deserialize)]
struct Read {
    prompt: String,
    pieces: Vec<(String, f64)>,
    #[serde(default)]
    ids: Vec<i64>,
    #[serde(default)]
    weights: Vec<f32>,
}

fn recorded() -> Recorded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prompts.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn pieces(prompt: &str) -> Vec<(String, f64)> {
    let read = WeightedPrompt::parse(prompt).unwrap_or_else(|e| panic!("{prompt:?}: {e}"));
    read.pieces().iter().map(|piece| (piece.text.clone(), piece.weight)).collect()
}

fn same(prompt: &str, found: &[(String, f64)], expected: &[(String, f64)]) {
    let close = |(a, b): (&(String, f64), &(String, f64))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-9;
    let all = found.len() == expected.len() && found.iter().zip(expected).all(close);
    assert!(all, "{prompt:?}: {found:?} instead of {expected:?}");
}

#[test]
fn the_web_ui_reads_the_same() {
    for read in recorded().web_ui {
        same(&read.prompt, &pieces(&read.prompt), &read.pieces);
    }
}

#[test]
fn tokens_have_the_weights_of_the_web_ui() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm/tokenizer");
    let tokenizer = ClipTokenizer::from_directory(&folder).unwrap();
    for Read { prompt, ids, weights, .. } in recorded().web_ui {
        let read = WeightedPrompt::parse(&prompt).unwrap();
        let (tokens, found) = tokenizer.encode_weighted(&read).unwrap();
        let end = 1 + ids.len();
        assert_eq!((tokens.ids.len(), found.len()), (77, 77));
        assert_eq!(tokens.ids[1..end], ids, "{prompt:?}");
        assert!(
            found[1..end].iter().zip(&weights).all(|(a, b)| (a - b).abs() < 1e-6),
            "{prompt:?}"
        );
        assert!(found[0] == 1.0 && found[end..].iter().all(|&w| w == 1.0), "{prompt:?}");
    }
}

/// Compel's pieces have no blanks around them.
#[test]
fn compel_reads_the_same() {
    for read in recorded().compel {
        let trimmed = |(text, weight): (String, f64)| (text.trim().to_owned(), weight);
        let mut found: Vec<_> = pieces(&read.prompt).into_iter().map(trimmed).collect();
        found.retain(|(text, _)| !text.is_empty());
        same(&read.prompt, &found, &read.pieces);
    }
}

#[test]
fn where_both_differ_the_web_ui_is_followed() {
    for (prompt, expected) in [
        ("(red)-haired", vec![("red", 1.1), ("-haired", 1.0)]),
        ("(red)++-haired", vec![("red", 1.1), ("++-haired", 1.0)]),
        ("(cats)2b", vec![("cats", 1.1), ("2b", 1.0)]),
        ("word++word", vec![("word++word", 1.0)]),
        ("(word:1.2)++", vec![("word", 1.2), ("++", 1.0)]),
        ("((word))++", vec![("word", 1.1 * 1.1 * 1.1)]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(t, w)| (t.to_owned(), w)).collect();
        same(prompt, &pieces(prompt), &expected);
    }
}

#[test]
fn a_backslash_makes_a_character_itself() {
    for (prompt, text) in [
        ("C\\+\\+", "C++"),
        ("\\(c\\) 2024", "(c) 2024"),
        ("16\\:9", "16:9"),
        ("pre\\- and post", "pre- and post"),
        ("ends in \\", "ends in "),
    ] {
        assert_eq!(pieces(prompt), [(text.to_owned(), 1.0)]);
    }
    assert_eq!(pieces("(16\\:9)"), [("16:9".to_owned(), 1.1)]);
    assert_eq!(pieces("[a\\|b]"), [("a|b".to_owned(), 1.0 / 1.1)]);
}

#[test]
fn plain_prompts_are_one_piece() {
    for prompt in [
        "a small red circle at the top left of a blue background",
        "black and white, a break, BRAND, BREAKFAST",
        "a < b > c <3 <notes:1>",
        "well-known + new - old",
        "a|b, 16:9, {x}",
    ] {
        assert_eq!(pieces(prompt), [(prompt.to_owned(), 1.0)]);
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    for (prompt, parts) in [
        ("a <lora:add_detail:0.8>", ["\"<lora:add_detail:0.8>\"", "when it is converted"]),
        ("<lyco:x>", ["\"<lyco:x>\"", "a prompt cannot add one"]),
        ("<hypernet:anime:1>", ["a hypernetwork", "leave it out"]),
        ("a cat BREAK a dog", ["\"BREAK\"", "in small letters"]),
        ("a cat AND a dog", ["\"AND\"", "composing a picture of several prompts"]),
        ("(a cat AND a dog:1.2)", ["\"AND\"", "in small letters"]),
        ("a [cat:dog:0.5] runs", ["\"[cat:dog:0.5]\"", "changing the prompt between steps"]),
        ("[cat:10]", ["\"[cat:10]\"", "(text:0.8), in round brackets"]),
        ("[(cat:1.2)::0.5]", ["\"[(cat:1.2)::0.5]\"", "between steps"]),
        ("[cat|dog]", ["\"[cat|\"", "alternating words"]),
        ("(word:1.2.3)", ["\"1.2.3\"", "not a number"]),
        ("(word:1,3)", ["\"1,3\"", "write it like 1.3"]),
        ("(word:1000)", ["gives \"word\" the weight 1000", "at most 100"]),
        ("((a:20):20)", ["gives \"a\" the weight 400", "at most 100"]),
        ("(c)2024", ["the weight 2024", "\\( or \\)"]),
        ("(\"a cat\", \"a dog\").and()", ["\".and(\"", "a function of prompts"]),
        ("(cat).swap(dog)", ["\".swap(\"", "one prompt"]),
    ] {
        let said = WeightedPrompt::parse(prompt).unwrap_err().to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{prompt:?}: {said}");
    }
    let endless = format!("(a:{})", "9".repeat(400));
    assert!(WeightedPrompt::parse(&endless).is_err());
    assert!(WeightedPrompt::parse(&format!("((a:0):{})", "9".repeat(400))).is_err());
}
