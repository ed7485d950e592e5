//! `POST /v1/chat/completions`: words about images.

use super::asked::{self, AskedTerms, Urgency};
use super::events::{Teller, streamed};
use super::pictures::seconds;
use super::reading::read;
use super::waiting::Waiting;
use crate::app::App;
use crate::http::body::Json;
use crate::http::{ApiError, Caller, whole};
use crate::queue::{Job, JobState};
use crate::work::{Describe, Output, Said, Work};
use axum::Extension;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rockshard::{ImageError, Rgb, Sampling, Speaker};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Tokens that are said at most where a request does not say.
const USUAL_MOST: usize = 128;
/// The most that may be asked for.
pub const MOST_TOKENS: usize = 2048;
/// Images of the largest size that a request may have; more, if they are smaller: all of them are in memory when it is answered.
const LARGE_IMAGES: u64 = 2;
/// Most parts of a message.
pub const MOST_PARTS: usize = 64;
/// Most texts that end an answer: OpenAI's number.
pub const MOST_STOPS: usize = 4;
/// Most messages of a conversation.
pub const MOST_MESSAGES: usize = 64;

/// The request.
#[derive(Debug, Deserialize)]
pub struct Chat {
    messages: Vec<Message>,
    model: Option<String>,
    #[serde(default, deserialize_with = "whole::optional")]
    max_tokens: Option<usize>,
    #[serde(default, deserialize_with = "whole::optional")]
    max_completion_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "whole::optional")]
    seed: Option<i64>,
    #[serde(default, deserialize_with = "whole::optional")]
    n: Option<u32>,
    stop: Option<Stop>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    user: Option<String>,
    priority: Option<Urgency>,
    #[serde(default, deserialize_with = "whole::optional")]
    deadline_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Texts that end the answer, and are not part of it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "stop must be text, or a list of texts")]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Message {
    role: Role,
    content: Option<Content>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
}

/// Text, or parts; read one by one, so that many are refused before they are kept.
#[derive(Debug)]
struct Content(Vec<Part>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Parts)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text, or a list of at most {MOST_PARTS} parts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content(vec![Part::Text { text: text.to_owned() }]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut all = Vec::new();
        while let Some(part) = parts.next_element()? {
            if all.len() == MOST_PARTS {
                return Err(de::Error::invalid_length(all.len() + 1, &self));
            }
            all.push(part);
        }
        Ok(Content(all))
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

/// An address, in an object or bare.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "image_url must be an object with a url, or text")]
enum ImageUrl {
    Object { url: String },
    Bare(String),
}

/// `POST /v1/chat/completions`.
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Chat>,
) -> Result<Response, ApiError> {
    let terms = request.terms(false).of(&app, &caller)?;
    let stream = request.stream.unwrap_or(false);
    let usage = request.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false);
    let waiting = Waiting::submit(&app, request.work(&app).await?, terms)?;
    if stream {
        return Ok(streamed(waiting, WordTeller { usage, begun: false, said: 0 }));
    }
    let output = waiting.outcome().await?;
    Ok(axum::Json(response(waiting.job(), &output)?).into_response())
}

/// A response with words.
///
/// # Errors
/// The job was not about words.
pub fn response(job: &Job, output: &Output) -> Result<Value, ApiError> {
    let Output::Words { text, cut_off, tokens, times } = output else {
        return Err(ApiError::failed("the job gave no words"));
    };
    Ok(json!({
        "id": name(job), "object": "chat.completion", "created": seconds(job.created), "model": job.pack,
        "choices": [{
            "index": 0, "finish_reason": reason(*cut_off), "logprobs": null,
            "message": { "role": "assistant", "content": text, "refusal": null },
        }],
        "usage": usage(*tokens), "timings": times,
    }))
}

fn name(job: &Job) -> String {
    format!("chatcmpl-{}", job.id.as_str())
}

fn reason(cut_off: bool) -> &'static str {
    if cut_off { "length" } else { "stop" }
}

fn usage([prompt, said]: [usize; 2]) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said })
}

impl Chat {
    /// Its terms.
    pub fn terms(&self, keep: bool) -> AskedTerms<'_> {
        let (priority, deadline_s) = (self.priority, self.deadline_s);
        AskedTerms { user: self.user.as_deref(), priority, deadline_s, keep }
    }

    /// The work.
    ///
    /// # Errors
    /// What is not taken, and images that cannot be read.
    pub async fn work(self, app: &Arc<App>) -> Result<Work, ApiError> {
        let pack = asked::pack(app, self.model.as_deref(), false)?.name.clone();
        let refuse = |param, message: String| Err(ApiError::invalid(Some(param), message));
        if self.n.is_some_and(|n| n != 1) {
            return refuse("n", "one answer is given: n must be 1".into());
        }
        let most = self.max_completion_tokens.or(self.max_tokens).unwrap_or(USUAL_MOST);
        let given = [self.max_completion_tokens, self.max_tokens].into_iter().flatten();
        if given.chain([most]).any(|most| !(1..=MOST_TOKENS).contains(&most)) {
            return refuse("max_tokens", format!("max_tokens must be 1 to {MOST_TOKENS}"));
        }
        if !(1..=MOST_MESSAGES).contains(&self.messages.len()) {
            return refuse("messages", format!("there must be 1 to {MOST_MESSAGES} messages"));
        }
        let temperature = self.temperature.unwrap_or(0.0);
        if !(0.0..=2.0).contains(&temperature) {
            return refuse("temperature", "temperature must be 0 to 2".into());
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top_p", "top_p must be above 0, and at most 1".into());
        }
        let seed = match self.seed {
            None | Some(-1) => crate::random::seed(),
            Some(seed @ 0..=asked::LARGEST_SEED) => seed as u64,
            Some(_) => return refuse("seed", "seed must be -1 to 2^53 - 1".into()),
        };
        let stops = match self.stop {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop],
            Some(Stop::Several(stops)) => stops,
        };
        if stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
            return refuse("stop", format!("stop may have {MOST_STOPS} texts, none of them empty"));
        }
        let sampling = Sampling { temperature, top_p, seed, ..Sampling::default() };
        if !matches!(self.messages.last(), Some(Message { role: Role::User, .. })) {
            return Err(ApiError::impossible(
                Some("messages"),
                "the last message must be the user's: it is the one that is answered",
            ));
        }
        let mut said = Vec::new();
        let mut seen = Seen::default();
        for message in self.messages {
            said.push(message.said(app, &mut seen).await?);
        }
        Ok(Work::Describe(Describe { pack, said, most, sampling, stops }))
    }
}

