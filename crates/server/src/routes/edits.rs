//! `POST /v1/images/edits` and `/v1/images/variations`: pictures from pictures.

use super::asked::{self, Asked, AskedTerms, Size, Urgency};
use super::generations::{Background, Delivery, FormatName, ResponseFormat, links, named_sampler};
use super::reading::read;
use crate::app::App;
use crate::http::body::Form;
use crate::http::caller::Peer;
use crate::http::{ApiError, Caller};
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Strength of variations, which have no words to go by.
const VARIATION: f64 = 0.5;

/// `POST /v1/images/edits`: the picture, where it may change, and what to draw there.
pub async fn edits(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let prompt = form.text("prompt")?;
    let prompt = prompt.ok_or_else(|| ApiError::invalid(Some("prompt"), "prompt is missing"))?;
    let (asked, delivery) = fields(&app, &form)?;
    let mask = match form.files(&["mask"]).next().cloned() {
        Some(bytes) => Some(read(&app, move |app| asked::mask(app, &bytes)).await?),
        None => None,
    };
    let asked = Asked { prompt: prompt.to_owned(), mask, ..asked };
    draw(&app, &caller, &form, asked, delivery, "image_edit", links(peer, &headers)).await
}

/// `POST /v1/images/variations`: the picture again, a little different.
pub async fn variations(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let (asked, delivery) = fields(&app, &form)?;
    let asked = Asked { strength: asked.strength.or(Some(VARIATION)), ..asked };
    draw(&app, &caller, &form, asked, delivery, "image_variation", links(peer, &headers)).await
}

/// The fields that both have.
fn fields(app: &App, form: &Form) -> Result<(Asked, Delivery), ApiError> {
    let stream = form.value("stream")?;
    let place: Option<ResponseFormat> = word(form, "response_format")?;
    let count = form.whole("n")?;
    let _: Option<Background> = word(form, "background")?;
    let (delivery, previews) = Delivery::of(stream, form.whole("partial_images")?, place, count)?;
    let sampler = form.text("sampler")?.map(named_sampler).transpose();
    let sampler = sampler.map_err(|e| ApiError::invalid(Some("sampler"), e))?;
    let (format, quality) = (word(form, "output_format")?, form.whole("output_compression")?);
    let asked = Asked {
        model: form.text("model")?.map(str::to_owned),
        negative: form.text("negative_prompt")?.map(str::to_owned),
        count,
        size: form.text("size")?.map_or(Ok(Size::Auto), Size::parse)?,
        seed: form.whole("seed")?,
        steps: form.whole("steps")?,
        guidance: form.value("guidance_scale")?,
        strength: form.value("strength")?,
        sampler,
        previews,
        format: FormatName::format(format, quality)?,
        ..Asked::default()
    };
    let images = form.files(&["image", "image[]"]).count();
    if images == 0 {
        return Err(ApiError::invalid(Some("image"), "image is missing"));
    }
    if images > 1 {
        let most = app.options.limits.images;
        let message = if images > most {
            format!("{images} images; at most {most} are taken")
        } else {
            "this model starts from one picture: send one image".to_owned()
        };
        return Err(ApiError::impossible(Some("image"), message));
    }
    Ok((asked, delivery))
}

/// A field that is one of several words.
fn word<T: DeserializeOwned>(form: &Form, name: &'static str) -> Result<Option<T>, ApiError> {
    let Some(text) = form.text(name)? else { return Ok(None) };
    let value =
        T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text));
    value.map(Some).map_err(|e| ApiError::invalid(Some(name), format!("{name}: {e}")))
}

async fn draw(
    app: &Arc<App>,
    caller: &Caller,
    form: &Form,
    asked: Asked,
    delivery: Delivery,
    prefix: &'static str,
    links: super::pictures::Links,
) -> Result<Response, ApiError> {
    let bytes = form.files(&["image", "image[]"]).next().cloned().unwrap_or_default();
    let work = read(app, move |app| {
        let picture = asked::picture(app, "image", &bytes)?;
        Asked { picture: Some(picture), ..asked }.work(app)
    });
    let work = work.await?;
    let priority: Option<Urgency> = word(form, "priority")?;
    let terms = AskedTerms {
        user: form.text("user")?,
        priority,
        deadline_s: form.whole("deadline_s")?,
        keep: delivery.urls,
    };
    let terms = terms.of(app, caller)?;
    delivery.respond(app, (work, terms), prefix, links).await
}
