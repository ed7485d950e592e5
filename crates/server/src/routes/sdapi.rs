//! A1111's API, as far as Open WebUI and people's scripts call it.

use super::asked::{self, Asked, AskedTerms, Size};
use super::generations::named_sampler;
use super::reading::{read, unpacked};
use super::waiting::Waiting;
use crate::app::App;
use crate::http::body::{Json, SmallJson};
use crate::http::{ApiError, Caller, whole};
use crate::packs::ServedPack;
use crate::queue::Phase;
use crate::work::{EncodedPicture, Output, Work};
use axum::Extension;
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rockshard::{Mask, SamplerName};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

/// What both requests have. What is not named here changes nothing.
#[derive(Debug, Default, Deserialize)]
pub struct Drawn {
    prompt: Option<String>,
    negative_prompt: Option<String>,
    #[serde(default, deserialize_with = "whole::optional")]
    seed: Option<i64>,
    sampler_name: Option<String>,
    sampler_index: Option<String>,
    scheduler: Option<String>,
    #[serde(default, deserialize_with = "whole::optional")]
    batch_size: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    n_iter: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    steps: Option<u32>,
    cfg_scale: Option<f64>,
    #[serde(default, deserialize_with = "whole::optional")]
    width: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    height: Option<u32>,
    denoising_strength: Option<f64>,
    init_images: Option<Vec<String>>,
    mask: Option<String>,
    #[serde(default, deserialize_with = "whole::optional")]
    inpainting_mask_invert: Option<i64>,
    override_settings: Option<Override>,
}

/// Settings for one request.
#[derive(Debug, Default, Deserialize)]
pub struct Override {
    sd_model_checkpoint: Option<String>,
}

/// `POST /sdapi/v1/txt2img`.
pub async fn txt2img(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    SmallJson(request): SmallJson<Drawn>,
) -> Result<axum::Json<Value>, ApiError> {
    let work = asked(&app, &request)?.work(&app)?;
    draw(&app, &caller, work, &request).await
}

/// `POST /sdapi/v1/img2img`.
pub async fn img2img(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Drawn>,
) -> Result<axum::Json<Value>, ApiError> {
    let images = request.init_images.as_deref().unwrap_or_default();
    let [image] = images else {
        let message = format!("init_images has {} pictures; this model takes one", images.len());
        return Err(ApiError::invalid(Some("init_images"), message));
    };
    let image = image.clone();
    let strength = request.denoising_strength;
    let inverted = request.inpainting_mask_invert.unwrap_or(0) != 0;
    let mask = request.mask.clone().filter(|mask| !mask.is_empty());
    let asked = asked(&app, &request)?;
    let work = read(&app, move |app| {
        let picture = asked::picture(app, "init_images", &unpacked("init_images", &image)?)?;
        let mask = mask.map(|mask| {
            Mask::from_brightness(&unpacked("mask", &mask)?, app.options.limits.pixels, inverted)
                .map_err(|e| asked::not_a_picture("mask", &e))
        });
        let mask = mask.transpose()?;
        Asked { picture: Some(picture), mask, strength, ..asked }.work(app)
    });
    draw(&app, &caller, work.await?, &request).await
}

