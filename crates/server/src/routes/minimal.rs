//! The minimal Stable Diffusion API: `POST /generate`, `GET /limits`, `GET /health`.

use super::asked::{Asked, AskedTerms, Size};
use super::waiting::Waiting;
use crate::app::App;
use crate::http::body::SmallJson;
use crate::http::{ApiError, Caller, whole};
use crate::packs::Kind;
use crate::work::Output;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use rockshard::{Cores, Drawable, Footprint, Manifest, Mode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The request.
#[derive(Debug, Deserialize)]
pub struct Generate {
    prompt: String,
    #[serde(default, deserialize_with = "whole::optional")]
    num_inference_steps: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    width: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    height: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    seed: Option<i64>,
    guidance_scale: Option<f64>,
    negative_prompt: Option<String>,
    model: Option<String>,
}

/// `POST /generate`: a PNG.
pub async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    SmallJson(request): SmallJson<Generate>,
) -> Result<Response, ApiError> {
    let size = match (request.width, request.height) {
        (None, None) => Size::Auto,
        (Some(width), Some(height)) => Size::Of([width, height]),
        (Some(side), None) | (None, Some(side)) => Size::Of([side, side]),
    };
    let asked = Asked {
        model: request.model,
        prompt: request.prompt,
        negative: request.negative_prompt,
        size,
        seed: request.seed,
        steps: request.num_inference_steps,
        guidance: request.guidance_scale,
        ..Asked::default()
    };
    let terms = AskedTerms::default().of(&app, &caller)?;
    let waiting = Waiting::submit(&app, asked.work(&app)?, terms)?;
    let output = waiting.outcome().await?;
    let Output::Pictures { pictures, .. } = &*output else {
        return Err(ApiError::failed("the job gave no pictures"));
    };
    let picture = pictures.first().ok_or_else(|| ApiError::failed("the job gave no pictures"))?;
    let seed = (HeaderName::from_static("x-seed"), picture.seed.to_string());
    Ok(([(header::CONTENT_TYPE, "image/png".to_owned()), seed], picture.bytes.clone())
        .into_response())
}

/// `GET /limits`: what can be drawn here.
pub async fn limits(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let memory = app.studio.packs.cores().options().memory_limit;
    let vram = memory.map_or_else(|| "not limited".to_owned(), gigabytes);
    let simulated = if app.is_modelled() { " (simulated)" } else { "" };
    let gpu = format!("RK3588 NPU, {} cores{simulated}", app.studio.packs.cores().options().cores);
    axum::Json(json!({
        "resolution": resolution(&app),
        "hardware": { "gpu": gpu, "vram": vram, "rocm_available": false },
    }))
}

/// The sizes that fit the memory limit, over all models that draw.
pub fn resolution(app: &App) -> Value {
    let packs = &app.studio.packs;
    let fitting = |pack: &crate::packs::ServedPack| {
        let sizes = pack.sizes().into_iter();
        let fits = |size: &[u32; 2]| fits(pack.pack.manifest(), *size, packs.cores());
        sizes.filter(fits).collect::<Vec<_>>()
    };
    let sizes: Vec<[u32; 2]> = packs.all().iter().flat_map(fitting).collect();
    let drawables = packs.all().iter().flat_map(|pack| match &pack.kind {
        Kind::Draws(sizes) => sizes.as_slice(),
        Kind::Describes => &[],
    });
    let multiple = drawables.map(Drawable::multiple).max().unwrap_or(1);
    let sides = || sizes.iter().flatten().copied();
    let largest = sizes.iter().max_by_key(|[w, h]| u64::from(*w) * u64::from(*h));
    json!({
        "max_width": sizes.iter().map(|s| s[0]).max().unwrap_or(0),
        "max_height": sizes.iter().map(|s| s[1]).max().unwrap_or(0),
        "min_dimension": sides().min().unwrap_or(0),
        "divisible_by": multiple,
        "max_tested_stable": largest.map(|[w, h]| format!("{w}×{h}")),
        "sizes": sizes.iter().copied().map(super::pictures::size_text).collect::<Vec<_>>(),
    })
}

/// Whether each model of a size fits the memory limit alone: models take turns.
fn fits(manifest: &Manifest, size: [u32; 2], cores: &Cores) -> bool {
    let options = cores.options();
    let Some(limit) = options.memory_limit else { return true };
    let mode = Mode::of(manifest.conversion.placement);
    let count = usize::from(options.cores);
    let own = manifest.models.iter().filter(|m| m.resolution == Some(size));
    own.map(|m| Footprint::of(m, count, mode).bytes()).all(|bytes| bytes <= limit)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1}GB", bytes as f64 / 1e9)
}
