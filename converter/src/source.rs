//! What is being converted: a diffusers-style directory, a transformers-style one with a vision encoder, or one ONNX file.

use crate::ConvertError;
use rockshard_onnx::schema::{ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use rockshard_onnx::{OnnxError, load};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// One network of the source.
#[derive(Clone, Debug)]
pub struct Part {
    /// `unet`, `vae_decoder`, ..., or the file's stem.
    pub name: String,
    /// ONNX file.
    pub path: PathBuf,
    /// Shapes for inputs with open dimensions.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Outputs to keep; all when empty.
    pub outputs: Vec<String>,
    /// Picture size `[width, height]` the shapes are for.
    pub resolution: Option<[u32; 2]>,
}

/// A source, taken apart.
#[derive(Clone, Debug)]
pub struct Source {
    /// Networks in the order they run.
    pub parts: Vec<Part>,
    /// Directory with the tokenizer's files.
    pub tokenizer: Option<PathBuf>,
    /// Whether this is a diffusers-style text-to-image model, not only parts of one.
    pub diffusers: bool,
}

/// Part name of a vision encoder.
const VISION: &str = "vision";
/// Diffusers parts in running order, and whether a text-to-image model must have them.
const PARTS: [(&str, bool); 4] =
    [("text_encoder", true), ("unet", true), ("vae_encoder", false), ("vae_decoder", true)];
/// Where exporters put a vision-language model's vision encoder.
const VISION_ENCODERS: [&str; 3] =
    ["onnx/vision_encoder.onnx", "vision_encoder.onnx", "vision_encoder/model.onnx"];
const SMALLEST: u32 = 64;
const LARGEST: u32 = 2048;

impl Source {
    /// Look at a path and find its parts at the given resolutions (the model's own when none is given), for `batch` items at once.
    ///
    /// # Errors
    /// Nothing convertible there, a part missing, a resolution that latents cannot have, or a batch that the files do not leave open.
    pub fn open(path: &Path, resolutions: &[[u32; 2]], batch: usize) -> Result<Self, ConvertError> {
        let fail = |problem: String| Err(ConvertError::Source { path: path.to_owned(), problem });
        for [width, height] in resolutions {
            if width % 8 != 0 || height % 8 != 0 {
                return fail(format!(
                    "resolution {width}x{height}: width and height must be divisible by 8"
                ));
            }
            if !(SMALLEST..=LARGEST).contains(width) || !(SMALLEST..=LARGEST).contains(height) {
                return fail(format!(
                    "resolution {width}x{height}: width and height must be from {SMALLEST} to {LARGEST}"
                ));
            }
        }
        if path.is_file() {
            let name: String =
                path.file_stem().and_then(|s| s.to_str()).unwrap_or("model").to_owned();
            let name = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
                .collect();
            let part = Part {
                name,
                path: path.to_owned(),
                shapes: Vec::new(),
                outputs: Vec::new(),
                resolution: None,
            };
            if batch != 1 {
                return fail("a single file's shapes are its own: leave --batch out".into());
            }
            return Ok(Source { parts: vec![part], tokenizer: None, diffusers: false });
        }
        if !path.exists() {
            return fail("no such file or directory".into());
        }
        if let Some(file) = VISION_ENCODERS.iter().map(|f| path.join(f)).find(|f| f.is_file()) {
            if !resolutions.is_empty() {
                return fail("is a vision-language model: its picture size is fixed by config.json, leave --resolution out".into());
            }
            return vision(path, file, batch);
        }
        let whole = path.join("unet").is_dir();
        if !whole && !PARTS.iter().any(|(part, _)| path.join(part).join("model.onnx").is_file()) {
            let parts = PARTS.map(|(part, _)| part).join("/, ");
            let encoders = VISION_ENCODERS.join(", ");
            return fail(format!(
                "is no model that is known: an .onnx file, a diffusers-style directory (with {parts}/), or a transformers-style one (with {encoders})"
            ));
        }
        let config = |part: &str| read_json(&path.join(part).join("config.json"));
        let (unet, vae) = (config("unet"), config("vae_decoder"));
        let size =
            unet.as_ref().and_then(|c| c.get("sample_size")).and_then(Json::as_u64).unwrap_or(64)
                as u32
                * 8;
        let own = [[size, size]];
        let resolutions = if resolutions.is_empty() { &own[..] } else { resolutions };
        let number = |json: &Option<Json>, key: &str, default: usize| {
            json.as_ref()
                .and_then(|c| c.get(key))
                .and_then(Json::as_u64)
                .map_or(default, |v| v as usize)
        };
        let tokenizer = Some(path.join("tokenizer")).filter(|p| p.is_dir());
        let tokens = tokenizer.as_ref().and_then(|t| read_json(&t.join("tokenizer_config.json")));
        let known = Known {
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
        for (name, needed) in PARTS {
            let file = path.join(name).join("model.onnx");
            if !file.is_file() {
                if needed && whole {
                    return fail(format!("{name}/model.onnx is missing"));
                }
                continue;
            }
            let outputs = if name == "text_encoder" {
                vec!["last_hidden_state".to_owned()]
            } else {
                Vec::new()
            };
            for &resolution in if name == "text_encoder" { &resolutions[..1] } else { resolutions }
            {
                let shapes = open_shapes(name, &file, resolution, &known)?;
                let resolution = (name != "text_encoder").then_some(resolution);
                parts.push(Part {
                    name: name.to_owned(),
                    path: file.clone(),
                    shapes,
                    outputs: outputs.clone(),
                    resolution,
                });
            }
        }
        Ok(Source { parts, tokenizer, diffusers: whole })
    }
}

/// A transformers-style vision-language directory: the vision encoder, with its connector when the export has it.
fn vision(path: &Path, file: PathBuf, batch: usize) -> Result<Source, ConvertError> {
    let wrap = |source: OnnxError| ConvertError::Import {
        part: VISION.to_owned(),
        path: file.clone(),
        source: source.into(),
    };
    let config = read_json(&path.join("config.json"));
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
        name: VISION.to_owned(),
        path: file,
        shapes,
        outputs: Vec::new(),
        resolution: Some([side as u32; 2]),
    };
    Ok(Source { parts: vec![part], tokenizer: None, diffusers: false })
}

fn is_mask(input: &ValueInfoProto) -> bool {
    input.name.as_deref().is_some_and(|n| n.contains("mask"))
}

fn read_json(path: &Path) -> Option<Json> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Extents that the configuration files give.
struct Known {
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
            (_, _, 4) => vec![known.batch, known.latent_channels, height / 8, width / 8],
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

/// A batch that the file fixes must be the one asked for.
fn check_batch(
    path: &Path,
    input: &ValueInfoProto,
    declared: &[Option<usize>],
    batch: usize,
) -> Result<(), ConvertError> {
    match declared {
        [Some(fixed), _, ..] if *fixed != batch && declared.len() >= 2 => {
            let name = input.name.as_deref().unwrap_or_default();
            let problem = format!(
                "input {name:?} is fixed at a batch of {fixed}, asked for {batch}; export it with an open batch"
            );
            Err(ConvertError::Source { path: path.to_owned(), problem })
        }
        _ => Ok(()),
    }
}

fn declared(input: &ValueInfoProto) -> Option<Vec<Option<usize>>> {
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()? else {
        return None;
    };
    let fixed = |v: &Option<dimension::Value>| match v {
        Some(dimension::Value::DimValue(d)) => usize::try_from(*d).ok().filter(|&d| d > 0),
        _ => None,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|d| fixed(&d.value)).collect())
}
