//! Frames from somewhere, frames to somewhere: what `stream` reads and writes.

mod ffmpeg;
mod mjpeg;
mod sink;
mod source;

pub use sink::Sink;
pub use source::{Frame, Source};
use std::path::PathBuf;

/// Where frames come from, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// Standard input.
    Pipe,
    /// A directory of pictures, or a video file.
    Path(PathBuf),
    /// A V4L2 device.
    Camera(PathBuf),
    /// Part of an X11 screen: width, height, left, top.
    Screen([u32; 4]),
}

/// Where frames go, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Pipe,
    /// A directory.
    Folder(PathBuf),
    /// A video file.
    Video(PathBuf),
    /// A port on the loopback address; 0 is any that is free.
    Http(u16),
}

impl From {
    /// Parse what was typed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(device) = text.strip_prefix("camera:") {
            return Ok(From::Camera(device.into()));
        }
        if let Some(place) = text.strip_prefix("screen:") {
            let numbers = place.split(['x', '+']).map(str::parse).collect::<Result<Vec<u32>, _>>();
            return match numbers.as_deref() {
                Ok(&[w, h, x, y]) if w > 0 && h > 0 => Ok(From::Screen([w, h, x, y])),
                _ => Err(format!("{text:?} is not screen:WIDTHxHEIGHT+X+Y")),
            };
        }
        Ok(if text == "-" { From::Pipe } else { From::Path(text.into()) })
    }

    /// Whether frames come by themselves, wanted or not.
    pub fn is_live(&self) -> bool {
        matches!(self, From::Camera(_) | From::Screen(_))
    }
}

impl To {
    /// Parse what was typed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(port) = text.strip_prefix("http:") {
            let port = port.parse().map_err(|_| format!("{text:?} is not http:PORT"))?;
            return Ok(To::Http(port));
        }
        Ok(match text {
            "-" => To::Pipe,
            file if file.ends_with(".mp4") => To::Video(file.into()),
            folder => To::Folder(folder.into()),
        })
    }
}
