//! WebP files.

use super::{Picture, PictureError, exif};
use ::image::codecs::webp::WebPEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

/// Encode as WebP, without loss.
pub(super) fn encode(picture: &Picture) -> Result<Vec<u8>, PictureError> {
    let Picture { width, height, rgb, .. } = picture;
    picture.check_size()?;
    let failed = |e: &dyn std::fmt::Display| PictureError::EncodeWebP(e.to_string());
    let mut bytes = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut bytes);
    if let Some(parameters) = &picture.parameters {
        let exif = exif::user_comment(parameters);
        encoder.set_exif_metadata(exif).map_err(|e| failed(&e))?;
    }
    encoder.write_image(rgb, *width, *height, ExtendedColorType::Rgb8).map_err(|e| failed(&e))?;
    Ok(bytes)
}
