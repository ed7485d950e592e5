//! `/v1/jobs`: work that is asked for now and fetched later.

use super::asked::{self, Asked, USUAL_STRENGTH};
use super::chat::{self, Chat};
use super::generations::{Delivery, Generations};
use super::pictures::{self, seconds};
use super::reading::{read, unpacked};
use super::waiting::log;
use crate::app::App;
use crate::http::body::{Json, parse};
use crate::http::{ApiError, Caller, Segment};
use crate::queue::{Job, JobId, Phase};
use crate::work::{FailureKind, Output, Work};
use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// The request: what the other routes take, and which of them it is for.
#[derive(Debug, Deserialize)]
pub struct Submission {
    kind: Kind,
    request: Box<RawValue>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// As `/v1/images/generations`, or with a picture to start from.
    Image,
    /// As `/v1/chat/completions`.
    Chat,
}

/// What pictures may have besides.
#[derive(Debug, Deserialize)]
struct Initial {
    /// A picture to start from, base64 or a data URL.
    image: Option<String>,
    /// What is transparent in it may change, base64 or a data URL.
    mask: Option<String>,
    strength: Option<f64>,
}

/// `POST /v1/jobs`.
pub async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(submission): Json<Submission>,
) -> Result<Response, ApiError> {
    let Submission { kind, request } = submission;
    let (work, terms) = match kind {
        Kind::Image => {
            let drawing: Generations = parse(request.get().as_bytes())?;
            let terms = drawing.terms(true).of(&app, &caller)?;
            let initial: Initial = parse(request.get().as_bytes())?;
            (work(&app, &drawing, initial).await?, terms)
        }
        Kind::Chat => {
            let chat: Chat = parse(request.get().as_bytes())?;
            let terms = chat.terms(true).of(&app, &caller)?;
            (chat.work(&app).await?, terms)
        }
    };
    log(&app, &work);
    let job = app.queue.submit(work, terms).map_err(ApiError::of_refusal)?;
    let place = [(header::LOCATION, format!("jobs/{}", job.id.as_str()))];
    Ok((StatusCode::ACCEPTED, place, axum::Json(described(&app, &job))).into_response())
}

async fn work(app: &Arc<App>, drawing: &Generations, initial: Initial) -> Result<Work, ApiError> {
    let Generations { stream, partial_images, response_format, n, .. } = drawing;
    // A job is fetched later: how it is delivered is looked at and has no meaning.
    Delivery::of(*stream, *partial_images, *response_format, *n)?;
    let asked = drawing.asked(0)?;
    let Initial { image, mask, strength } = initial;
    let Some(image) = image else {
        if mask.is_some() || strength.is_some() {
            let message = "mask and strength belong to an image, which is missing";
            return Err(ApiError::impossible(Some("image"), message));
        }
        return asked.work(app);
    };
    read(app, move |app| {
        let picture = asked::picture(app, "image", &unpacked("image", &image)?)?;
        let mask = mask.map(|mask| asked::mask(app, &unpacked("mask", &mask)?));
        let mask = mask.transpose()?;
        let strength = strength.or(Some(USUAL_STRENGTH));
        Asked { picture: Some(picture), mask, strength, ..asked }.work(app)
    })
    .await
}

/// Jobs of the one who asks that are not over.
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> axum::Json<Value> {
    let mut jobs = app.queue.jobs_of(&caller.name);
    jobs.sort_by_key(|job| job.since);
    let data: Vec<Value> = jobs.iter().map(|job| described(&app, job)).collect();
    axum::Json(json!({ "object": "list", "data": data }))
}

/// How far a job is.
pub async fn one(
    State(app): State<Arc<App>>,
    Segment(id): Segment<String>,
) -> Result<axum::Json<Value>, ApiError> {
    let job = find(&app, &id)?;
    let over = matches!(job.state().outcome, Some(Err(_)));
    if over {
        // There is nothing else to fetch of it.
        job.set_fetched();
    }
    Ok(axum::Json(described(&app, &job)))
}

