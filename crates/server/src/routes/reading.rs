//! Reading what was sent on threads that may take their time, few at a time: a picture can take a thousand times the bytes of its file.

use crate::app::App;
use crate::http::ApiError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::sync::Arc;

/// Pictures that are read at a time.
pub const AT_A_TIME: usize = 2;

/// Do something on a thread that may take its time.
///
/// # Errors
/// What it gives.
pub async fn read<T: Send + 'static>(
    app: &Arc<App>,
    read: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = || ApiError::failed("what was sent could not be read");
    let permit = app.reading.clone().acquire_owned().await.map_err(|_| failed())?;
    let app = app.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        read(&app)
    });
    reading.await.map_err(|_| failed())?
}

/// Bytes of a picture in base64, bare or as a data URL.
///
/// # Errors
/// Other text.
pub fn unpacked(name: &'static str, text: &str) -> Result<Vec<u8>, ApiError> {
    let bare = text.split_once(";base64,").map_or(text, |(_, rest)| rest);
    let message = || format!("{name} must be a picture in base64");
    BASE64_STANDARD.decode(bare.trim()).map_err(|_| ApiError::invalid(Some(name), message()))
}
