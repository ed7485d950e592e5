//! What is sent: text messages in JSON, and binary ones for frames and pictures, whose headers are big-endian.

use serde::{Deserialize, Serialize};

/// The version of the headers and of the messages.
pub const VERSION: u8 = 1;
/// Bytes of a frame's header, and of a picture's.
pub const FRAME_HEADER: usize = 16;
const PICTURE_HEADER: usize = 24;
const FRAME: u8 = 1;
const PICTURE: u8 = 2;
/// Flags of a picture: it repeats the one before, because its frame was like it; it is not finished.
pub const SKIPPED: u16 = 1;
pub const UNFINISHED: u16 = 2;

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Said {
    /// The first message.
    Start(Box<Start>),
    /// Draw otherwise from now on.
    Settings(Box<Change>),
}

/// What is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Words alone.
    Text,
    /// Frames.
    Pictures,
}

/// A session that is asked for.
#[derive(Debug, Deserialize)]
pub struct Start {
    /// What is drawn from.
    pub source: Source,
    /// The model; `None` is the first that draws.
    pub model: Option<String>,
    /// `WIDTHxHEIGHT`; `None` is the model's first.
    pub size: Option<String>,
    /// `jpeg`, `png` or `webp`.
    pub format: Option<String>,
    /// The token of a session that was lost.
    pub resume: Option<String>,
    /// What is drawn at first.
    #[serde(flatten)]
    pub change: Change,
}

/// Settings; those that are absent stay as they are.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Change {
    /// What to draw.
    pub prompt: Option<String>,
    /// What to keep away from.
    pub negative_prompt: Option<String>,
    /// Seed.
    pub seed: Option<u64>,
    /// How much of a frame may change.
    pub strength: Option<f64>,
    /// Guidance scale.
    pub guidance_scale: Option<f64>,
    /// Steps.
    pub steps: Option<u32>,
    /// Frames that are at least this like the last one are not drawn, 0 to 1; 0 draws all.
    pub similarity: Option<f64>,
}

/// What the server says.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Told {
    /// There is no place yet.
    Queued {
        /// Place in line, counted from 1.
        position: usize,
        /// About how many seconds that takes; `None` where nothing is known.
        wait_s: Option<f64>,
    },
    /// The session has begun, or goes on.
    Hello {
        /// Version of all this.
        protocol: u8,
        /// What to send to go on with it when the connection is lost.
        resume: String,
        /// Whether it goes on.
        resumed: bool,
        /// How long it is kept then, in seconds.
        resume_seconds: u64,
        /// The model.
        model: String,
        /// Width of the pictures in pixels.
        width: u32,
        /// Height.
        height: u32,
        /// Frames that may be unanswered.
        credits: usize,
        /// Number of the settings.
        generation: u64,
    },
    /// Settings are in force for what is drawn from now on.
    Settings {
        /// Their number: pictures have it, older ones are stale.
        generation: u64,
        /// Tokens that the prompt has lost.
        dropped_tokens: usize,
    },
    /// A frame is not drawn, because a newer one came.
    Dropped {
        /// Its number.
        seq: u32,
    },
    /// What has happened so far.
    Stats {
        /// Frames that came.
        received: u64,
        /// Of these, drawn.
        drawn: u64,
        /// Replaced by newer ones.
        dropped: u64,
        /// Like the one before.
        skipped: u64,
    },
    /// Something cannot be done.
    Error {
        /// For programs.
        code: String,
        /// For people.
        message: String,
        /// Whether the session is over.
        fatal: bool,
    },
}

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number, the client's.
    pub seq: u32,
    /// The client's time, which is sent back.
    pub client_time: u64,
    /// A PNG, JPEG or WebP file.
    pub file: bytes::Bytes,
}

/// A picture that goes out.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Number of its frame; 0 where it has none.
    pub seq: u32,
    /// Number of the settings that it was drawn with.
    pub generation: u64,
    /// Microseconds from the frame's arrival, or the settings', to the picture.
    pub latency_us: u64,
    /// The frame's time.
    pub client_time: u64,
    /// [`SKIPPED`], [`UNFINISHED`].
    pub flags: u16,
    /// The file.
    pub file: Vec<u8>,
}

impl Frame {
    /// From a binary message; `None` where it is none.
    pub fn parse(message: &bytes::Bytes) -> Option<Self> {
        let header = message.get(..FRAME_HEADER)?;
        if header[0] != VERSION || header[1] != FRAME {
            return None;
        }
        Some(Frame {
            seq: u32::from_be_bytes(header[4..8].try_into().ok()?),
            client_time: u64::from_be_bytes(header[8..16].try_into().ok()?),
            file: message.slice(FRAME_HEADER..),
        })
    }
}

impl Drawn {
    /// As a binary message.
    pub fn message(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PICTURE_HEADER + self.file.len());
        out.extend([VERSION, PICTURE]);
        out.extend(self.flags.to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend((self.generation as u32).to_be_bytes());
        out.extend(u32::try_from(self.latency_us).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(self.client_time.to_be_bytes());
        out.extend(&self.file);
        out
    }
}

impl Change {
    /// Both, the newer one over the older.
    pub fn over(self, older: Change) -> Change {
        Change {
            prompt: self.prompt.or(older.prompt),
            negative_prompt: self.negative_prompt.or(older.negative_prompt),
            seed: self.seed.or(older.seed),
            strength: self.strength.or(older.strength),
            guidance_scale: self.guidance_scale.or(older.guidance_scale),
            steps: self.steps.or(older.steps),
            similarity: self.similarity.or(older.similarity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_written() {
        let mut message = vec![1, 1, 0, 0];
        message.extend(7u32.to_be_bytes());
        message.extend(9u64.to_be_bytes());
        message.extend(b"file");
        let frame = Frame::parse(&message.clone().into()).unwrap();
        assert_eq!((frame.seq, frame.client_time, &frame.file[..]), (7, 9, &b"file"[..]));
        assert!(Frame::parse(&message[..15].to_vec().into()).is_none());
        message[1] = 2;
        assert!(Frame::parse(&message.into()).is_none());
        let drawn = Drawn {
            seq: 7,
            generation: 3,
            latency_us: 5,
            client_time: 9,
            flags: SKIPPED,
            file: b"x".to_vec(),
        };
        let mut expected = vec![1, 2, 0, 1, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 5];
        expected.extend(9u64.to_be_bytes());
        expected.push(b'x');
        assert_eq!(drawn.message(), expected);
    }
}
