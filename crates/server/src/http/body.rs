//! Bodies of requests: bounded in size and time before anything looks at them.

use super::{ApiError, whole};
use crate::app::App;
use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most parts of a multipart body.
const MOST_PARTS: usize = 64;

/// Most bytes of a JSON body without pictures in it.
const SMALL: usize = 1 << 20;
/// From so many bytes on a body is parsed on a thread that may take its time.
const LARGE: usize = 256 << 10;
/// Most bytes of all bodies that are being read or looked at.
const ALL_BODIES: usize = 384 << 20;
/// When to come again if there are more.
const AGAIN: Duration = Duration::from_secs(2);

/// A JSON body that may have pictures in it.
pub struct Json<T>(pub T);

/// A JSON body without pictures.
pub struct SmallJson<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        json(request, app, app.options.limits.body).await.map(Json)
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for SmallJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        json(request, app, SMALL).await.map(SmallJson)
    }
}

async fn json<T: DeserializeOwned + Send + 'static>(
    request: Request,
    app: &Arc<App>,
    limit: usize,
) -> Result<T, ApiError> {
    if !is_type(&request, "application/json") {
        return Err(ApiError::media_type("application/json"));
    }
    let body = read(request.into_body(), app, limit).await?;
    if body.bytes.len() < LARGE {
        return parse(&body.bytes);
    }
    crate::routes::reading::read(app, move |_| parse(&body.bytes)).await
}

/// A value of JSON text.
///
/// # Errors
/// Text that is not JSON, or not of this type; where, is named.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer);
    let value = value.map_err(|error| {
        let place = error.path().to_string();
        let inner = error.into_inner();
        let what = if inner.is_data() { "not what is taken here" } else { "not JSON" };
        let place = if place == "." { String::new() } else { format!("{place}: ") };
        ApiError::invalid(None, format!("{place}{what}: {inner}"))
    })?;
    deserializer.end().map_err(|e| ApiError::invalid(None, format!("not JSON: {e}")))?;
    Ok(value)
}

/// Fields of a form: text, and files.
pub struct Form(
    pub Vec<(String, Bytes)>,
    #[expect(dead_code, reason = "held while the form is")] Held,
);

impl FromRequest<Arc<App>> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        if !is_type(&request, "multipart/form-data") {
            return Err(ApiError::media_type("multipart/form-data"));
        }
        let (parts, body) = request.into_parts();
        let Read { bytes, held } = read(body, app, app.options.limits.body).await?;
        let request = Request::from_parts(parts, Body::from(bytes));
        let refuse = |problem: String| ApiError::invalid(None, format!("the form: {problem}"));
        let mut form = Multipart::from_request(request, &()).await;
        let form = form.as_mut().map_err(|e| refuse(e.body_text()))?;
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await.map_err(|e| refuse(e.body_text()))? {
            if fields.len() == MOST_PARTS {
                return Err(refuse(format!("more than {MOST_PARTS} parts")));
            }
            let name = field.name().map(str::to_owned);
            let name = name.ok_or_else(|| refuse("a part has no name".into()))?;
            let bytes = field.bytes().await.map_err(|e| refuse(e.body_text()))?;
            fields.push((name, bytes));
        }
        Ok(Form(fields, held))
    }
}

impl Form {
    /// The text of a field.
    ///
    /// # Errors
    /// It is there more than once, or is not UTF-8.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, bytes)| bytes);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(ApiError::invalid(Some(name), format!("{name} is there more than once")));
        }
        let text = std::str::from_utf8(value);
        text.map(Some).map_err(|_| ApiError::invalid(Some(name), format!("{name} is not UTF-8")))
    }

    /// A field that is written as JSON writes it: a number, `true`, `null`.
    ///
    /// # Errors
    /// As [`Form::text`], and text of another kind.
    pub fn value<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let value = serde_json::from_str::<T>(text);
        value.map(Some).map_err(|_| not_a_value(name, text))
    }

    /// A whole number.
    ///
    /// # Errors
    /// As [`Form::value`], and a number that does not fit.
    pub fn whole<T: TryFrom<i128>>(&self, name: &'static str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let value = whole::optional(&mut serde_json::Deserializer::from_str(text));
        value.ok().flatten().map(Some).ok_or_else(|| not_a_value(name, text))
    }

    /// Files of these names.
    pub fn files<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a Bytes> {
        self.0.iter().filter(|(n, _)| names.contains(&n.as_str())).map(|(_, bytes)| bytes)
    }
}

fn not_a_value(name: &'static str, text: &str) -> ApiError {
    let shown: String = text.chars().take(40).collect();
    let message = format!("{name} is {shown:?}, which is not a value that it may have");
    ApiError::invalid(Some(name), message)
}

fn is_type(request: &Request, expected: &str) -> bool {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.split(';').next()).unwrap_or_default();
    given.trim().eq_ignore_ascii_case(expected)
}

/// A body that was read.
struct Read {
    bytes: Bytes,
    held: Held,
}

/// Counts the bytes of a body for as long as it is there.
struct Held {
    app: Arc<App>,
    bytes: usize,
}

impl Held {
    /// Count more.
    fn add(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes += bytes;
        let all = self.app.bodies.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > ALL_BODIES {
            let message = "too much is being sent at once";
            return Err(ApiError::busy("too_much_at_once", message, AGAIN));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.app.bodies.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn read(mut body: Body, app: &Arc<App>, limit: usize) -> Result<Read, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::too_large(limit));
    }
    let end = tokio::time::Instant::now() + app.options.limits.body_time;
    let (mut bytes, mut held) = (BytesMut::new(), Held { app: app.clone(), bytes: 0 });
    loop {
        let frame = tokio::time::timeout_at(end, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ApiError::too_slow())? else { break };
        let frame = frame.map_err(|_| ApiError::invalid(None, "the body was cut off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        held.add(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(Read { bytes: bytes.freeze(), held })
}
