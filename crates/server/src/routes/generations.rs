//! `POST /v1/images/generations`.

use super::asked::{Asked, AskedTerms, Size, Urgency};
use super::events::streamed;
use super::pictures::{self, Links, PictureTeller};
use super::waiting::Waiting;
use crate::app::App;
use crate::http::body::SmallJson;
use crate::http::caller::Peer;
use crate::http::{ApiError, Caller, whole};
use crate::work::{PictureFormat, Terms, Work};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use rockshard::SamplerName;
use serde::{Deserialize, Deserializer};
use std::sync::Arc;

/// Most unfinished pictures of a stream: OpenAI's number.
pub const MOST_PREVIEWS: u32 = 3;
/// Quality of JPEG where a request does not say.
const USUAL_QUALITY: u8 = 90;

/// The request: OpenAI's, and what this server takes besides. What has no meaning here (`quality`, `style`, `moderation`) is ignored.
#[derive(Debug, Default, Deserialize)]
pub struct Generations {
    /// What to draw.
    pub prompt: String,
    /// The model.
    pub model: Option<String>,
    /// Pictures.
    #[serde(default, deserialize_with = "whole::optional")]
    pub n: Option<u32>,
    /// `auto` or `WIDTHxHEIGHT`.
    pub size: Option<String>,
    /// File format.
    pub output_format: Option<FormatName>,
    /// Quality of JPEG, 0 to 100.
    #[serde(default, deserialize_with = "whole::optional")]
    pub output_compression: Option<u8>,
    /// Where pictures are.
    pub response_format: Option<ResponseFormat>,
    /// Whether unfinished pictures are shown.
    pub stream: Option<bool>,
    /// How many.
    #[serde(default, deserialize_with = "whole::optional")]
    pub partial_images: Option<u32>,
    /// `transparent` is refused.
    #[serde(rename = "background")]
    pub _background: Option<Background>,
    /// Whom the client asks for.
    pub user: Option<String>,
    /// The same, by its newer name.
    pub safety_identifier: Option<String>,
    /// Seed; -1 is a random one.
    #[serde(default, deserialize_with = "whole::optional")]
    pub seed: Option<i64>,
    /// Steps.
    #[serde(alias = "num_inference_steps", default, deserialize_with = "whole::optional")]
    pub steps: Option<u32>,
    /// Guidance scale.
    #[serde(alias = "cfg_scale")]
    pub guidance_scale: Option<f64>,
    /// What to keep away from.
    pub negative_prompt: Option<String>,
    /// Sampler.
    #[serde(default, deserialize_with = "sampler")]
    pub sampler: Option<SamplerName>,
    /// How urgent it is.
    pub priority: Option<Urgency>,
    /// Seconds after which nobody waits any more.
    #[serde(default, deserialize_with = "whole::optional")]
    pub deadline_s: Option<u64>,
}

/// File formats.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatName {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    Webp,
}

/// Where pictures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// In the response.
    B64Json,
    /// At an address, for ten minutes.
    Url,
}

/// What is behind a picture.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// It has none.
    Opaque,
    /// As the model likes.
    Auto,
}

/// A sampler by its name here, or by A1111's.
pub fn sampler<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SamplerName>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
    named_sampler(&name).map(Some).map_err(serde::de::Error::custom)
}

/// A sampler by its name here, or by A1111's.
///
/// # Errors
/// There is none of that name.
pub fn named_sampler(name: &str) -> Result<SamplerName, String> {
    let titled = SamplerName::ALL.into_iter().find(|s| s.title().eq_ignore_ascii_case(name));
    titled.map_or_else(|| name.parse(), Ok)
}

impl FormatName {
    /// The format, JPEG with a quality of 0 to 100.
    ///
    /// # Errors
    /// A quality above 100.
    pub fn format(name: Option<Self>, quality: Option<u8>) -> Result<PictureFormat, ApiError> {
        if quality.is_some_and(|quality| quality > 100) {
            let message = "output_compression must be 0 to 100";
            return Err(ApiError::invalid(Some("output_compression"), message));
        }
        let quality = quality.map_or(USUAL_QUALITY, |quality| quality.max(1));
        Ok(match name {
            None | Some(FormatName::Png) => PictureFormat::Png,
            Some(FormatName::Jpeg) => PictureFormat::Jpeg(quality),
            Some(FormatName::Webp) => PictureFormat::WebP,
        })
    }
}