/// The model that is chosen now.
fn chosen(app: &App) -> Option<String> {
    app.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn asked(app: &App, request: &Drawn) -> Result<Asked, ApiError> {
    let own = request.override_settings.as_ref().and_then(|o| o.sd_model_checkpoint.as_deref());
    let own = own.map(|title| find(app, title)).transpose()?;
    let size = match (request.width, request.height) {
        (None, None) => Size::Auto,
        (Some(width), Some(height)) => Size::Of([width, height]),
        (Some(side), None) | (None, Some(side)) => Size::Of([side, side]),
    };
    let most = app.options.limits.pictures;
    let [batch, rounds] = [request.batch_size, request.n_iter].map(|n| n.unwrap_or(1));
    if ![batch, rounds].iter().all(|n| (1..=most).contains(n)) {
        let message = format!("batch_size and n_iter must be 1 to {most}");
        return Err(ApiError::invalid(Some("batch_size"), message));
    }
    if batch * rounds > most {
        let message = format!("batch_size times n_iter must be at most {most}");
        return Err(ApiError::impossible(Some("batch_size"), message));
    }
    let name = request.sampler_name.as_deref().or(request.sampler_index.as_deref());
    let name = name.filter(|name| !name.is_empty() && *name != "Automatic");
    let karras = request.scheduler.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("karras"));
    let sampler = name.map(named_sampler).transpose();
    let sampler = sampler.map_err(|e| ApiError::impossible(Some("sampler_name"), e))?;
    let sampler = match sampler {
        Some(SamplerName::Dpm) if karras => Some(SamplerName::DpmKarras),
        other => other,
    };
    Ok(Asked {
        model: own.or_else(|| chosen(app)),
        prompt: request.prompt.clone().unwrap_or_default(),
        negative: request.negative_prompt.clone(),
        count: Some(batch * rounds),
        size,
        seed: request.seed,
        steps: request.steps,
        guidance: request.cfg_scale,
        sampler,
        ..Asked::default()
    })
}

async fn draw(
    app: &App,
    caller: &Caller,
    work: Work,
    request: &Drawn,
) -> Result<axum::Json<Value>, ApiError> {
    let terms = AskedTerms::default().of(app, caller)?;
    let waiting = Waiting::submit(app, work, terms)?;
    let output = waiting.outcome().await?;
    let Output::Pictures { pictures, size, .. } = &*output else {
        return Err(ApiError::failed("the job gave no pictures"));
    };
    let images: Vec<String> = pictures.iter().map(|p| BASE64_STANDARD.encode(&p.bytes)).collect();
    Ok(axum::Json(json!({
        "images": images,
        "parameters": echo(request, pictures, *size),
        "info": info(pictures, *size).to_string(),
    })))
}

/// The request as it was understood.
fn echo(request: &Drawn, pictures: &[EncodedPicture], [width, height]: [u32; 2]) -> Value {
    let mut echo = json!({});
    let first = pictures.first().and_then(|p| p.parameters.as_ref());
    if let Some(p) = first {
        echo["prompt"] = p.prompt.as_str().into();
        echo["negative_prompt"] = p.negative_prompt.as_deref().unwrap_or("").into();
        echo["steps"] = p.steps.into();
        echo["cfg_scale"] = p.guidance.into();
        echo["sampler_name"] = p.sampler.as_str().into();
        echo["seed"] = p.seed.into();
    }
    echo["width"] = width.into();
    echo["height"] = height.into();
    echo["batch_size"] = pictures.len().into();
    echo["n_iter"] = 1.into();
    if let Some(strength) = request.denoising_strength {
        echo["denoising_strength"] = strength.into();
    }
    echo
}

/// What A1111 tells of pictures.
fn info(pictures: &[EncodedPicture], [width, height]: [u32; 2]) -> Value {
    let seeds: Vec<u64> = pictures.iter().map(|p| p.seed).collect();
    let texts = pictures.iter().filter_map(|p| Some(p.parameters.as_ref()?.readable()));
    let mut info = json!({
        "all_seeds": seeds, "seed": seeds.first(), "width": width, "height": height,
        "batch_size": pictures.len(), "infotexts": texts.collect::<Vec<_>>(),
        "index_of_first_image": 0, "subseed": 0, "all_subseeds": vec![0; pictures.len()],
    });
    if let Some(p) = pictures.first().and_then(|p| p.parameters.as_ref()) {
        let negative = p.negative_prompt.as_deref().unwrap_or("");
        info["prompt"] = p.prompt.as_str().into();
        info["all_prompts"] = vec![p.prompt.as_str(); pictures.len()].into();
        info["negative_prompt"] = negative.into();
        info["all_negative_prompts"] = vec![negative; pictures.len()].into();
        info["steps"] = p.steps.into();
        info["cfg_scale"] = p.guidance.into();
        info["sampler_name"] = p.sampler.as_str().into();
        info["sd_model_name"] = p.model.as_str().into();
        info["denoising_strength"] = p.strength.into();
        info["version"] = format!("rockshard {}", p.version).into();
    }
    info
}

