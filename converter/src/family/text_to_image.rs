//! A diffusers-style ONNX directory, as optimum lays it out: text encoder, U-Net and VAE in folders of their own, with their configurations
//! and the tokenizer. A directory with some of the networks only is converted too, as networks.

use super::{
    Part, SMALLEST, Source, check_batch, check_sides, declared, folder_companions, read_json,
    refused,
};
use crate::ConvertError;
use crate::sizes::refusal;
use rockshard_manifest::{Companion, Family, Role};
use rockshard_onnx::{OnnxError, load};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Networks in running order, in folders named after their roles, and whether a text-to-image model must have them.
const PARTS: [(Role, bool); 4] = [
    (Role::TextEncoder, true),
    (Role::Unet, true),
    (Role::VaeEncoder, false),
    (Role::VaeDecoder, true),
];
/// A network's file in its folder.
const MODEL: &str = "model.onnx";
/// Pixels that a latent value covers where no configuration says.
const USUAL_SCALE: u32 = 8;
/// More pixels than any VAE's latent value covers.
const LARGEST_SCALE: u32 = 64;

/// The folders of the networks.
pub(super) fn folders() -> [&'static str; 4] {
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
        tokens: tokens
            .and_then(|t| t.get("model_max_length").and_then(Json::as_u64))
            .filter(|&n| n <= 4096)
            .unwrap_or(77) as usize,
    };
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
        let outputs = if role == Role::TextEncoder {
            vec!["last_hidden_state".to_owned()]
        } else {
            Vec::new()
        };
        for &resolution in if role == Role::TextEncoder { &resolutions[..1] } else { resolutions } {
            let shapes = open_shapes(name, &file, resolution, &known)?;
            let resolution = (role != Role::TextEncoder).then_some(resolution);
            parts.push(Part {
                name: name.to_owned(),
                role,
                path: file.clone(),
                shapes,
                dims: BTreeMap::new(),
                outputs: outputs.clone(),
                resolution,
            });
        }
    }
    let family = if whole { Family::TextToImage } else { Family::Network };
    let companions = folder_companions(Companion::Tokenizer, &tokenizer, "tokenizer");
    Ok(Source { family, parts, companions })
}

/// Extents that the configuration files give.
struct Known {
    /// Pixels that a latent value covers in each direction.
    scale: usize,
    batch: usize,
    latent_channels: usize,
    hidden: usize,
    guidance: usize,
    tokens: usize,
}

/// Shapes of a part's inputs. Extents that the file fixes are kept, except a picture's or latent's height and width.
fn open_shapes(
    part: &str,
    file: &Path,
    [width, height]: [u32; 2],
    known: &Known,
) -> Result<Vec<(String, Vec<usize>)>, ConvertError> {
    let wrap = |source: OnnxError| ConvertError::Import {
        part: part.to_owned(),
        path: file.to_owned(),
        source: source.into(),
    };
    let model = load(file).map_err(wrap)?;
    let (width, height) = (width as usize, height as usize);
    let inputs = model.proto.graph.as_ref().map(|g| g.input.as_slice()).unwrap_or_default();
    let mut shapes = Vec::new();
    for input in inputs {
        let name = input.name.clone().unwrap_or_default();
        let Some(declared) = declared(input) else { continue };
        let fallback = match (part, name.as_str(), declared.len()) {
            ("vae_encoder", _, 4) => vec![known.batch, 3, height, width],
            (_, _, 4) => {
                vec![known.batch, known.latent_channels, height / known.scale, width / known.scale]
            }
            (_, _, 3) => vec![known.batch, known.tokens, known.hidden],
            (_, "timestep_cond", 2) => vec![known.batch, known.guidance],
            (_, _, 2) => vec![known.batch, known.tokens],
            (_, _, rank) => vec![1; rank],
        };
        check_batch(file, input, &declared, known.batch)?;
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
