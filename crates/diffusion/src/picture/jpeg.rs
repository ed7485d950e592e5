//! JPEG files.

use super::{Picture, PictureError, exif};
use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

/// The most EXIF that a JPEG has room for: its segments are 64 KiB.
const MOST_EXIF: usize = 65_000;

/// Encode as JPEG. Parameters that there is no room for are left out.
pub(super) fn encode(picture: &Picture, quality: u8) -> Result<Vec<u8>, PictureError> {
    let Picture { width, height, rgb, .. } = picture;
    picture.check_size()?;
    let failed = |e: &dyn std::fmt::Display| PictureError::EncodeJpeg(e.to_string());
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
    let exif = picture.parameters.as_ref().map(exif::user_comment);
    if let Some(exif) = exif.filter(|exif| exif.len() <= MOST_EXIF) {
        encoder.set_exif_metadata(exif).map_err(|e| failed(&e))?;
    }
    encoder.write_image(rgb, *width, *height, ExtendedColorType::Rgb8).map_err(|e| failed(&e))?;
    Ok(bytes)
}