/// A pack by its title or its name.
fn find(app: &App, title: &str) -> Result<String, ApiError> {
    Ok(asked::pack(app, Some(title), true)?.name.clone())
}

/// `GET /sdapi/v1/options`.
pub async fn options(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let model = chosen(&app).or_else(|| app.first(true).map(|pack| pack.name.clone()));
    axum::Json(json!({
        "sd_model_checkpoint": model, "samples_format": "png", "enable_pnginfo": true,
        "CLIP_stop_at_last_layers": 1,
    }))
}

/// `POST /sdapi/v1/options`: which model draws where a request of this API names none. What else is set changes nothing.
pub async fn set_options(
    State(app): State<Arc<App>>,
    SmallJson(settings): SmallJson<Override>,
) -> Result<axum::Json<Value>, ApiError> {
    if let Some(title) = settings.sd_model_checkpoint {
        let name = find(&app, &title)?;
        *app.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }
    Ok(axum::Json(Value::Null))
}

/// `GET /sdapi/v1/sd-models`.
pub async fn models(State(app): State<Arc<App>>) -> axum::Json<Value> {
    let draws = |pack: &&ServedPack| matches!(pack.kind, crate::packs::Kind::Draws(_));
    let model = |pack: &ServedPack| {
        let name = &pack.name;
        json!({ "title": name, "model_name": name, "hash": null, "sha256": null, "filename": name, "config": null })
    };
    axum::Json(app.packs().iter().filter(draws).map(model).collect())
}

/// `GET /sdapi/v1/samplers`.
pub async fn samplers() -> axum::Json<Value> {
    let sampler =
        |s: SamplerName| json!({ "name": s.title(), "aliases": [s.as_str()], "options": {} });
    axum::Json(SamplerName::ALL.map(sampler).into_iter().collect())
}

/// `GET /sdapi/v1/progress`: of this client's drawings.
pub async fn progress(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> axum::Json<Value> {
    let jobs = app.queue.jobs_of(&caller.name);
    let states: Vec<_> = jobs.iter().map(|job| (job, job.state())).collect();
    let running = states.iter().find(|(_, state)| state.phase == Phase::Running);
    let (done, pieces) = running.map_or((0, 0), |(job, state)| (state.done, job.pieces));
    let steps = running.map_or(0, |(job, _)| job.steps);
    let share = done as f64 / pieces.max(1) as f64;
    let taken = running.map_or(0.0, |(job, _)| job.since.elapsed().as_secs_f64());
    let left = if done > 0 { taken / share - taken } else { app.queue.load().wait.as_secs_f64() };
    let eta = if jobs.is_empty() { 0.0 } else { left };
    axum::Json(json!({
        "progress": share, "eta_relative": eta,
        "state": {
            "skipped": false, "interrupted": false, "job": running.map_or("", |(job, _)| job.id.as_str()),
            "job_count": jobs.len(), "job_timestamp": "", "job_no": 0,
            "sampling_step": (share * steps as f64) as usize, "sampling_steps": steps,
        },
        "current_image": null, "textinfo": null,
    }))
}

/// `POST /sdapi/v1/interrupt`: give up this client's drawings that are under way.
pub async fn interrupt(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> axum::Json<Value> {
    for job in app.queue.jobs_of(&caller.name) {
        if job.kind == "draw" && job.state().phase == Phase::Running {
            app.queue.cancel(&job.id);
        }
    }
    axum::Json(json!({}))
}
