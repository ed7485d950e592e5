//! The routes: what clients of OpenAI's API, of A1111's web UI, of the minimal Stable Diffusion API and the page ask for.

pub mod asked;
pub mod chat;
mod edits;
mod events;
pub mod generations;
mod health;
mod jobs;
mod minimal;
mod models;
mod page;
pub mod pictures;
pub mod reading;
mod sdapi;
mod waiting;

use crate::app::App;
use crate::http::{ApiError, admit};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::sync::Arc;

/// All routes.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page/{name}", get(page::asset))
        .route("/docs", get(page::docs))
        .route("/openapi.json", get(page::openapi))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/v1/cores", get(health::cores))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/images/generations", post(generations::generations))
        .route("/v1/images/edits", post(edits::edits))
        .route("/v1/images/variations", post(edits::variations))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/v1/jobs/{id}", get(jobs::one).delete(jobs::delete))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/result", get(jobs::result))
        .route("/v1/jobs/{id}/pictures/{number}", get(jobs::picture))
        .route("/v1/live", get(crate::live::upgrade))
        .route("/generate", post(minimal::generate))
        .route("/limits", get(minimal::limits))
        .route("/sdapi/v1/txt2img", post(sdapi::txt2img))
        .route("/sdapi/v1/img2img", post(sdapi::img2img))
        .route("/sdapi/v1/options", get(sdapi::options).post(sdapi::set_options))
        .route("/sdapi/v1/sd-models", get(sdapi::models))
        .route("/sdapi/v1/samplers", get(sdapi::samplers))
        .route("/sdapi/v1/progress", get(sdapi::progress))
        .route("/sdapi/v1/interrupt", post(sdapi::interrupt))
        .fallback(async || ApiError::not_found("there is nothing here; /docs lists what there is"))
        .method_not_allowed_fallback(async || ApiError::method())
        // Bodies have limits of their own (`http::body`).
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), admit::admit))
        .with_state(app.clone())
}
