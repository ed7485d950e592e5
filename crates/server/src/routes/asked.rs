//! From what was asked, in whichever API, to work for the queue. Everything that can be refused without a core is refused here.

use crate::app::App;
use crate::http::{ApiError, Caller};
use crate::packs::{Kind, ServedPack};
use crate::work::{Draw, PictureFormat, Terms, Work};
use rockshard::{
    Drawable, DrawingError, Error, InitialPicture, Mask, Picture, PictureError, Priority, Request,
    SamplerError, SamplerName,
};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Most steps that are taken.
pub const MOST_STEPS: usize = 150;
/// Largest seed that is given back as it came: JSON's numbers are exact below 2^53.
pub const LARGEST_SEED: i64 = (1 << 53) - 1;
/// Largest guidance scale.
pub const MOST_GUIDANCE: f64 = 100.0;
/// Longest deadline, in seconds.
pub const LONGEST_DEADLINE: u64 = 3600;
/// Strength of changes where a request does not say.
pub const USUAL_STRENGTH: f64 = 0.6;

/// A picture's size, as a request names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// The model's first.
    #[default]
    Auto,
    /// Width and height in pixels.
    Of([u32; 2]),
}

impl Size {
    /// From `auto` or `WIDTHxHEIGHT`.
    ///
    /// # Errors
    /// Other text.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text == "auto" {
            return Ok(Size::Auto);
        }
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let sides = text.split_once('x').and_then(|(w, h)| Some([number(w)?, number(h)?]));
        let message = || format!("size is {text:?}; it must be WIDTHxHEIGHT or auto");
        sides.map(Size::Of).ok_or_else(|| ApiError::invalid(Some("size"), message()))
    }
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// Nobody waits.
    Low,
    /// The usual one.
    Normal,
    /// Somebody is looking.
    High,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::Low => Priority::Low,
            Urgency::Normal => Priority::Normal,
            Urgency::High => Priority::High,
        }
    }
}

/// Pictures that are asked for.
#[derive(Default)]
pub struct Asked {
    /// The model; `None` is the first that draws.
    pub model: Option<String>,
    /// What to draw.
    pub prompt: String,
    /// What to keep away from.
    pub negative: Option<String>,
    /// Pictures; `None` is one.
    pub count: Option<u32>,
    /// Their size.
    pub size: Size,
    /// Seed; `None` and -1 are a random one.
    pub seed: Option<i64>,
    /// Steps; `None` is the usual number.
    pub steps: Option<u32>,
    /// Guidance scale; `None` is the usual one.
    pub guidance: Option<f64>,
    /// Sampler; `None` is the model's own.
    pub sampler: Option<SamplerName>,
    /// How much of the picture may change.
    pub strength: Option<f64>,
    /// Picture to start from.
    pub picture: Option<Picture>,
    /// Where it may change.
    pub mask: Option<Mask>,
    /// How often unfinished pictures are shown.
    pub previews: u32,
    /// How pictures are encoded.
    pub format: PictureFormat,
}

/// Terms that a request names.
#[derive(Clone, Copy, Debug, Default)]
pub struct AskedTerms<'a> {
    /// Somebody whom the client asks for.
    pub user: Option<&'a str>,
    /// How urgent it is.
    pub priority: Option<Urgency>,
    /// Seconds after which nobody waits for it any more.
    pub deadline_s: Option<u64>,
    /// Whether what comes of it is kept.
    pub keep: bool,
}

impl AskedTerms<'_> {
    /// The terms, for one who asks.
    ///
    /// # Errors
    /// A deadline of 0, or one that is too far.
    pub fn of(self, app: &App, caller: &Caller) -> Result<Terms, ApiError> {
        let deadline = match self.deadline_s {
            None => app.options.limits.deadline,
            Some(seconds @ 1..=LONGEST_DEADLINE) => Duration::from_secs(seconds),
            Some(seconds) => {
                let message =
                    format!("deadline_s is {seconds}; it must be 1 to {LONGEST_DEADLINE}");
                return Err(ApiError::invalid(Some("deadline_s"), message));
            }
        };
        Ok(Terms {
            client: caller.user(self.user),
            priority: self.priority.map_or(Priority::Normal, Priority::from),
            deadline: Some(Instant::now() + deadline),
            keep: self.keep,
        })
    }
}

