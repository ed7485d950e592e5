//! Ids equal transformers' `CLIPTokenizer`, recorded by tools/record_vectors.py.

use rockshard_diffusion::{ClipTokenizer, TokenizerError};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

#[derive(Deserialize)]
struct Recorded {
    pad: i64,
    prompts: Vec<Prompt>,
    #[serde(default)]
    code_points: Vec<String>,
    #[serde(default)]
    special_tokens_map: serde_json::Value,
    #[serde(default)]
    tokenizer_config: serde_json::Value,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    times: usize,
    ids: Vec<i64>,
    dropped: usize,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    serde_json::from_slice(&fs::read(data(name)).unwrap()).unwrap()
}

fn fnv(ids: &[i64]) -> String {
    let bytes = ids.iter().flat_map(|&id| (id as u32).to_le_bytes());
    let digest = bytes.fold(0xcbf2_9ce4_8422_2325u64, |d, byte| {
        (d ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{digest:016x}")
}

fn check_prompts(tokenizer: &ClipTokenizer, recorded: &Recorded, what: &str) {
    for p in &recorded.prompts {
        let tokens = tokenizer.encode(&p.text.repeat(p.times)).unwrap();
        let mut expected = p.ids.clone();
        expected.resize(77, recorded.pad);
        assert_eq!(tokens.ids, expected, "{what}: {:?} x {}", p.text, p.times);
        assert_eq!(tokens.dropped, p.dropped, "{what}: {:?} x {}", p.text, p.times);
    }
}

/// Every Unicode code point between letters and alone, 256 at a time; returns the blocks that differ.
fn differing_blocks(folder: &Path, recorded: &Recorded) -> Vec<String> {
    // A copy with a maximal length that nothing reaches, since blocks are longer than a prompt.
    let copy = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
        fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    fs::write(copy.path().join("tokenizer_config.json"), r#"{"model_max_length": 60000}"#).unwrap();
    let tokenizer = ClipTokenizer::from_directory(copy.path()).unwrap();
    let marks = tokenizer.encode("").unwrap().ids;
    let differs = |(block, expected): (usize, &String)| {
        let points = (block as u32 * 256..).take(256).filter_map(char::from_u32);
        let text: String = points.map(|c| format!("a{c}b {c}")).collect();
        let tokens = tokenizer.encode(&text).unwrap();
        let end = tokens.ids.iter().rposition(|id| *id != marks[1]).unwrap_or(0);
        (fnv(&tokens.ids[1..=end]) != *expected).then(|| format!("U+{:04X}", block * 256))
    };
    assert_eq!(recorded.code_points.len(), 0x1100);
    recorded.code_points.iter().enumerate().filter_map(differs).collect()
}

#[test]
fn tiny_vocabulary() {
    let recorded: Recorded = read("tokenizer.json");
    check_prompts(
        &ClipTokenizer::from_directory(&data("tokenizer")).unwrap(),
        &recorded,
        "vocab.json",
    );
    check_prompts(
        &ClipTokenizer::from_directory(&data("tokenizer_json")).unwrap(),
        &recorded,
        "tokenizer.json",
    );
    assert_eq!(differing_blocks(&data("tokenizer"), &recorded), Vec::<String>::new());
}

#[test]
fn special_tokens_of_stable_diffusion() {
    let variants: BTreeMap<String, Recorded> = read("tokenizer_variants.json");
    assert_eq!(variants.len(), 2);
    for (name, recorded) in variants {
        for files in [
            ["special_tokens_map.json", "tokenizer_config.json"].as_slice(),
            &["special_tokens_map.json"],
            &["tokenizer_config.json"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            for file in ["vocab.json", "merges.txt"] {
                fs::copy(data("tokenizer").join(file), folder.path().join(file)).unwrap();
            }
            for &file in files {
                let value = if file.starts_with("special") {
                    &recorded.special_tokens_map
                } else {
                    &recorded.tokenizer_config
                };
                fs::write(folder.path().join(file), value.to_string()).unwrap();
            }
            check_prompts(&ClipTokenizer::from_directory(folder.path()).unwrap(), &recorded, &name);
        }
    }
}

/// Needs the real vocabulary: `tools/record_vectors.py clip-vocab DIR`, then ROCKSHARD_CLIP_VOCAB=DIR.
#[test]
fn real_vocabulary() {
    use std::io::Write;
    let Some(folder) = std::env::var_os("ROCKSHARD_CLIP_VOCAB").map(PathBuf::from) else {
        writeln!(std::io::stderr(), "real_vocabulary: NOT RUN, ROCKSHARD_CLIP_VOCAB is not set")
            .unwrap();
        return;
    };
    let recorded: Recorded = read("clip_tokenizer.json");
    check_prompts(&ClipTokenizer::from_directory(&folder).unwrap(), &recorded, "CLIP");
    assert_eq!(differing_blocks(&folder, &recorded), Vec::<String>::new());
}

#[test]
fn broken_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = || ClipTokenizer::from_directory(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(load(), TokenizerError::Missing(_)));
    fs::copy(data("tokenizer").join("vocab.json"), folder.path().join("vocab.json")).unwrap();
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\nzzzz yyyy\n").unwrap();
    assert!(matches!(load(), TokenizerError::Vocabulary { .. }));
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(matches!(load(), TokenizerError::Json { .. }));
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"pad_token": "<pad>"}"#).unwrap();
    assert!(load().to_string().contains("padding token \"<pad>\""));
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"model_max_length": 1}"#).unwrap();
    assert!(load().to_string().contains("model_max_length"));
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"model_max_length": 1e30}"#)
        .unwrap();
    assert_eq!(ClipTokenizer::from_directory(folder.path()).unwrap().length(), 77);
}
