//! Remedies for packs and for what runs them.

use rockshard::{PackError, RuntimeError, ValidationError};
use rockshard_devices::OpenError;

pub fn open(error: &OpenError) -> Option<String> {
    match error {
        OpenError::NotBuilt => Some("use --device sim or --device cpu".into()),
        _ => None,
    }
}

pub fn pack(error: &PackError) -> Option<String> {
    match error {
        PackError::Manifest { .. } => {
            Some("a pack is a directory that `rockshard convert` wrote".into())
        }
        PackError::NotCompiled { .. } => Some("convert the model again with --compile".into()),
        PackError::Toolkit { toolkit, runtime, .. } => Some(format!(
            "install librknnrt {toolkit} or newer, or convert with --compile and rknn-toolkit2 {runtime}"
        )),
        _ => None,
    }
}

pub fn runtime(error: &RuntimeError) -> Option<String> {
    match error {
        RuntimeError::Pack(error) => pack(error),
        RuntimeError::Memory { .. } => Some(
            "convert with --tile rows:R or a smaller --resolution, or use fewer --cores".into(),
        ),
        _ => None,
    }
}

pub fn validation(error: &ValidationError) -> Option<String> {
    match error {
        ValidationError::Pack(error) => pack(error),
        ValidationError::NoGolden { .. } => Some("convert it with --golden".into()),
        _ => None,
    }
}