/// The pack that a request names, or the first of its kind.
///
/// # Errors
/// There is none.
pub fn pack<'a>(app: &'a App, name: Option<&str>, draws: bool) -> Result<&'a ServedPack, ApiError> {
    let kind = if draws { "draws pictures" } else { "describes pictures" };
    let Some(name) = name else {
        return app.first(draws).ok_or_else(|| {
            ApiError::no_model(format!("no model here {kind}: the server was started without one"))
        });
    };
    let fits = |pack: &&ServedPack| matches!(pack.kind, Kind::Draws(_)) == draws;
    if let Some(pack) = app.studio.packs.find(name).filter(fits) {
        return Ok(pack);
    }
    let known: Vec<&str> = app.packs().iter().filter(fits).map(|pack| pack.name.as_str()).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(ApiError::no_model(format!("no model called {name:?} {kind} here; there is {known}")))
}

impl Asked {
    /// The work.
    ///
    /// # Errors
    /// What the model cannot do, and what is beyond the server's limits.
    pub fn work(self, app: &App) -> Result<Work, ApiError> {
        let limits = &app.options.limits;
        let served = pack(app, self.model.as_deref(), true)?;
        let Kind::Draws(sizes) = &served.kind else {
            return Err(ApiError::no_model(format!("{} does not draw", served.name)));
        };
        check_length("prompt", &self.prompt, limits.prompt)?;
        let negative = self.negative.filter(|text| !text.is_empty());
        if let Some(negative) = &negative {
            check_length("negative_prompt", negative, limits.prompt)?;
        }
        let count = self.count.unwrap_or(1);
        if !(1..=limits.pictures).contains(&count) {
            let message = format!("n is {count}; it must be 1 to {}", limits.pictures);
            return Err(ApiError::invalid(Some("n"), message));
        }
        if self.steps.is_some_and(|steps| !(1..=MOST_STEPS as u32).contains(&steps)) {
            let message = format!("there must be 1 to {MOST_STEPS} steps");
            return Err(ApiError::invalid(Some("steps"), message));
        }
        if self.strength.is_some_and(|strength| !(strength > 0.0 && strength <= 1.0)) {
            let message = "strength must be above 0, and at most 1";
            return Err(ApiError::invalid(Some("strength"), message));
        }
        if self.guidance.is_some_and(|guidance| !(0.0..=MOST_GUIDANCE).contains(&guidance)) {
            let message = format!("the guidance scale must be 0 to {MOST_GUIDANCE}");
            return Err(ApiError::invalid(Some("guidance_scale"), message));
        }
        if self.mask.as_ref().is_some_and(Mask::keeps_all) {
            let message = "the mask lets nothing change: what is to change must be transparent in it (white in A1111's)";
            return Err(ApiError::impossible(Some("mask"), message));
        }
        let drawable = drawable(sizes, self.size)?;
        let seed = match self.seed {
            None | Some(-1) => crate::random::seed(),
            Some(seed @ 0..=LARGEST_SEED) => seed as u64,
            Some(seed) => {
                let message = format!("seed is {seed}; it must be -1 to {LARGEST_SEED}");
                return Err(ApiError::invalid(Some("seed"), message));
            }
        };
        let usual = drawable.request(&self.prompt, self.sampler).map_err(|e| of_error(&e))?;
        let strength = self.strength.unwrap_or(USUAL_STRENGTH);
        let mask = self.mask;
        let request = Request {
            negative_prompt: negative,
            steps: self.steps.map_or(usual.steps, |steps| steps as usize),
            guidance: self.guidance.unwrap_or(usual.guidance),
            seed,
            count,
            initial: self.picture.map(|picture| InitialPicture { picture, strength, mask }),
            previews: self.previews,
            ..usual
        };
        drawable.check(&request).map_err(|e| of_error(&e))?;
        let request =
            Request { initial: request.initial.map(|i| shrunk(i, drawable.size())), ..request };
        let draw = Draw { pack: served.name.clone(), request, format: self.format };
        Ok(Work::Draw(Box::new(draw)))
    }
}

