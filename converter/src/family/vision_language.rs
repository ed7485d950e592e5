//! A transformers-style vision-language directory, as optimum and onnx-community lay it out: the vision encoder, with its connector when
//! the export has it, and the files that its user needs besides.

use super::{
    CompanionFile, Language, Part, Piece, Source, check_batch, declared, precision, read_json,
};
use crate::ConvertError;
use rockshard_import::Given;
use rockshard_manifest::{Companion, Family, Role};
use rockshard_onnx::schema::{ValueInfoProto, tensor_proto::DataType, type_proto};
use rockshard_onnx::{OnnxError, load};
use rockshard_vlm::Export;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Part name of the vision encoder.
const NAME: &str = "vision";
/// Where exporters put the vision encoder, but for its precision.
pub(super) const ENCODERS: [&str; 3] =
    ["onnx/vision_encoder", "vision_encoder", "vision_encoder/model"];
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

/// The vision encoder's file, the most exact of those that are there.
///
/// # Errors
/// There are only files whose activations are quantised too, or whose weights are in a form of their own.
pub(super) fn encoder(path: &Path) -> Result<Option<PathBuf>, ConvertError> {
    for encoder in ENCODERS {
        if let Some(file) = precision::most_exact(&path.join(encoder)) {
            return Ok(Some(file));
        }
    }
    let stems = ENCODERS.iter().map(|encoder| path.join(encoder));
    match stems.filter_map(|stem| precision::quantised(&stem)).next() {
        Some(path) => {
            let instead = precision::names("vision_encoder");
            Err(ConvertError::Quantised { path, instead })
        }
        None => Ok(None),
    }
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
    let number =
        |key: &str| config.as_ref().and_then(|c| c.get("vision_config")?.get(key)?.as_u64());
    let side = number("image_size").unwrap_or(512) as usize;
    let patches = side / number("patch_size").unwrap_or(16).max(1) as usize;
    let model = load(&file).map_err(wrap)?;
    let inputs = model.proto.graph.as_ref().map(|g| g.input.as_slice()).unwrap_or_default();
    let (mut shapes, mut given) = (Vec::new(), BTreeMap::new());
    for input in inputs {
        let Some(declared) = declared(input) else { continue };
        // Pictures end in [3, side, side]; masks of them in [side, side], or in what there is of patches.
        let fallback = |i: usize| match declared.len() - i {
            1 | 2 if is_mask(input) && is_of_patches(input) => patches,
            1 | 2 if declared.len() >= 3 => side,
            3 if declared.len() >= 4 && !is_mask(input) => 3,
            _ if i == 0 => batch,
            _ => 1,
        };
        check_batch(path, input, &declared, batch)?;
        let shape =
            declared.iter().enumerate().map(|(i, d)| d.unwrap_or_else(|| fallback(i))).collect();
        let name = input.name.clone().unwrap_or_default();
        // The processor resizes pictures to whole views, and has no value that is exactly 0.
        match (is_mask(input), is_real(input)) {
            (true, false) => drop(given.insert(name.clone(), Given::Ones)),
            (false, true) => drop(given.insert(name.clone(), Given::Picture)),
            _ => {}
        }
        shapes.push((name, shape));
    }
    let part = Part {
        name: NAME.to_owned(),
        role: Role::VisionEncoder,
        path: file,
        shapes,
        dims: BTreeMap::new(),
        given,
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

fn is_of_patches(input: &ValueInfoProto) -> bool {
    input.name.as_deref().is_some_and(|n| n.contains("patch"))
}

/// Whether an input holds real numbers.
fn is_real(input: &ValueInfoProto) -> bool {
    let kind = input.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = kind else { return false };
    let real = [DataType::Float, DataType::Float16, DataType::Bfloat16, DataType::Double];
    real.map(|real| Some(real as i32)).contains(&tensor.elem_type)
}
