//! The special tokens of a transformers tokenizer folder.

use super::TokenizerError;
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, path::Path};
use tokenizers::AddedToken;

/// Ids CLIP's text encoder takes.
const LENGTH: usize = 77;

/// Lengths above this are placeholders for "no limit", not the length of a text encoder.
const LONGEST: f64 = 65536.0;

/// Special tokens and the maximal length.
pub(super) struct Special {
    pub begin: AddedToken,
    pub end: AddedToken,
    pub unknown: AddedToken,
    pub pad: AddedToken,
    pub length: usize,
    /// Tokens of `added_tokens_decoder` by the id they must get.
    pub added: BTreeMap<u32, AddedToken>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object(TokenObject),
}

#[derive(Clone, Deserialize)]
struct TokenObject {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

impl From<Token> for AddedToken {
    fn from(token: Token) -> Self {
        match token {
            Token::Text(content) => AddedToken::from(content, true),
            Token::Object(t) => AddedToken::from(t.content, true)
                .single_word(t.single_word)
                .lstrip(t.lstrip)
                .rstrip(t.rstrip)
                .normalized(t.normalized),
        }
    }
}

/// The fields of `tokenizer_config.json` and `special_tokens_map.json` that decide ids.
#[derive(Default, Deserialize)]
struct Names {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
    model_max_length: Option<f64>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, Token>,
}

fn read<T: DeserializeOwned + Default>(folder: &Path, name: &str) -> Result<T, TokenizerError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(T::default());
    }
    let text = std::fs::read(&path)
        .map_err(|source| TokenizerError::Read { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| TokenizerError::Json { path, source })
}

impl Special {
    /// Read both files; a token that neither names is CLIP's.
    pub fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let config: Names = read(folder, "tokenizer_config.json")?;
        let map: Names = read(folder, "special_tokens_map.json")?;
        // As in transformers, the map counts only where the configuration does not list the added tokens.
        let listed = !config.added_tokens_decoder.is_empty();
        let named = |config: Option<Token>, map: Option<Token>, default: &str| {
            let token = if listed { config.or(map) } else { map.or(config) };
            token.map_or_else(|| AddedToken::from(default, true), Into::into)
        };
        let length = match config.model_max_length {
            Some(n) if n < 3.0 || n.fract() != 0.0 => {
                let detail = format!(
                    "tokenizer_config.json has model_max_length {n}; a prompt needs at least 3 ids"
                );
                return Err(TokenizerError::Vocabulary { folder: folder.to_owned(), detail });
            }
            Some(n) if n <= LONGEST => n as usize,
            _ => LENGTH,
        };
        Ok(Special {
            begin: named(config.bos_token, map.bos_token, "<|startoftext|>"),
            end: named(config.eos_token, map.eos_token, "<|endoftext|>"),
            unknown: named(config.unk_token, map.unk_token, "<|endoftext|>"),
            pad: named(config.pad_token, map.pad_token, "<|endoftext|>"),
            length,
            added: config
                .added_tokens_decoder
                .into_iter()
                .map(|(id, token)| (id, token.into()))
                .collect(),
        })
    }

    /// The tokens that have a role, with its name.
    pub fn roles(&self) -> [(&'static str, &AddedToken); 4] {
        [
            ("begin", &self.begin),
            ("end", &self.end),
            ("unknown", &self.unknown),
            ("padding", &self.pad),
        ]
    }

    /// The tokens of the roles, each text once: the last role that has a text decides how it is matched.
    pub fn marks(&self) -> Vec<AddedToken> {
        let mut marks: Vec<AddedToken> = Vec::new();
        for (_, token) in self.roles() {
            marks.retain(|m| m.content != token.content);
            marks.push(token.clone());
        }
        marks
    }
}
