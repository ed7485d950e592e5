//! How the server is doing, for supervisors, Prometheus and the page.

use super::minimal;
use crate::app::App;
use crate::http::ApiError;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /health`: the server answers. It has the limits, as the minimal Stable Diffusion API has them.
pub async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let status = if app.queue.load().draining { "draining" } else { "healthy" };
    let limits = minimal::resolution(&app);
    Json(json!({
        "status": status, "version": env!("CARGO_PKG_VERSION"), "device": app.device.to_string(),
        "uptime_s": app.started.elapsed().as_secs(), "resolution_limits": limits,
    }))
}

/// `GET /ready`: work is taken.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let load = app.queue.load();
    if load.draining || app.is_stopping() {
        return ApiError::of_refusal(crate::queue::Refusal::Draining).into_response();
    }
    let status = if load.waiting >= load.limit { "busy" } else { "ready" };
    (StatusCode::OK, Json(json!({ "status": status }))).into_response()
}

/// `GET /metrics`, in Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics_text())
}

/// `GET /v1/cores`: what the cores do.
pub async fn cores(State(app): State<Arc<App>>) -> Json<Value> {
    let (cores, recent) = app.studio.activity.now();
    let load = app.queue.load();
    let (active, waiting) = app.live.counts();
    let packs = &app.studio.packs;
    let pack = |pack: &crate::packs::ServedPack| json!({ "id": pack.name, "kind": pack.kind.word(), "loaded": packs.is_loaded(&pack.name) });
    Json(json!({
        "device": app.device.to_string(), "modelled": app.is_modelled(),
        "now_us": app.studio.activity.now_us(),
        "jobs": { "waiting": load.waiting, "running": load.running, "limit": load.limit, "wait_s": load.wait.as_secs_f64() },
        "live": { "active": active, "waiting": waiting },
        "memory": { "resident_bytes": packs.resident().1, "limit_bytes": packs.cores().options().memory_limit },
        "packs": packs.all().iter().map(pack).collect::<Vec<_>>(),
        "cores": cores, "recent": recent,
    }))
}
