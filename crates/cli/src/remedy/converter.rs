//! Remedies for conversions.

use rockshard::ConvertError;

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
        _ => None,
    }
}
