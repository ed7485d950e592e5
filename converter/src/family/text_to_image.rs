//! A diffusers-style ONNX directory, as optimum lays it out: text encoder, U-Net and VAE in folders of their own, with their configurations
//! and the tokenizer. A directory with some of the networks only is converted too, as networks.

use super::{
    Part, Piece, SMALLEST, Source, check_batch, check_sides, declared, folder_companions,
    read_json, refused,
};
use crate::ConvertError;
use crate::sizes::refusal;
use rockshard_manifest::{Companion, Family, Role};
use rockshard_onnx::{OnnxError, load};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Networks in running order, in folders named after their roles, and whether a text-to-image model must have them.
const PARTS: [(Role, bool); 7] = [
    (Role::TextEncoder, true),
    (Role::TextEncoder2, false),
    (Role::Unet, true),
    (Role::VaeEncoder, false),
    (Role::VaeDecoder, true),
    (Role::TinyEncoder, false),
    (Role::TinyDecoder, false),
];
/// A network's file in its folder.
const MODEL: &str = "model.onnx";
/// The pipeline's own description, and what it may say of its class: an exporter's word may stand before.
const INDEX: &str = "model_index.json";
const CLASSES: [&str; 7] = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
];
const EXPORTERS: [Option<&str>; 3] = [Some(""), Some("ORT"), Some("Onnx")];
/// Pixels that a latent value covers where no configuration says.
const USUAL_SCALE: u32 = 8;
/// More pixels than any VAE's latent value covers.
const LARGEST_SCALE: u32 = 64;

/// The folders of the networks.
pub(super) fn folders() -> [&'static str; 7] {
    PARTS.map(|(role, _)| role.word())
}

/// Whether a directory has one of the networks.
pub(super) fn is_one(path: &Path) -> bool {
    is_whole(path) || folders().iter().any(|folder| path.join(folder).join(MODEL).is_file())
}

fn is_whole(path: &Path) -> bool {
    path.join(Role::Unet.word()).is_dir()
}

/// Pixels that a latent value covers in each direction: 2 to the halvings of the VAE, one fewer than its blocks
/// (`block_out_channels` of diffusers' `AutoencoderKL`).
fn latent_scale(path: &Path, vae: Option<&Json>) -> Result<u32, ConvertError> {
    let blocks = vae.and_then(|c| c.get("block_out_channels")?.as_array());
    let Some(blocks) = blocks else { return Ok(USUAL_SCALE) };
    let scale = 1u32.checked_shl(blocks.len().saturating_sub(1) as u32);
    scale.filter(|&scale| scale <= LARGEST_SCALE).ok_or_else(|| {
        let problem = format!("its VAE halves pictures {} times", blocks.len() - 1);
        refused(path, problem)
    })
}

/// The networks of a directory.
pub(super) fn open(
    path: &Path,
    resolutions: &[[u32; 2]],
    batch: usize,
) -> Result<Source, ConvertError> {
    let whole = is_whole(path);
    check_class(path)?;
    let config = |part: &str| read_json(&path.join(part).join("config.json"));
    let unet = config(Role::Unet.word())?;
    let vae = match config(Role::VaeDecoder.word())? {
        Some(vae) => Some(vae),
        None => config("vae")?,
    };
    let scale = latent_scale(path, vae.as_ref())?;
    let size = unet.as_ref().and_then(|c| c.get("sample_size")).and_then(Json::as_u64);
    let size = u32::try_from(size.unwrap_or(64)).unwrap_or(u32::MAX).saturating_mul(scale);
    let own = [[size, size]];
    if resolutions.is_empty() {
        check_sides(path, own[0])?;
    }
    let resolutions = if resolutions.is_empty() { &own[..] } else { resolutions };
    if let Some(&asked) = resolutions.iter().find(|r| r.iter().any(|s| s % scale != 0)) {
        let near = asked.map(|side| (side / scale * scale).max(scale).max(SMALLEST));
        let source = open(path, &[near], batch)?;
        let parts: Vec<&Part> = source.parts.iter().filter(|p| p.resolution.is_some()).collect();
        let [width, height] = asked;
        return Err(refusal(path, asked, &parts, scale).unwrap_or_else(|| {
            let problem = format!(
                "resolution {width}x{height}: width and height must be divisible by {scale}"
            );
            refused(path, problem)
        }));
    }
    let number = |json: &Option<Json>, key: &str, default: usize| {
        json.as_ref()
            .and_then(|c| c.get(key))
            .and_then(Json::as_u64)
            .map_or(default, |v| v as usize)
    };
    let tokenizer = path.join("tokenizer");
    let tokens = read_json(&tokenizer.join("tokenizer_config.json"))?;
    let known = Known {
        scale: scale as usize,
        batch,
        latent_channels: number(&unet, "in_channels", number(&vae, "latent_channels", 4)),
        hidden: number(&unet, "cross_attention_dim", 768),
        guidance: number(&unet, "time_cond_proj_dim", 256),
        pooled: number(&config(Role::TextEncoder2.word())?, "projection_dim", 1280),
        tokens: tokens
            .and_then(|t| t.get("model_max_length").and_then(Json::as_u64))
            .filter(|&n| n <= 4096)
            .unwrap_or(77) as usize,
    };
    let two = path.join(Role::TextEncoder2.word()).join(MODEL).is_file();
    let mut parts = Vec::new();
    for (role, needed) in PARTS {
        let name = role.word();
        let file = path.join(name).join(MODEL);
        if !file.is_file() {
            if needed && whole {
                return Err(refused(path, format!("{name}/{MODEL} is missing")));
            }
            continue;
        }
        let words = matches!(role, Role::TextEncoder | Role::TextEncoder2);
        let outputs = if words { text_outputs(name, &file, two)? } else { Vec::new() };
        for &resolution in if words { &resolutions[..1] } else { resolutions } {
            let shapes = open_shapes(name, &file, resolution, &known)?;
            let resolution = (!words).then_some(resolution);
            parts.push(Part {
                name: name.to_owned(),
                role,
                path: file.clone(),
                shapes,
                dims: BTreeMap::new(),
                given: BTreeMap::new(),
                outputs: outputs.clone(),
                resolution,
                piece: Piece::Whole,
            });
        }
    }
    let family = if whole { Family::TextToImage } else { Family::Network };
    let mut companions = folder_companions(Companion::Tokenizer, &tokenizer, "tokenizer");
    if two {
        let second = path.join("tokenizer_2");
        companions.extend(folder_companions(Companion::Tokenizer, &second, "tokenizer_2"));
    }
    Ok(Source { family, parts, companions, language: None, unused: unused(path) })
}