/// Give a job up.
pub async fn cancel(
    State(app): State<Arc<App>>,
    Segment(id): Segment<String>,
) -> Result<axum::Json<Value>, ApiError> {
    let job = find(&app, &id)?;
    if job.is_over() {
        return Err(ApiError::conflict("the job is over already"));
    }
    app.queue.cancel(&job.id);
    job.set_fetched();
    Ok(axum::Json(described(&app, &job)))
}

/// Give a job up, and forget what came of it.
pub async fn delete(
    State(app): State<Arc<App>>,
    Segment(id): Segment<String>,
) -> Result<axum::Json<Value>, ApiError> {
    let job = find(&app, &id)?;
    app.queue.cancel(&job.id);
    // One that runs is over as soon as the shards that are running are.
    let _ = job.outcome().await;
    app.queue.forget(&job.id);
    Ok(axum::Json(described(&app, &job)))
}

/// What came of a job: what the route that it is for would have given.
pub async fn result(
    State(app): State<Arc<App>>,
    Segment(id): Segment<String>,
) -> Result<Response, ApiError> {
    let job = find(&app, &id)?;
    let output = output(&job)?;
    job.set_fetched();
    let body = match &*output {
        Output::Pictures { .. } => pictures::response(&job, &output, None)?,
        Output::Words { .. } => chat::response(&job, &output)?,
    };
    Ok(axum::Json(body).into_response())
}

/// A picture of a job, as a file.
pub async fn picture(
    State(app): State<Arc<App>>,
    Segment((id, number)): Segment<(String, usize)>,
) -> Result<Response, ApiError> {
    let job = find(&app, &id)?;
    let output = output(&job)?;
    let Output::Pictures { pictures, format, .. } = &*output else {
        return Err(ApiError::not_found("the job is not about pictures"));
    };
    let picture =
        pictures.get(number).ok_or_else(|| ApiError::not_found("there is no such picture"))?;
    job.set_fetched();
    let kind = [(header::CONTENT_TYPE, format.media_type())];
    Ok((kind, picture.bytes.clone()).into_response())
}

fn find(app: &App, id: &str) -> Result<Arc<Job>, ApiError> {
    let gone = || ApiError::not_found("there is no such job, or it was forgotten");
    app.queue.find(&JobId::given(id)).ok_or_else(gone)
}

fn output(job: &Job) -> Result<Arc<Output>, ApiError> {
    match job.state().outcome {
        Some(Ok(output)) => Ok(output),
        Some(Err(failure)) => {
            job.set_fetched();
            Err(failure.into())
        }
        None => Err(ApiError::conflict("the job is not over yet")),
    }
}

/// A job as JSON.
fn described(app: &App, job: &Job) -> Value {
    let state = job.state();
    let status = match (state.phase, &state.outcome) {
        (Phase::Waiting, _) => "queued",
        (Phase::Running, _) => "running",
        (Phase::Over, Some(Ok(_))) => "completed",
        (Phase::Over, Some(Err(f))) if f.kind == FailureKind::Cancelled => "cancelled",
        (Phase::Over, _) => "failed",
    };
    let id = job.id.as_str();
    let mut value = json!({
        "id": id, "object": "job", "kind": if job.kind == "draw" { "image" } else { "chat" },
        "model": job.pack, "status": status, "created": seconds(job.created),
        "progress": { "done": state.done, "total": job.pieces },
        "poll_url": format!("jobs/{id}"),
    });
    if let Some(position) = app.queue.position(&job.id) {
        value["position"] = position.ahead.into();
        value["wait_s"] = position.wait.as_secs_f64().into();
    }
    match &state.outcome {
        Some(Ok(output)) => {
            value["result_url"] = format!("jobs/{id}/result").into();
            if let Output::Pictures { pictures, .. } = &**output {
                let urls = (0..pictures.len()).map(|n| format!("jobs/{id}/pictures/{n}"));
                value["picture_urls"] = urls.collect();
            }
        }
        Some(Err(failure)) => {
            value["error"] = ApiError::from(failure.clone()).json()["error"].clone();
        }
        None => {}
    }
    value
}
