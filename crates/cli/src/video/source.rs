//! Where frames come from.

use super::From;
use super::ffmpeg::Ffmpeg;
use anyhow::{Context, Result, bail};
use rockshard::Picture;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What a source gives.
pub enum Frame {
    /// A picture.
    Picture(Picture),
    /// One that cannot be read; the next may.
    Bad(anyhow::Error),
}

/// A source of frames.
pub enum Source {
    /// Picture files that are left.
    Files(std::vec::IntoIter<PathBuf>),
    /// Raw RGB frames of a size.
    Raw {
        input: Box<dyn Read + Send>,
        size: [u32; 2],
        ffmpeg: Option<Ffmpeg>,
        name: String,
        /// Frames so far.
        read: u64,
    },
}

/// Endings of files that are taken for pictures.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

impl Source {
    /// Open it. Frames that ffmpeg reads have `size`.
    pub fn open(
        from: &From,
        raw: Option<[u32; 2]>,
        size: [u32; 2],
        fps: Option<f64>,
    ) -> Result<Self> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let rate = fps.map(|f| words(&["-framerate", &f.to_string()])).unwrap_or_default();
        let (arguments, input, name) = match from {
            From::Pipe if raw.is_some() => {
                let (input, size) = (Box::new(std::io::stdin()), raw.unwrap_or(size));
                let name = "the pipe".into();
                return Ok(Source::Raw { input, size, ffmpeg: None, name, read: 0 });
            }
            From::Path(path) if path.is_dir() => {
                return Ok(Source::Files(files(path)?.into_iter()));
            }
            From::Pipe => {
                (words(&["-f", "yuv4mpegpipe", "-i", "-"]), Stdio::inherit(), "the pipe".into())
            }
            From::Path(path) => {
                std::fs::metadata(path).with_context(|| path.display().to_string())?;
                let mut arguments = words(&["-i"]);
                arguments.push(path.into());
                (arguments, Stdio::null(), path.display().to_string())
            }
            From::Camera(device) => {
                let mut arguments = words(&["-f", "v4l2"]);
                arguments.extend(rate);
                arguments.extend(["-i".into(), device.into()]);
                (arguments, Stdio::null(), device.display().to_string())
            }
            From::Screen([w, h, x, y]) => {
                let display = std::env::var("DISPLAY").unwrap_or_else(|_| ":0".into());
                let mut arguments = words(&["-f", "x11grab", "-video_size", &format!("{w}x{h}")]);
                arguments.extend(rate);
                arguments.extend(words(&["-i", &format!("{display}+{x},{y}")]));
                (arguments, Stdio::null(), format!("screen {display}"))
            }
        };
        let [width, height] = size;
        let rest = words(&[
            "-vf",
            &format!("scale={width}:{height}"),
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]);
        let all: Vec<OsString> = arguments.into_iter().chain(rest).collect();
        let mut ffmpeg = Ffmpeg::start(all.iter().map(OsString::as_os_str), input, Stdio::piped())?;
        let output = ffmpeg.child.stdout.take().context("ffmpeg has no output")?;
        let input = Box::new(output);
        Ok(Source::Raw { input, size, ffmpeg: Some(ffmpeg), name, read: 0 })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The source broke off: nothing comes after it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        match self {
            Source::Files(files) => {
                let Some(path) = files.next() else { return Ok(None) };
                let name = || path.display().to_string();
                let picture = std::fs::read(&path)
                    .with_context(name)
                    .and_then(|bytes| Picture::from_bytes(&bytes).with_context(name));
                Ok(Some(picture.map_or_else(Frame::Bad, Frame::Picture)))
            }
            Source::Raw { input, size: [width, height], ffmpeg, name, read } => {
                let mut rgb = vec![0; *width as usize * *height as usize * 3];
                let filled = fill(input, &mut rgb).with_context(|| name.clone())?;
                if filled == rgb.len() {
                    *read += 1;
                    let (width, height) = (*width, *height);
                    return Ok(Some(Frame::Picture(Picture {
                        width,
                        height,
                        rgb,
                        parameters: None,
                    })));
                }
                if let Some(ffmpeg) = ffmpeg {
                    let said = ffmpeg.finish(name)?;
                    if *read == 0 {
                        bail!("{name}: ffmpeg found no frame in it{said}");
                    }
                }
                if filled > 0 {
                    bail!(
                        "{name}: the last frame has {filled} of the {} bytes that {width}x{height} takes; it is left out",
                        rgb.len()
                    );
                }
                Ok(None)
            }
        }
    }
}

/// Read until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The pictures of a directory, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = || folder.display().to_string();
    let is_picture = |path: &PathBuf| {
        let ending = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        ending.is_some_and(|e| ENDINGS.contains(&e.as_str()))
    };
    let entries = std::fs::read_dir(folder).with_context(name)?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths: Vec<PathBuf> =
        paths.with_context(name)?.into_iter().filter(is_picture).collect();
    if paths.is_empty() {
        bail!("{}: no pictures ({}) in it", name(), ENDINGS.join(", "));
    }
    paths.sort();
    Ok(paths)
}
