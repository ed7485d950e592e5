//! JPEG files.

use super::{Picture, PictureError};
use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

/// Encode as JPEG.
pub(super) fn encode(picture: &Picture, quality: u8) -> Result<Vec<u8>, PictureError> {
    let Picture { width, height, rgb, .. } = picture;
    let (found, expected) = (rgb.len(), picture.bytes_of_size());
    if expected == 0 || found != expected {
        let (width, height) = (*width, *height);
        return Err(PictureError::Size { width, height, expected, found });
    }
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
    let encoded = encoder.write_image(rgb, *width, *height, ExtendedColorType::Rgb8);
    encoded.map_err(|e| PictureError::EncodeJpeg(e.to_string()))?;
    Ok(bytes)
}
