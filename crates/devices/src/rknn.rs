//! The real NPU: which librknnrt is loaded, and how its memory is used, as the environment says.

use crate::{RKNN_MEMORY, RKNNRT};
use rockshard_device_rknn::{LoadError, RknnDevice};
use std::path::PathBuf;

/// Why the real NPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RknnError {
    /// The library does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `ROCKSHARD_RKNN_MEMORY` has a value that it may not have.
    #[error("{RKNN_MEMORY}={0} is neither shared nor runtime")]
    Memory(String),
}

/// The library that `ROCKSHARD_RKNNRT` or the system's loader gives, used as `ROCKSHARD_RKNN_MEMORY` says.
///
/// # Errors
/// The library does not load, or the environment says what is not known.
pub fn load_rknn() -> Result<RknnDevice, RknnError> {
    let library = std::env::var_os(RKNNRT).map(PathBuf::from);
    let device = RknnDevice::load(library.as_deref())?;
    match std::env::var_os(RKNN_MEMORY) {
        None => Ok(device),
        Some(shared) if shared == "shared" => Ok(device),
        Some(runtime) if runtime == "runtime" => Ok(device.copying()),
        Some(other) => Err(RknnError::Memory(other.display().to_string())),
    }
}
