//! The page, which is part of the program.

use crate::app::App;
use crate::http::{ApiError, Segment};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// A file of the page.
pub struct Asset {
    name: &'static str,
    bytes: &'static [u8],
    /// Changes with the file.
    tag: &'static str,
}

/// `GET /`.
pub async fn index(headers: HeaderMap) -> Response {
    file("index.html", &headers).into_response()
}

/// `GET /docs`.
pub async fn docs(headers: HeaderMap) -> Response {
    file("docs.html", &headers).into_response()
}

/// `GET /page/{name}`.
pub async fn asset(Segment(name): Segment<String>, headers: HeaderMap) -> Response {
    file(&name, &headers).into_response()
}

/// `GET /openapi.json`.
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}

/// Files are known by name since the program was built; no path is ever looked up.
fn file(name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| ApiError::not_found("the page has no such file"))?;
    let fixed = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, asset.tag)];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == asset.tag) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    Ok((fixed, [(header::CONTENT_TYPE, kind)], asset.bytes).into_response())
}
