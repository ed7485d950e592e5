//! A transformers-style vision-language directory, as optimum and onnx-community lay it out: the vision encoder, with its connector when
//! the export has it, and the files that its user needs besides.

use super::{CompanionFile, Language, Part, Piece, Source, check_batch, declared, read_json};
use crate::ConvertError;
use rockshard_manifest::{Companion, Family, Role};
use rockshard_onnx::schema::ValueInfoProto;
use rockshard_onnx::{OnnxError, load};
use rockshard_vlm::Export;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Part name of the vision encoder.
const NAME: &str = "vision";
/// Where exporters put the vision encoder.
pub(super) const ENCODERS: [&str; 4] = [
    "onnx/vision_encoder.onnx",
    "onnx/vision_encoder_fp16.onnx",
    "vision_encoder.onnx",
    "vision_encoder/model.onnx",
];
/// transformers' names of the files that go along.
const COMPANIONS: [(Companion, &str); 10] = [
    (Companion::Preprocessor, "config.json"),
    (Companion::Preprocessor, "preprocessor_config.json"),
    (Companion::Preprocessor, "processor_config.json"),
    (Companion::Tokenizer, "tokenizer.json"),
    (Companion::Tokenizer, "tokenizer_config.json"),
    (Companion::Tokenizer, "special_tokens_map.json"),
    (Companion::Tokenizer, "added_tokens.json"),
    (Companion::Tokenizer, "generation_config.json"),
    (Companion::ChatTemplate, "chat_template.json"),
    (Companion::ChatTemplate, "chat_template.jinja"),
];

/// The vision encoder's file, where the directory has one.
pub(super) fn encoder(path: &Path) -> Option<PathBuf> {
    ENCODERS.iter().map(|file| path.join(file)).find(|file| file.is_file())
}

/// The files that are there of those that go along.
fn companions(path: &Path) -> Vec<CompanionFile> {
    let found = COMPANIONS.iter().filter(|(_, file)| path.join(file).is_file());
    let file = |&(companion, file): &(Companion, &str)| CompanionFile {
        companion,
        name: format!("{companion}/{file}"),
        path: path.join(file),
    };
    found.map(file).collect()
}

/// A transformers-style vision-language directory: the vision encoder, with its connector when the export has it.
pub(super) fn open(
    path: &Path,
    file: PathBuf,
    resolutions: &[[u32; 2]],
    batch: usize,
) -> Result<Source, ConvertError> {
    if !resolutions.is_empty() {
        return Err(ConvertError::OwnResolution { path: path.to_owned() });
    }
    let wrap = |source: OnnxError| ConvertError::Import {
        part: NAME.to_owned(),
        path: file.clone(),
        source: source.into(),
    };
    let config = read_json(&path.join("config.json"))?;
    let side = config
        .as_ref()
        .and_then(|c| c.get("vision_config")?.get("image_size")?.as_u64())
        .unwrap_or(512) as usize;
    let model = load(&file).map_err(wrap)?;
    let inputs = model.proto.graph.as_ref().map(|g| g.input.as_slice()).unwrap_or_default();
    let mut shapes = Vec::new();
    for input in inputs {
        let Some(declared) = declared(input) else { continue };
        // Pictures end in [3, side, side]; masks of them in [side, side].
        let fallback = |i: usize| match declared.len() - i {
            1 | 2 if declared.len() >= 3 => side,
            3 if declared.len() >= 4 && !is_mask(input) => 3,
            _ if i == 0 => batch,
            _ => 1,
        };
        check_batch(path, input, &declared, batch)?;
        let shape =
            declared.iter().enumerate().map(|(i, d)| d.unwrap_or_else(|| fallback(i))).collect();
        shapes.push((input.name.clone().unwrap_or_default(), shape));
    }
    let part = Part {
        name: NAME.to_owned(),
        role: Role::VisionEncoder,
        path: file,
        shapes,
        dims: BTreeMap::new(),
        outputs: Vec::new(),
        resolution: Some([side as u32; 2]),
        piece: Piece::Whole,
    };
    let companions = companions(path);
    let export = part.path.parent().map(Export::find).filter(Export::exists);
    let language = export.map(|export| Language { export, config: config.unwrap_or_default() });
    let family = Family::VisionLanguage;
    Ok(Source { family, parts: vec![part], companions, language, unused: Vec::new() })
}

fn is_mask(input: &ValueInfoProto) -> bool {
    input.name.as_deref().is_some_and(|n| n.contains("mask"))
}
