//! Finished pictures.

mod exif;
mod jpeg;
mod png;
mod readable;
mod webp;

use ::image::{RgbImage, imageops};
use rockshard_image_file::ImageFileError;
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// A picture of 8-bit RGB pixels, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Red, green and blue of each pixel: `width * height * 3` bytes.
    pub rgb: Vec<u8>,
    /// What it was generated with, when that is known.
    pub parameters: Option<Parameters>,
}

/// What a picture was generated with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Sampling steps.
    pub steps: usize,
    /// Sampler name.
    pub sampler: String,
    /// Guidance scale.
    pub guidance: f64,
    /// Seed that gives this very picture.
    pub seed: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Model name.
    pub model: String,
    /// Strength, for a picture made from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Version of rockshard.
    pub version: String,
}

/// Why a picture cannot be encoded, decoded or written.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The number of bytes is not what the size takes.
    #[error("a picture of {width}x{height} takes {expected} bytes, it has {found}")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes that takes.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// PNG encoding failed.
    #[error("the picture cannot be encoded as PNG: {0}")]
    Encode(String),
    /// JPEG encoding failed.
    #[error("the picture cannot be encoded as JPEG: {0}")]
    EncodeJpeg(String),
    /// WebP encoding failed.
    #[error("the picture cannot be encoded as WebP: {0}")]
    EncodeWebP(String),
    /// The bytes are not a picture in a supported format.
    #[error("not a picture that can be read: {0}")]
    Decode(#[from] ImageFileError),
    /// A file cannot be written.
    #[error("{}: {source}; check that the folder exists and can be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("{}: no space left; nothing was written there, free some space or write to another disk", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
}

impl Picture {
    /// Check that it has the bytes its size takes.
    pub(crate) fn check(&self) -> Result<(), crate::Error> {
        let (width, height, found) = (self.width, self.height, self.rgb.len());
        let expected = self.bytes_of_size();
        if expected == 0 || found != expected {
            return Err(crate::Error::InitialPicture { width, height, expected, found });
        }
        Ok(())
    }

    /// Check that it has pixels, and the bytes they take.
    fn check_size(&self) -> Result<(), PictureError> {
        let (width, height, found) = (self.width, self.height, self.rgb.len());
        let expected = self.bytes_of_size();
        if expected == 0 || found != expected {
            return Err(PictureError::Size { width, height, expected, found });
        }
        Ok(())
    }

    /// The bytes that the size takes; where that is beyond any memory, the most there can be.
    fn bytes_of_size(&self) -> usize {
        (self.width as usize).saturating_mul(self.height as usize).saturating_mul(3)
    }

    /// A picture from three planes (red, green, blue) of values in -1..1; values outside are clipped, missing ones black.
    pub fn from_planes(width: u32, height: u32, planes: &[f32]) -> Self {
        let pixels = width as usize * height as usize;
        let byte = |v: f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let value =
            |i: usize, channel: usize| planes.get(channel * pixels + i).map_or(0, |&v| byte(v));
        let rgb = (0..pixels).flat_map(|i| [value(i, 0), value(i, 1), value(i, 2)]).collect();
        Picture { width, height, rgb, parameters: None }
    }

    /// The pixels as three planes of values in -1..1.
    pub fn planes(&self) -> Vec<f32> {
        (0..3)
            .flat_map(|channel| {
                self.rgb.iter().skip(channel).step_by(3).map(|&v| f32::from(v) / 127.5 - 1.0)
            })
            .collect()
    }

    /// The picture at another size, by cubic (Catmull-Rom) resampling.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let image =
            RgbImage::from_raw(self.width, self.height, self.rgb.clone()).unwrap_or_default();
        let rgb =
            imageops::resize(&image, width, height, imageops::FilterType::CatmullRom).into_raw();
        Picture { width, height, rgb, parameters: None }
    }

    /// Encode as PNG with the parameters in text chunks: `parameters` to read, `rockshard` as JSON. Equal pictures give equal
    /// bytes.
    ///
    /// # Errors
    /// The number of bytes does not fit the size.
    pub fn to_png(&self) -> Result<Vec<u8>, PictureError> {
        png::encode(self)
    }

    /// As a WebP file, without loss; the parameters to read are in its EXIF `UserComment`.
    ///
    /// # Errors
    /// A picture that has not the bytes its size takes.
    pub fn to_webp(&self) -> Result<Vec<u8>, PictureError> {
        webp::encode(self)
    }

    /// As a JPEG file, of a quality from 1 to 100; the parameters to read are in its EXIF `UserComment`.
    ///
    /// # Errors
    /// A picture that has not the bytes its size takes.
    pub fn to_jpeg(&self, quality: u8) -> Result<Vec<u8>, PictureError> {
        jpeg::encode(self, quality)
    }

    /// Decode a PNG, JPEG or WebP file, turned upright as its EXIF orientation says; the parameters are read back from a PNG that has
    /// them. Transparency is dropped.
    ///
    /// # Errors
    /// Bytes that are damaged, cut off, of an unsupported format, or too large to decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PictureError> {
        Picture::from_bytes_within(bytes, rockshard_image_file::MOST_PIXELS)
    }

    /// Decode a file as [`Picture::from_bytes`] does, of at most `most` pixels.
    ///
    /// # Errors
    /// As [`Picture::from_bytes`].
    pub fn from_bytes_within(bytes: &[u8], most: u64) -> Result<Self, PictureError> {
        let image = rockshard_image_file::decode_within(bytes, most)?;
        let rgb = image.into_rgb8();
        let parameters = png::parameters(bytes);
        Ok(Picture { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw(), parameters })
    }

    /// Write as PNG: to a temporary file beside `path`, then renamed, so that `path` never holds half a picture.
    ///
    /// # Errors
    /// The folder cannot be written, or the disk is full.
    pub fn save(&self, path: &Path) -> Result<(), PictureError> {
        let bytes = self.to_png()?;
        write(path, &bytes).map_err(|source| failure(path, source))
    }
}

/// Write all of a file or nothing. A link keeps pointing to what is written; devices and pipes are written to.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let path = &linked(path)?;
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".rockshard-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// What a path is in the end: links are followed, to a file that need not be there yet.
fn linked(path: &Path) -> std::io::Result<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("too many links"))
}

fn failure(path: &Path, source: std::io::Error) -> PictureError {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            PictureError::DiskFull { path }
        }
        _ => PictureError::Write { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named() {
        let error = failure(Path::new("out.png"), std::io::ErrorKind::StorageFull.into());
        assert!(error.to_string().starts_with("out.png: no space left"), "{error}");
    }
}
