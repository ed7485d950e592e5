//! Where frames go.

use super::To;
use super::ffmpeg::Ffmpeg;
use super::mjpeg::Mjpeg;
use anyhow::{Context, Result};
use rockshard::Picture;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};

/// Frames a second of a video for which none were asked.
const USUAL_RATE: f64 = 10.0;

/// A sink of frames.
pub enum Sink {
    /// One PNG a frame.
    Folder(PathBuf),
    /// Raw RGB on standard output.
    Pipe,
    /// A video, by ffmpeg.
    Video { ffmpeg: Ffmpeg, input: Option<ChildStdin>, name: String },
    /// A page on the loopback address.
    Http(Mjpeg),
}

impl Sink {
    /// Open it for frames of a size.
    pub fn open(to: &To, [width, height]: [u32; 2], fps: Option<f64>) -> Result<Self> {
        match to {
            To::Pipe => Ok(Sink::Pipe),
            To::Folder(folder) => {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                Ok(Sink::Folder(folder.clone()))
            }
            To::Http(port) => Ok(Sink::Http(Mjpeg::open(*port)?)),
            To::Video(path) => {
                let rate = fps.unwrap_or(USUAL_RATE).to_string();
                let size = format!("{width}x{height}");
                let mut arguments: Vec<OsString> = [
                    "-y",
                    "-f",
                    "rawvideo",
                    "-pix_fmt",
                    "rgb24",
                    "-video_size",
                    &size,
                    "-framerate",
                    &rate,
                    "-i",
                    "-",
                    "-pix_fmt",
                    "yuv420p",
                    "-movflags",
                    "+faststart",
                ]
                .map(OsString::from)
                .into();
                arguments.push(path.into());
                let words = arguments.iter().map(OsString::as_os_str);
                let mut ffmpeg = Ffmpeg::start(words, Stdio::piped(), Stdio::null())?;
                let input = ffmpeg.child.stdin.take();
                Ok(Sink::Video { ffmpeg, input, name: path.display().to_string() })
            }
        }
    }

    /// Write a frame; gives the file, where it has one of its own.
    ///
    /// # Errors
    /// The disk is full, the reader of the pipe has gone, ffmpeg has ended.
    pub fn write(&mut self, number: u64, picture: &Picture) -> Result<Option<PathBuf>> {
        match self {
            Sink::Folder(folder) => {
                let path = folder.join(format!("frame-{number:06}.png"));
                picture.save(&path)?;
                return Ok(Some(path));
            }
            Sink::Pipe => {
                let mut output = std::io::stdout().lock();
                let written = output.write_all(&picture.rgb).and_then(|()| output.flush());
                written.context("the pipe that frames go to was closed")?;
            }
            Sink::Video { ffmpeg, input, name } => {
                let written = input.as_mut().map_or(Ok(()), |i| i.write_all(&picture.rgb));
                if let Err(error) = written {
                    ffmpeg.finish(name)?;
                    return Err(error)
                        .with_context(|| format!("{name}: ffmpeg takes no more frames"));
                }
            }
            Sink::Http(mjpeg) => mjpeg.show(picture)?,
        }
        Ok(None)
    }

    /// Where it can be looked at.
    pub fn address(&self) -> Option<String> {
        if let Sink::Http(mjpeg) = self { Some(mjpeg.address()) } else { None }
    }

    /// No more frames come.
    ///
    /// # Errors
    /// A video that ffmpeg could not finish.
    pub fn finish(mut self) -> Result<()> {
        match &mut self {
            Sink::Video { ffmpeg, input, name } => {
                input.take();
                ffmpeg.finish(name).map(drop)
            }
            _ => Ok(()),
        }
    }
}
