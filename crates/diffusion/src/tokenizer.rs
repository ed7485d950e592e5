//! CLIP's tokenizer: a prompt becomes a fixed number of ids.

mod files;

use crate::WeightedPrompt;
use files::Special;
use std::path::{Path, PathBuf};
use tokenizers::{
    AddedToken, Tokenizer,
    models::bpe::BPE,
    normalizers::{self, NormalizerWrapper, Replace, replace::ReplacePattern},
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        sequence,
        split::{Split, SplitPattern},
    },
    tokenizer::SplitDelimiterBehavior,
};

/// How CLIP cuts normalised text into words (transformers' `CLIPTokenizer`).
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Ids of one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Begin mark, the prompt's ids, end mark, padding: [`ClipTokenizer::length`] ids.
    pub ids: Vec<i64>,
    /// Ids at the end of the prompt that did not fit and have no influence.
    pub dropped: usize,
}

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        source: serde_json::Error,
    },
    /// The folder has no vocabulary.
    #[error("{}: no tokenizer here; expected tokenizer.json, or vocab.json with merges.txt", .0.display())]
    Missing(PathBuf),
    /// The vocabulary files contradict themselves or each other.
    #[error("{}: not a CLIP vocabulary: {detail}", folder.display())]
    Vocabulary {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A prompt cannot be encoded.
    #[error("the prompt cannot be tokenised: {0}")]
    Encode(String),
}

/// A CLIP tokenizer; ids equal those of transformers' `CLIPTokenizer` with padding and truncation to the maximal length.
pub struct ClipTokenizer {
    inner: Tokenizer,
    begin: u32,
    end: u32,
    pad: u32,
    length: usize,
}

impl ClipTokenizer {
    /// Load from a folder that holds `tokenizer.json`, or `vocab.json` and `merges.txt`. The special tokens and the maximal
    /// length come from `tokenizer_config.json` and `special_tokens_map.json` where these exist, else they are CLIP's.
    ///
    /// # Errors
    /// Files that are missing, malformed, or do not make a vocabulary that has the special tokens.
    pub fn from_directory(folder: &Path) -> Result<Self, TokenizerError> {
        let special = Special::read(folder)?;
        let vocabulary =
            |detail: String| TokenizerError::Vocabulary { folder: folder.to_owned(), detail };
        let mut inner = if folder.join("tokenizer.json").is_file() {
            let mut inner = Tokenizer::from_file(folder.join("tokenizer.json"))
                .map_err(|e| vocabulary(e.to_string()))?;
            inner.with_truncation(None).map_err(|e| vocabulary(e.to_string()))?;
            inner.with_padding(None);
            inner
        } else if folder.join("vocab.json").is_file() && folder.join("merges.txt").is_file() {
            clip_pipeline(folder, &special.unknown.content)
                .map_err(|e| vocabulary(e.to_string()))?
        } else {
            return Err(TokenizerError::Missing(folder.to_owned()));
        };
        let id = |inner: &Tokenizer, role: &str, token: &AddedToken| {
            inner
                .token_to_id(&token.content)
                .ok_or_else(|| vocabulary(format!("{role} token {:?} is not in it", token.content)))
        };
        for (&expected, token) in &special.added {
            inner.add_special_tokens(std::slice::from_ref(token));
            if inner.token_to_id(&token.content) != Some(expected) {
                return Err(vocabulary(format!(
                    "added token {:?} does not get its id {expected}",
                    token.content
                )));
            }
        }
        for (role, token) in special.roles() {
            id(&inner, role, token)?;
        }
        inner.add_special_tokens(&special.marks());
        Ok(ClipTokenizer {
            begin: id(&inner, "begin", &special.begin)?,
            end: id(&inner, "end", &special.end)?,
            pad: id(&inner, "padding", &special.pad)?,
            length: special.length,
            inner,
        })
    }

    /// Ids every prompt is padded or cut to: 77 for CLIP.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Tokenise a prompt. Marks written in the prompt (`<|endoftext|>`) count as marks, as in transformers.
    ///
    /// # Errors
    /// The vocabulary has no ids for the prompt's bytes.
    pub fn encode(&self, prompt: &str) -> Result<Tokens, TokenizerError> {
        Ok(self.framed(&self.found(prompt)?))
    }

    /// Tokenise a prompt with weights, each of its pieces for itself, and give each id its weight. Marks and padding have weight 1.
    ///
    /// # Errors
    /// As [`ClipTokenizer::encode`].
    pub fn encode_weighted(
        &self,
        prompt: &WeightedPrompt,
    ) -> Result<(Tokens, Vec<f32>), TokenizerError> {
        let (mut found, mut weights) = (Vec::new(), vec![1.0]);
        for piece in prompt.pieces() {
            found.extend(self.found(&piece.text)?);
            weights.resize(1 + found.len(), piece.weight as f32);
        }
        weights.truncate(self.length - 1);
        weights.resize(self.length, 1.0);
        Ok((self.framed(&found), weights))
    }

    /// The ids of a text, without marks.
    fn found(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| TokenizerError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids between the marks, with padding; those that there is no room for are dropped.
    fn framed(&self, found: &[u32]) -> Tokens {
        let kept = &found[..found.len().min(self.length - 2)];
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.begin.into());
        ids.extend(kept.iter().map(|&id| i64::from(id)));
        ids.push(self.end.into());
        ids.resize(self.length, self.pad.into());
        Tokens { ids, dropped: found.len() - kept.len() }
    }
}

/// Normalisation, word pattern and byte-level BPE of CLIP over `vocab.json` and `merges.txt`.
fn clip_pipeline(folder: &Path, unknown: &str) -> tokenizers::Result<Tokenizer> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let model = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(unknown.to_owned())
        .build()?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let normalizer: Vec<NormalizerWrapper> =
        vec![normalizers::NFC.into(), spaces.into(), normalizers::Lowercase.into()];
    let words =
        Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let splits: Vec<PreTokenizerWrapper> =
        vec![words.into(), ByteLevel::new(false, true, true).into()];
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizers::Sequence::new(normalizer)));
    tokenizer.with_pre_tokenizer(Some(sequence::Sequence::new(splits)));
    Ok(tokenizer)
}
