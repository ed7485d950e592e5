//! `GET /v1/models`: what is served.

use super::pictures::size_text;
use crate::app::App;
use crate::http::{ApiError, Segment};
use crate::packs::{Kind, ServedPack};
use axum::Json;
use axum::extract::State;
use rockshard::SamplerName;
use serde_json::{Value, json};
use std::sync::Arc;

/// All models.
pub async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let data: Vec<Value> = app.packs().iter().map(|pack| model(&app, pack)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// One model.
pub async fn one(
    State(app): State<Arc<App>>,
    Segment(id): Segment<String>,
) -> Result<Json<Value>, ApiError> {
    let pack = app.studio.packs.find(&id);
    let pack =
        pack.ok_or_else(|| ApiError::no_model(format!("there is no model called {id:?}")))?;
    Ok(Json(model(&app, pack)))
}

fn model(app: &App, pack: &ServedPack) -> Value {
    let mut model = json!({
        "id": pack.name, "object": "model", "created": pack.created, "owned_by": "rockshard",
        "kind": pack.kind.word(), "device": app.device.to_string(), "modelled": app.is_modelled(),
        "loaded": app.studio.packs.is_loaded(&pack.name),
    });
    if let Kind::Draws(sizes) = &pack.kind
        && let Some(first) = sizes.first()
    {
        let usual = first.request("", None).ok();
        let sampler = usual.as_ref().and_then(|r| r.sampler);
        model["sizes"] = pack.sizes().into_iter().map(size_text).collect();
        model["steps"] = usual.as_ref().map(|r| r.steps).into();
        model["guidance_scale"] = usual.as_ref().map(|r| r.guidance).into();
        model["sampler"] = sampler.map(SamplerName::as_str).into();
        model["samplers"] = SamplerName::ALL.map(SamplerName::as_str).as_slice().into();
        model["negative_prompt"] = first.takes_negative_prompt().into();
        model["edits"] = first.takes_pictures().into();
    }
    model
}
