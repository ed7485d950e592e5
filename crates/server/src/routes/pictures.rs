//! Responses of OpenAI's images API: whole, or as a stream of unfinished pictures and the finished ones.

use super::waiting::Waiting;
use crate::http::ApiError;
use crate::queue::{Job, JobState, Phase};
use crate::work::{EncodedPicture, Output, PictureFormat};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// How often a stream in which nothing happens says that it is alive; this also finds out that nobody listens.
pub const ALIVE: Duration = Duration::from_secs(10);

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Where clients find pictures that they do not get in the response.
pub struct Links {
    /// The address of the server as the client sees it, with a slash at its end.
    pub base: String,
}

/// A response with pictures.
///
/// # Errors
/// The job was not about pictures.
pub fn response(job: &Job, output: &Output, links: Option<&Links>) -> Result<Value, ApiError> {
    let Output::Pictures { pictures, format, size, dropped_tokens, times } = output else {
        return Err(ApiError::failed("the job gave no pictures"));
    };
    let data = |(number, picture): (usize, &EncodedPicture)| {
        let mut entry = match links {
            None => json!({ "b64_json": BASE64_STANDARD.encode(&picture.bytes) }),
            Some(Links { base }) => {
                let id = job.id.as_str();
                json!({ "url": format!("{base}v1/jobs/{id}/pictures/{number}") })
            }
        };
        entry["seed"] = picture.seed.into();
        entry
    };
    let data: Vec<Value> = pictures.iter().enumerate().map(data).collect();
    let mut body = json!({
        "created": seconds(job.created), "data": data, "background": "opaque",
        "output_format": format.name(), "size": size_text(*size),
        "model": job.pack, "timings": times,
    });
    if *dropped_tokens > 0 {
        body["warnings"] = json!([format!(
            "the prompt is too long: {dropped_tokens} tokens at its end were dropped"
        )]);
    }
    Ok(body)
}

/// `WIDTHxHEIGHT`.
pub fn size_text([width, height]: [u32; 2]) -> String {
    format!("{width}x{height}")
}

struct Streaming {
    waiting: Waiting,
    state: watch::Receiver<JobState>,
    prefix: &'static str,
    format: PictureFormat,
    size: String,
    shown: usize,
    /// Events that are ready.
    ready: VecDeque<Event>,
    over: bool,
}

/// A stream of events whose names begin with `prefix`: unfinished pictures, then one event for each finished one.
pub fn streamed(
    waiting: Waiting,
    prefix: &'static str,
    format: PictureFormat,
    size: [u32; 2],
) -> Response {
    let state = waiting.job().watch();
    let (size, ready) = (size_text(size), VecDeque::new());
    let streaming =
        Streaming { waiting, state, prefix, format, size, shown: 0, ready, over: false };
    let events = stream::unfold(streaming, |mut s| async move {
        loop {
            if let Some(event) = s.ready.pop_front() {
                return Some((Ok::<_, Infallible>(event), s));
            }
            if s.over {
                return None;
            }
            let state = s.state.borrow_and_update().clone();
            s.tell(&state);
            if s.ready.is_empty() && !s.over && s.state.changed().await.is_err() {
                return None;
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE).text("alive")).into_response()
}

impl Streaming {
    fn tell(&mut self, state: &JobState) {
        for previews in state.previews.iter().skip(self.shown) {
            for picture in previews.iter() {
                let mut event = self.event("partial_image", picture);
                event["partial_image_index"] = self.shown.into();
                self.push(&event);
            }
            self.shown += 1;
        }
        if state.phase != Phase::Over {
            return;
        }
        self.over = true;
        match &state.outcome {
            Some(Ok(output)) => {
                let Output::Pictures { pictures, .. } = &**output else { return };
                for picture in pictures {
                    let event = self.event("completed", picture);
                    self.push(&event);
                }
                self.waiting.job().set_fetched();
            }
            Some(Err(failure)) => {
                let mut error = ApiError::from(failure.clone()).json();
                error["type"] = "error".into();
                self.push(&error);
            }
            None => {}
        }
    }

    fn push(&mut self, value: &Value) {
        let name = value["type"].as_str().unwrap_or_default();
        self.ready.push_back(Event::default().event(name).data(value.to_string()));
    }

    fn event(&self, kind: &str, picture: &EncodedPicture) -> Value {
        json!({
            "type": format!("{}.{kind}", self.prefix),
            "b64_json": BASE64_STANDARD.encode(&picture.bytes),
            "created_at": seconds(self.waiting.job().created),
            "background": "opaque", "quality": "auto",
            "output_format": self.format.name(), "size": self.size, "seed": picture.seed,
        })
    }
}
