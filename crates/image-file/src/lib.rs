//! Reading image files that people bring: PNG, JPEG and WebP, upright, whole, and not too large.

mod jpeg;
mod png;
mod webp;

pub use image::DynamicImage;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

/// The longest side that is read, in pixels: what is longer is more likely a mistake or an attack than an image.
pub const LONGEST_SIDE: u32 = 16384;
/// The most pixels that are read: those of an image of 8192x8192.
pub const MOST_PIXELS: u64 = 1 << 26;

/// An image file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// No bytes at all.
    #[error("it is empty (0 bytes)")]
    Empty,
    /// A JPEG without its end, which decoders fill with grey.
    #[error("the JPEG is cut off: its {0} bytes do not reach the end of the image")]
    CutOff(usize),
    /// A WebP with a chunk that reaches beyond the file.
    #[error("the WebP is cut off or damaged: a chunk reaches beyond its {0} bytes")]
    WebPCutOff(usize),
    /// A PNG whose palette is damaged.
    #[error("the PNG's palette is damaged: it ends within a colour, or has more than 256")]
    Palette,
    /// Damaged, cut off, or of another format.
    #[error("{0}")]
    Decode(String),
    /// More pixels than are taken.
    #[error(
        "it is {width}x{height}; at most {LONGEST_SIDE} pixels a side and {most} in all are read: make it smaller"
    )]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The most pixels that are read.
        most: u64,
    },
}

/// Read a PNG, JPEG or WebP file (the first picture of an animation), upright as its EXIF orientation says. Its size is looked at before its pixels.
///
/// # Errors
/// Bytes that are damaged, cut off or of another format, and images that are too large.
pub fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageFileError> {
    decode_within(bytes, MOST_PIXELS)
}

/// Read a file as [`decode`] does, of at most `most` pixels, and never more than [`MOST_PIXELS`].
///
/// # Errors
/// As [`decode`].
pub fn decode_within(bytes: &[u8], most: u64) -> Result<DynamicImage, ImageFileError> {
    let most = most.min(MOST_PIXELS);
    if bytes.is_empty() {
        return Err(ImageFileError::Empty);
    }
    if webp::is_cut_off(bytes) {
        return Err(ImageFileError::WebPCutOff(bytes.len()));
    }
    if png::has_damaged_palette(bytes) {
        return Err(ImageFileError::Palette);
    }
    let failed = |e: image::ImageError| ImageFileError::Decode(e.to_string());
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|e| ImageFileError::Decode(e.to_string()))?;
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > LONGEST_SIDE || pixels > most {
        return Err(ImageFileError::TooLarge { width, height, most });
    }
    if jpeg::is_cut_off(bytes) {
        return Err(ImageFileError::CutOff(bytes.len()));
    }
    let mut limits = Limits::default();
    decoder.set_limits(limits.clone()).map_err(failed)?;
    // The decoders' own limit is on what they take besides the pixels.
    limits.reserve(decoder.total_bytes()).map_err(failed)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    Ok(image)
}
