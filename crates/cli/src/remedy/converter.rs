//! Remedies for conversions.

use rockshard::{ConvertError, ImportError};

pub fn convert(error: &ConvertError) -> Option<String> {
    match error {
        ConvertError::Limit { .. } => {
            Some("try --tile rows:R, --shards block or a smaller --resolution".into())
        }
        ConvertError::SplitWith { other } => {
            Some(format!("leave --{other} out, or choose another --placement"))
        }
        ConvertError::TooFewShards { least, .. } => {
            Some(format!("ask for --shards {least} or more, or leave it out"))
        }
        ConvertError::OwnShapes { .. } => Some("leave --batch out".into()),
        ConvertError::OwnResolution { .. } => Some("leave --resolution out".into()),
        ConvertError::Toolkit { .. } => {
            Some("name its interpreter with --rknn-python DIR/bin/python".into())
        }
        ConvertError::Exists(_) => Some("remove it or choose another --out".into()),
        ConvertError::Import { source, .. } => import(source),
        _ => None,
    }
}

fn import(error: &ImportError) -> Option<String> {
    let ImportError::Dynamic { input, dimension, shape, .. } = error else { return None };
    let extents: Vec<String> =
        shape.iter().map(|d| d.map_or_else(|| "N".to_owned(), |d| d.to_string())).collect();
    let whole = format!("--input-shape {input}={}", extents.join("x"));
    if dimension == "?" || dimension.parse::<i64>().is_ok() {
        return Some(format!("fix the shape with {whole}"));
    }
    let extent = if dimension.contains("batch") { "1" } else { "N" };
    Some(format!("fix it with --dim {}={extent}, or the whole shape with {whole}", word(dimension)))
}

/// A name as it is typed in a shell.
pub fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if name.chars().all(plain) { name.to_owned() } else { format!("'{name}'") }
}