/// Images so far.
#[derive(Default)]
struct Seen {
    images: usize,
    pixels: u64,
}

impl Message {
    async fn said(self, app: &Arc<App>, seen: &mut Seen) -> Result<Said, ApiError> {
        let limits = &app.options.limits;
        let speaker = match self.role {
            Role::System | Role::Developer => Speaker::System,
            Role::User => Speaker::User,
            Role::Assistant => Speaker::Assistant,
        };
        let Content(parts) = self.content.unwrap_or(Content(Vec::new()));
        let (mut text, mut images) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text { text: more } => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text += &more;
                }
                Part::ImageUrl { image_url } => {
                    seen.images += 1;
                    if seen.images > limits.images {
                        let message = format!("at most {} images are taken", limits.images);
                        return Err(ApiError::invalid(Some("messages"), message));
                    }
                    let (ImageUrl::Object { url } | ImageUrl::Bare(url)) = image_url;
                    let (file, pixels) = image(app, &url).await?;
                    seen.pixels += pixels;
                    if seen.pixels > limits.pixels * LARGE_IMAGES {
                        let most = limits.pixels * LARGE_IMAGES;
                        let message = format!("the images have more than {most} pixels together");
                        return Err(ApiError::invalid(Some("messages"), message));
                    }
                    images.push(file);
                }
            }
        }
        if text.chars().count() > limits.prompt {
            let message = format!("a message has more than {} characters", limits.prompt);
            return Err(ApiError::invalid(Some("messages"), message));
        }
        if speaker != Speaker::User && !images.is_empty() {
            let message = "only the user's messages have images";
            return Err(ApiError::impossible(Some("messages"), message));
        }
        if text.is_empty() && images.is_empty() {
            return Err(ApiError::impossible(Some("messages"), "a message is empty"));
        }
        Ok(Said { speaker, text, images })
    }
}

/// The file in a data URL, which is an image. It waits as it came: what it takes in memory is many times that. Other addresses are not followed: the server fetches nothing.
async fn image(app: &Arc<App>, url: &str) -> Result<(Bytes, u64), ApiError> {
    let refuse = |message: &str| ApiError::invalid(Some("messages"), message);
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let Some((_, text)) = data else {
        return Err(refuse(
            "image_url must be a data URL (data:image/png;base64,...): the server fetches nothing",
        ));
    };
    let text = text.trim().to_owned();
    read(app, move |app| {
        let bytes = BASE64_STANDARD.decode(text);
        let bytes = Bytes::from(bytes.map_err(|_| refuse("image_url is not base64"))?);
        let seen = Rgb::from_file_within(&bytes, app.options.limits.pixels);
        let seen = seen.map_err(|error| match error {
            ImageError::File(rockshard::ImageFileError::Decode(_)) => {
                refuse("image_url: damaged, or not PNG, JPEG or WebP")
            }
            other => refuse(&other.to_string()),
        })?;
        Ok((bytes, seen.width as u64 * seen.height as u64))
    })
    .await
}

/// Tells of words as they come.
struct WordTeller {
    /// Whether tokens are counted at the end.
    usage: bool,
    begun: bool,
    /// Bytes of the words that were told.
    said: usize,
}

impl Teller for WordTeller {
    fn tell(&mut self, job: &Job, state: &JobState, events: &mut VecDeque<Event>) {
        let mut push = |value: &Value| events.push_back(Event::default().data(value.to_string()));
        if !self.begun {
            push(&chunk(job, &json!({ "role": "assistant", "content": "" }), None));
            self.begun = true;
        }
        if let Some(words) = state.words.get(self.said..).filter(|words| !words.is_empty()) {
            push(&chunk(job, &json!({ "content": words }), None));
            self.said = state.words.len();
        }
        match &state.outcome {
            Some(Ok(output)) => {
                let Output::Words { cut_off, tokens, .. } = &**output else { return };
                push(&chunk(job, &json!({}), Some(reason(*cut_off))));
                if self.usage {
                    let mut last = head(job);
                    last["choices"] = json!([]);
                    last["usage"] = usage(*tokens);
                    push(&last);
                }
            }
            Some(Err(failure)) => push(&ApiError::from(failure.clone()).json()),
            None => return,
        }
        events.push_back(Event::default().data("[DONE]"));
    }
}

fn head(job: &Job) -> Value {
    json!({
        "id": name(job), "object": "chat.completion.chunk",
        "created": seconds(job.created), "model": job.pack,
    })
}

fn chunk(job: &Job, delta: &Value, reason: Option<&str>) -> Value {
    let mut chunk = head(job);
    chunk["choices"] = json!([{ "index": 0, "delta": delta, "finish_reason": reason }]);
    chunk
}
