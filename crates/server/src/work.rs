//! What is asked of the board, and what comes of it: plain data, which a queue may take anywhere.

use rockshard::{Parameters, Priority, Request, Sampling, Speaker};
use std::time::Instant;

/// Pictures from a picture that are drawn together.
const FROM_PICTURE: u32 = 3;

/// Something to do with a pack.
#[derive(Clone, Debug)]
pub enum Work {
    /// Pictures.
    Draw(Box<Draw>),
    /// Words about pictures.
    Describe(Describe),
}

/// Pictures to draw.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Name of the pack.
    pub pack: String,
    /// What to draw; it was checked for the pack.
    pub request: Request,
    /// How finished and unfinished pictures are encoded.
    pub format: PictureFormat,
}

/// A conversation to go on with.
#[derive(Clone, Debug)]
pub struct Describe {
    /// Name of the pack.
    pub pack: String,
    /// What was said, the question last.
    pub said: Vec<Said>,
    /// Most tokens to say.
    pub most: usize,
    /// How words are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer, and are not part of it.
    pub stops: Vec<String>,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Said {
    /// By whom.
    pub speaker: Speaker,
    /// Words.
    pub text: String,
    /// Images: PNG, JPEG or WebP files that were looked at already.
    pub images: Vec<bytes::Bytes>,
}

/// File formats of pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureFormat {
    /// PNG.
    #[default]
    Png,
    /// JPEG of a quality from 1 to 100.
    Jpeg(u8),
    /// WebP without loss.
    WebP,
}

impl PictureFormat {
    /// The name that requests have.
    pub fn name(self) -> &'static str {
        match self {
            PictureFormat::Png => "png",
            PictureFormat::Jpeg(_) => "jpeg",
            PictureFormat::WebP => "webp",
        }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            PictureFormat::Png => "image/png",
            PictureFormat::Jpeg(_) => "image/jpeg",
            PictureFormat::WebP => "image/webp",
        }
    }
}

/// For whom a work is done, and until when.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Who asks; work of different clients gets equal shares.
    pub client: String,
    /// Its share beside others.
    pub priority: Priority,
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// Whether what comes of it is kept for who asks later.
    pub keep: bool,
}

impl Work {
    /// Name of the pack that it is for.
    pub fn pack(&self) -> &str {
        match self {
            Work::Draw(draw) => &draw.pack,
            Work::Describe(describe) => &describe.pack,
        }
    }

    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Work::Draw(_) => "draw",
            Work::Describe(_) => "describe",
        }
    }

    /// What it costs beside other work, about as many steps of the U-Net.
    pub fn cost(&self) -> f64 {
        match self {
            Work::Draw(draw) => {
                let request = &draw.request;
                let strength = request.initial.as_ref().map_or(1.0, |initial| initial.strength);
                let steps =
                    (request.steps as f64 * strength).max(1.0) + f64::from(request.previews);
                f64::from(request.count) * steps
            }
            Work::Describe(Describe { said, most, .. }) => {
                let images: usize = said.iter().map(|s| s.images.len()).sum();
                4.0 + 4.0 * images as f64 + *most as f64 / 16.0
            }
        }
    }

    /// The parts in which it is done, in their order: pictures by themselves. Pictures from a picture go by threes, since it is encoded for each part.
    pub fn parts(&self) -> Vec<Work> {
        let Work::Draw(draw) = self else { return vec![self.clone()] };
        let together = if draw.request.initial.is_some() { FROM_PICTURE } else { 1 };
        let part = |at: u32| {
            let count = together.min(draw.request.count - at);
            let seed = draw.request.seed.wrapping_add(u64::from(at));
            let request = Request { count, seed, ..draw.request.clone() };
            Work::Draw(Box::new(Draw { request, ..(**draw).clone() }))
        };
        (0..draw.request.count).step_by(together as usize).map(part).collect()
    }

    /// Bytes that it holds while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Work::Draw(draw) => {
                let initial = draw.request.initial.as_ref();
                draw.request.prompt.len() + initial.map_or(0, |initial| initial.picture.rgb.len())
            }
            Work::Describe(describe) => {
                let said = |said: &Said| {
                    said.text.len() + said.images.iter().map(bytes::Bytes::len).sum::<usize>()
                };
                describe.said.iter().map(said).sum()
            }
        }
    }

    /// Steps of each picture; 0 for words.
    pub fn steps(&self) -> usize {
        match self {
            Work::Draw(draw) => draw.request.steps,
            Work::Describe(_) => 0,
        }
    }

    /// Pieces in which progress is counted: the steps of each part, its prompt, and its pixels.
    pub fn pieces(&self) -> usize {
        match self {
            Work::Draw(draw) => self.parts().len() * (draw.request.steps + 2),
            Work::Describe(describe) => describe.most,
        }
    }
}

/// An encoded picture.
#[derive(Clone, Debug)]
pub struct EncodedPicture {
    /// The file.
    pub bytes: bytes::Bytes,
    /// Its seed.
    pub seed: u64,
    /// What it was made with.
    pub parameters: Option<Parameters>,
}

/// What came of a work.
#[derive(Clone, Debug)]
pub enum Output {
    /// Pictures.
    Pictures {
        /// By ascending seed.
        pictures: Vec<EncodedPicture>,
        /// Their format.
        format: PictureFormat,
        /// Width and height in pixels.
        size: [u32; 2],
        /// Tokens that the prompt has lost, because the text encoder has no room for them.
        dropped_tokens: usize,
        /// What it took.
        times: Times,
    },
    /// Words.
    Words {
        /// What was said.
        text: String,
        /// Whether it was cut off.
        cut_off: bool,
        /// Tokens of the conversation, and of the answer.
        tokens: [usize; 2],
        /// What it took.
        times: Times,
    },
}

/// What a work took.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Times {
    /// Measured milliseconds on this machine, without waiting.
    pub measured_ms: f64,
    /// Modelled milliseconds of the NPU for each part of it by itself, summed; `None` where the device models nothing.
    pub modelled_ms: Option<f64>,
}

impl Times {
    /// Since a time.
    pub fn since(start: Instant, modelled_ms: Option<f64>) -> Self {
        Times { measured_ms: start.elapsed().as_secs_f64() * 1e3, modelled_ms }
    }
}

impl Output {
    /// Bytes that it holds while it is kept.
    pub fn bytes(&self) -> usize {
        match self {
            Output::Pictures { pictures, .. } => pictures.iter().map(|p| p.bytes.len()).sum(),
            Output::Words { text, .. } => text.len(),
        }
    }
}

/// Why a work was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// What happened, for the client.
    pub message: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request cannot be done.
    Refused,
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline passed.
    TooLate,
    /// The device, or the pack on it, failed.
    Device,
}

impl FailureKind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            FailureKind::Refused => "refused",
            FailureKind::Cancelled => "cancelled",
            FailureKind::TooLate => "too_late",
            FailureKind::Device => "failed",
        }
    }
}