/// How a client wants its pictures.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// As they come.
    pub stream: bool,
    /// At addresses.
    pub urls: bool,
}

impl Delivery {
    /// From the fields that say so; gives the number of unfinished pictures too.
    ///
    /// # Errors
    /// Too many unfinished pictures, or a stream of several pictures or of addresses.
    pub fn of(
        stream: Option<bool>,
        partial: Option<u32>,
        place: Option<ResponseFormat>,
        count: Option<u32>,
    ) -> Result<(Self, u32), ApiError> {
        let refuse = |param, message: &str| Err(ApiError::invalid(Some(param), message));
        let stream = stream.unwrap_or(false);
        let urls = place == Some(ResponseFormat::Url);
        let partial = partial.unwrap_or(0);
        if partial > MOST_PREVIEWS {
            return refuse("partial_images", "partial_images must be 0 to 3");
        }
        if stream && count.is_some_and(|count| count > 1) {
            return Err(ApiError::impossible(Some("n"), "a stream has one picture: n must be 1"));
        }
        if stream && urls {
            let message = "a stream has its pictures within: leave response_format out";
            return Err(ApiError::impossible(Some("response_format"), message));
        }
        Ok((Delivery { stream, urls }, if stream { partial } else { 0 }))
    }

    /// Draw, and give the pictures.
    ///
    /// # Errors
    /// Why not.
    pub async fn respond(
        self,
        app: &App,
        (work, terms): (Work, Terms),
        prefix: &'static str,
        links: Links,
    ) -> Result<Response, ApiError> {
        let Work::Draw(draw) = &work else {
            return Err(ApiError::failed("only drawing gives pictures"));
        };
        let (format, size) = (draw.format, [draw.request.width, draw.request.height]);
        let waiting = Waiting::submit(app, work, terms)?;
        if self.stream {
            let teller = PictureTeller::new(prefix, format, size);
            return Ok(streamed(waiting, teller));
        }
        let output = waiting.outcome().await?;
        if !self.urls {
            waiting.job().set_fetched();
        }
        let links = self.urls.then_some(&links);
        Ok(axum::Json(pictures::response(waiting.job(), &output, links)?).into_response())
    }
}

impl Generations {
    /// What is asked for; `previews` is how often unfinished pictures are shown.
    ///
    /// # Errors
    /// Values that are not taken.
    pub fn asked(&self, previews: u32) -> Result<Asked, ApiError> {
        Ok(Asked {
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            negative: self.negative_prompt.clone(),
            count: self.n,
            size: self.size.as_deref().map_or(Ok(Size::Auto), Size::parse)?,
            seed: self.seed,
            steps: self.steps,
            guidance: self.guidance_scale,
            sampler: self.sampler,
            previews,
            format: FormatName::format(self.output_format, self.output_compression)?,
            ..Asked::default()
        })
    }

    /// Its terms.
    pub fn terms(&self, keep: bool) -> AskedTerms<'_> {
        AskedTerms {
            user: self.safety_identifier.as_deref().or(self.user.as_deref()),
            priority: self.priority,
            deadline_s: self.deadline_s,
            keep,
        }
    }
}

/// `POST /v1/images/generations`.
pub async fn generations(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    SmallJson(request): SmallJson<Generations>,
) -> Result<Response, ApiError> {
    let Generations { stream, partial_images, response_format, n, .. } = request;
    let (delivery, previews) = Delivery::of(stream, partial_images, response_format, n)?;
    let work = request.asked(previews)?.work(&app)?;
    let terms = request.terms(delivery.urls).of(&app, &caller)?;
    let links = links(peer, &headers);
    delivery.respond(&app, (work, terms), "image_generation", links).await
}

/// The server's address as a client sees it. A proxy on this machine says where it is itself.
pub fn links(peer: Peer, headers: &HeaderMap) -> Links {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let told = |name: &str| text(name).filter(|_| peer.is_local());
    let secure = match told("x-forwarded-proto") {
        Some(scheme) => scheme == "https",
        None => peer.is_secure(),
    };
    let scheme = if secure { "https" } else { "http" };
    let plain = |text: &&str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let host = told("x-forwarded-host").or(text(header::HOST.as_str()));
    let host = host.filter(|host| plain(host, "-.:[]")).unwrap_or("localhost");
    let prefix = told("x-forwarded-prefix").filter(|prefix| plain(prefix, "-._~/"));
    let prefix = prefix.unwrap_or("").trim_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    Links { base: format!("{scheme}://{host}/{prefix}{slash}") }
}
