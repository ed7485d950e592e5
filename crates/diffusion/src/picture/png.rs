//! PNG with generation parameters in text chunks.

use super::{Parameters, Picture, PictureError};
use png::text_metadata::{ITXtChunk, TEXtChunk};

/// Keyword of the text that other programs show (the form of AUTOMATIC1111's web UI).
const READABLE: &str = "parameters";

/// Keyword of the JSON that is read back.
const JSON: &str = "rockshard";

pub(super) fn encode(picture: &Picture) -> Result<Vec<u8>, PictureError> {
    let (width, height, found) = (picture.width, picture.height, picture.rgb.len());
    let expected = picture.bytes_of_size();
    if found != expected {
        return Err(PictureError::Size { width, height, expected, found });
    }
    let failed = |e: png::EncodingError| PictureError::Encode(e.to_string());
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header().map_err(failed)?;
    if let Some(parameters) = &picture.parameters {
        let json =
            serde_json::to_string(parameters).map_err(|e| PictureError::Encode(e.to_string()))?;
        for (keyword, text) in [(READABLE, parameters.readable()), (JSON, json)] {
            // tEXt is Latin-1 only, and readers disagree about its upper half.
            if text.is_ascii() {
                writer.write_text_chunk(&TEXtChunk::new(keyword, text)).map_err(failed)?;
            } else {
                writer.write_text_chunk(&ITXtChunk::new(keyword, text)).map_err(failed)?;
            }
        }
    }
    writer.write_image_data(&picture.rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// Parameters in a PNG's text chunks; `None` for other formats, other programs' pictures and damaged chunks.
pub(super) fn parameters(bytes: &[u8]) -> Option<Parameters> {
    let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().ok()?;
    let info = reader.info();
    let latin = info
        .uncompressed_latin1_text
        .iter()
        .find(|chunk| chunk.keyword == JSON)
        .map(|chunk| chunk.text.clone());
    let utf8 = || info.utf8_text.iter().find(|chunk| chunk.keyword == JSON)?.get_text().ok();
    serde_json::from_str(&latin.or_else(utf8)?).ok()
}