/// A picture as it will be needed: large ones do not wait for their turn.
fn shrunk(initial: InitialPicture, [width, height]: [u32; 2]) -> InitialPicture {
    InitialPicture {
        picture: initial.picture.resized(width, height),
        mask: initial.mask.map(|mask| mask.at_size(width, height)),
        ..initial
    }
}

/// A pack at a size.
///
/// # Errors
/// It was not converted for that.
pub fn drawable(sizes: &[Drawable], size: Size) -> Result<&Drawable, ApiError> {
    let found = match size {
        Size::Auto => sizes.first(),
        Size::Of(size) => sizes.iter().find(|d| d.size() == size),
    };
    found.ok_or_else(|| {
        let known = sizes.iter().map(|d| d.size()).map(|[w, h]| format!("{w}x{h}"));
        let known = known.collect::<Vec<_>>().join(", ");
        ApiError::invalid(Some("size"), format!("this model draws {known} and no other size"))
    })
}

/// Refuse text that is too long.
///
/// # Errors
/// It has more characters than are taken.
pub fn check_length(name: &'static str, text: &str, most: usize) -> Result<(), ApiError> {
    let found = text.chars().count();
    if found <= most {
        return Ok(());
    }
    let message = format!("{name} has {found} characters; at most {most} are taken");
    Err(ApiError::invalid(Some(name), message))
}

/// What the library refuses, and which parameter is to blame.
pub fn of_error(error: &Error) -> ApiError {
    use DrawingError as E;
    let message = error.to_string();
    let Error::Drawing(drawing) = error else {
        return ApiError::from(crate::studio::failure(error));
    };
    match drawing {
        E::Count { .. } => ApiError::invalid(Some("n"), message),
        E::Guidance(_) => ApiError::invalid(Some("guidance_scale"), message),
        E::Multiple { .. } | E::Size { .. } => ApiError::invalid(Some("size"), message),
        E::Mask { .. } => ApiError::impossible(Some("mask"), message),
        E::InitialPicture { .. } => ApiError::invalid(Some("image"), message),
        E::MissingNetwork { .. } => {
            ApiError::impossible(Some("image"), "this model cannot start from pictures")
        }
        E::NegativePrompt | E::NegativePromptUnused(_) => {
            ApiError::impossible(Some("negative_prompt"), message)
        }
        E::Prompt(_) => ApiError::impossible(Some("prompt"), message),
        E::Sampler(SamplerError::Strength(_)) => ApiError::invalid(Some("strength"), message),
        E::Sampler(_) => ApiError::impossible(Some("steps"), message),
        _ => ApiError::from(crate::studio::failure(error)),
    }
}

/// A picture that was sent.
///
/// # Errors
/// Bytes that are not a picture, or one that is too large.
pub fn picture(app: &App, name: &'static str, bytes: &[u8]) -> Result<Picture, ApiError> {
    let picture = Picture::from_bytes_within(bytes, app.options.limits.pixels);
    picture.map_err(|e| not_a_picture(name, &e))
}

/// A mask that was sent: what is transparent in it may change.
///
/// # Errors
/// As [`picture`].
pub fn mask(app: &App, bytes: &[u8]) -> Result<Mask, ApiError> {
    let mask = Mask::from_transparency(bytes, app.options.limits.pixels);
    mask.map_err(|e| not_a_picture("mask", &e))
}

/// What is told of bytes that are no picture. What a decoder says of damaged bytes stays here: it can be about memory.
pub fn not_a_picture(name: &'static str, error: &PictureError) -> ApiError {
    use rockshard::ImageFileError as File;
    let message = match error {
        PictureError::Decode(File::Decode(inner)) => {
            tracing::debug!("{name}: {inner}");
            "damaged, or not PNG, JPEG or WebP".to_owned()
        }
        PictureError::Decode(inner) => inner.to_string(),
        other => other.to_string(),
    };
    ApiError::invalid(Some(name), format!("{name}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_numbers() {
        assert_eq!(Size::parse("auto"), Ok(Size::Auto));
        assert_eq!(Size::parse("64x48"), Ok(Size::Of([64, 48])));
        for wrong in
            ["", "64", "64x", "x64", "64x48x2", "+64x48", "64X48", "64 x48", "9999999999x1"]
        {
            assert!(Size::parse(wrong).is_err(), "{wrong}");
        }
    }
}
