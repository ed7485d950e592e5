//! Image files as 8-bit RGB, as Pillow and transformers' `convert_to_rgb` see them.

use image::DynamicImage;
use rockshard_image_file::ImageFileError;

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
    /// A file that cannot be read.
    #[error("the image cannot be read: {0}")]
    File(#[from] ImageFileError),
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
        Rgb::from_file_within(bytes, rockshard_image_file::MOST_PIXELS)
    }

    /// Read a file as [`Rgb::from_file`] does, of at most `most` pixels.
    ///
    /// # Errors
    /// As [`Rgb::from_file`].
    pub fn from_file_within(bytes: &[u8], most: u64) -> Result<Self, ImageError> {
        let image = rockshard_image_file::decode_within(bytes, most)?;
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