/// Refuse a pipeline of a class that is not known, before its files are looked for.
fn check_class(path: &Path) -> Result<(), ConvertError> {
    let index = read_json(&path.join(INDEX))?;
    let class = index.as_ref().and_then(|i| i.get("_class_name")).and_then(Json::as_str);
    match class {
        Some(class)
            if !CLASSES.iter().any(|known| EXPORTERS.contains(&class.strip_suffix(known))) =>
        {
            let known = CLASSES.join(", ");
            let problem = format!("{INDEX} says it is a {class}; known are {known}");
            Err(refused(path, problem))
        }
        _ => Ok(()),
    }
}

/// Networks of the directory that no pack has a use for.
fn unused(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .filter(|e| e.path().join(MODEL).is_file())
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| !folders().contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// The outputs of a text encoder that its U-Net takes: the last hidden state; where there are two encoders, the hidden state before the
/// last, and the pooled embedding of the one that has it.
fn text_outputs(part: &str, file: &Path, two: bool) -> Result<Vec<String>, ConvertError> {
    const LAST: &str = "last_hidden_state";
    if !two {
        return Ok(vec![LAST.to_owned()]);
    }
    let model = load_part(part, file)?;
    let outputs = model.proto.graph.iter().flat_map(|g| &g.output);
    let names: Vec<String> = outputs.filter_map(|o| o.name.clone()).collect();
    let number = |name: &str| name.strip_prefix("hidden_states.")?.parse::<usize>().ok();
    let last = names.iter().filter_map(|n| number(n)).max();
    let before = last.and_then(|l| names.iter().find(|n| number(n) == l.checked_sub(1)));
    let hidden = before.cloned().unwrap_or_else(|| LAST.to_owned());
    let pooled = names.iter().find(|n| *n == "text_embeds").cloned();
    Ok([hidden].into_iter().chain(pooled).filter(|n| names.contains(n)).collect())
}

fn load_part(part: &str, file: &Path) -> Result<rockshard_onnx::Model, ConvertError> {
    load(file).map_err(|source: OnnxError| ConvertError::Import {
        part: part.to_owned(),
        path: file.to_owned(),
        source: source.into(),
    })
}

/// Extents that the configuration files give.
struct Known {
    /// Pixels that a latent value covers in each direction.
    scale: usize,
    batch: usize,
    latent_channels: usize,
    hidden: usize,
    guidance: usize,
    /// Of the second text encoder.
    pooled: usize,
    tokens: usize,
}

/// Shapes of a part's inputs. Extents that the file fixes are kept, except a picture's or latent's height and width.
fn open_shapes(
    part: &str,
    file: &Path,
    [width, height]: [u32; 2],
    known: &Known,
) -> Result<Vec<(String, Vec<usize>)>, ConvertError> {
    let model = load_part(part, file)?;
    let (width, height) = (width as usize, height as usize);
    let inputs = model.proto.graph.as_ref().map(|g| g.input.as_slice()).unwrap_or_default();
    let mut shapes = Vec::new();
    for input in inputs {
        let name = input.name.clone().unwrap_or_default();
        let Some(declared) = declared(input) else { continue };
        let fallback = match (part, name.as_str(), declared.len()) {
            ("vae_encoder" | "taesd_encoder", _, 4) => vec![known.batch, 3, height, width],
            (_, _, 4) => {
                vec![known.batch, known.latent_channels, height / known.scale, width / known.scale]
            }
            (_, _, 3) => vec![known.batch, known.tokens, known.hidden],
            (_, "timestep_cond", 2) => vec![known.batch, known.guidance],
            (_, "text_embeds", 2) => vec![known.batch, known.pooled],
            // Original size, top left corner and wanted size.
            (_, "time_ids", 2) => vec![known.batch, 6],
            (_, _, 2) => vec![known.batch, known.tokens],
            (_, _, rank) => vec![1; rank],
        };
        check_batch(file, input, &declared, known.batch)?;
        // Exporters declare one timestep, which the network itself spreads over the batch; rows of a stream have one each.
        if name == "timestep" && declared.len() == 1 {
            shapes.push((name, vec![known.batch]));
            continue;
        }
        let spatial = |i: usize| declared.len() == 4 && i >= 2;
        let shape = declared
            .iter()
            .enumerate()
            .map(|(i, d)| if spatial(i) { fallback[i] } else { d.unwrap_or(fallback[i]) })
            .collect();
        shapes.push((name, shape));
    }
    Ok(shapes)
}
