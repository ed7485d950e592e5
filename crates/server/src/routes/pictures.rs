//! Responses of OpenAI's images API: whole, or as a stream of unfinished pictures and the finished ones.

use super::events::Teller;
use crate::http::ApiError;
use crate::queue::{Job, JobState};
use crate::work::{EncodedPicture, Output, PictureFormat};
use axum::response::sse::Event;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Tells of pictures by events whose names begin with `prefix`: of unfinished ones, then of each finished one.
pub struct PictureTeller {
    prefix: &'static str,
    format: PictureFormat,
    size: String,
    shown: usize,
}

impl PictureTeller {
    /// Of pictures of a format and a size.
    pub fn new(prefix: &'static str, format: PictureFormat, size: [u32; 2]) -> Self {
        PictureTeller { prefix, format, size: size_text(size), shown: 0 }
    }

    fn event(&self, job: &Job, kind: &str, picture: &EncodedPicture) -> Value {
        json!({
            "type": format!("{}.{kind}", self.prefix),
            "b64_json": BASE64_STANDARD.encode(&picture.bytes),
            "created_at": seconds(job.created),
            "background": "opaque", "quality": "auto",
            "output_format": self.format.name(), "size": self.size, "seed": picture.seed,
        })
    }
}

impl Teller for PictureTeller {
    fn tell(&mut self, job: &Job, state: &JobState, events: &mut VecDeque<Event>) {
        let mut push = |value: &Value| {
            let name = value["type"].as_str().unwrap_or_default();
            events.push_back(Event::default().event(name).data(value.to_string()));
        };
        for previews in state.previews.iter().skip(self.shown) {
            for picture in previews.iter() {
                let mut event = self.event(job, "partial_image", picture);
                event["partial_image_index"] = self.shown.into();
                push(&event);
            }
            self.shown += 1;
        }
        match &state.outcome {
            Some(Ok(output)) => {
                let Output::Pictures { pictures, .. } = &**output else { return };
                pictures.iter().for_each(|p| push(&self.event(job, "completed", p)));
                job.set_fetched();
            }
            Some(Err(failure)) => {
                let mut error = ApiError::from(failure.clone()).json();
                error["type"] = "error".into();
                push(&error);
            }
            None => {}
        }
    }
}
