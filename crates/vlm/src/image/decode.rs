//! Image files as 8-bit RGB, as Pillow and transformers' `convert_to_rgb` see them.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

/// The longest side that is read: what is longer is more likely a mistake or an attack than an image.
const LONGEST_SIDE: u32 = 16384;
/// The most pixels that are read: those of an image of 8192x8192.
const MOST_PIXELS: u64 = 1 << 26;

/// Pixels, row by row, three bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Values, `width * height * 3`.
    pub bytes: Vec<u8>,
}

/// An image that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the image is empty (0 bytes)")]
    Empty,
    /// Damaged, cut off, or of another format.
    #[error("the image cannot be read: {0}")]
    Decode(String),
    /// More pixels than are taken.
    #[error(
        "the image is {width}x{height}; at most {LONGEST_SIDE} pixels a side and {MOST_PIXELS} in all are read: make it smaller"
    )]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Bytes that do not fit the size.
    #[error("an image of {width}x{height} has {found} bytes instead of {}", width * height * 3)]
    Bytes {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes there are.
        found: usize,
    },
}

impl Rgb {
    /// An image of bytes.
    ///
    /// # Errors
    /// Sides of 0, or another number of bytes.
    pub fn new(width: usize, height: usize, bytes: Vec<u8>) -> Result<Self, ImageError> {
        if width == 0 || height == 0 || bytes.len() != width * height * 3 {
            return Err(ImageError::Bytes { width, height, found: bytes.len() });
        }
        Ok(Rgb { width, height, bytes })
    }

    /// Read a PNG, JPEG or WebP file (the first picture of an animation), upright as its EXIF orientation says. What is transparent is seen before white.
    ///
    /// # Errors
    /// Bytes that are damaged, cut off or of another format, and images that are too large; their size is looked at before their pixels.
    pub fn from_file(bytes: &[u8]) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        let failed = |e: image::ImageError| ImageError::Decode(e.to_string());
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let reader = reader.map_err(|e| ImageError::Decode(e.to_string()))?;
        let mut decoder = reader.into_decoder().map_err(failed)?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        if width.max(height) > LONGEST_SIDE || pixels > MOST_PIXELS {
            return Err(ImageError::TooLarge { width, height });
        }
        let mut limits = Limits::default();
        decoder.set_limits(limits.clone()).map_err(failed)?;
        limits.reserve(decoder.total_bytes()).map_err(failed)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
        image.apply_orientation(orientation);
        let (width, height) = (image.width() as usize, image.height() as usize);
        let bytes = if image.color().has_alpha() {
            before_white(&image)
        } else {
            eight_bits(image).into_rgb8().into_raw()
        };
        Rgb::new(width, height, bytes)
    }
}

/// Values of 16 bits lose their lower byte, as in Pillow.
fn eight_bits(image: DynamicImage) -> DynamicImage {
    let high = |values: &[u16]| values.iter().map(|v| (v >> 8) as u8).collect::<Vec<u8>>();
    let (width, height) = (image.width(), image.height());
    let cut = match &image {
        DynamicImage::ImageLuma16(i) => {
            image::GrayImage::from_raw(width, height, high(i)).map(DynamicImage::from)
        }
        DynamicImage::ImageLumaA16(i) => {
            image::GrayAlphaImage::from_raw(width, height, high(i)).map(DynamicImage::from)
        }
        DynamicImage::ImageRgb16(i) => {
            image::RgbImage::from_raw(width, height, high(i)).map(DynamicImage::from)
        }
        DynamicImage::ImageRgba16(i) => {
            image::RgbaImage::from_raw(width, height, high(i)).map(DynamicImage::from)
        }
        _ => None,
    };
    cut.unwrap_or(image)
}

/// Over white, in the integers of Pillow's `alpha_composite` (`src/libImaging/AlphaComposite.c`).
fn before_white(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pixel in eight_bits(image.clone()).into_rgba8().pixels() {
        let [r, g, b, alpha] = pixel.0.map(u32::from);
        bytes.extend([r, g, b].map(|value| {
            let sum = (value * alpha + 255 * (255 - alpha)) * 128 + (0x80 << 7);
            ((((sum >> 8) + sum) >> 8) >> 7) as u8
        }));
    }
    bytes
}
