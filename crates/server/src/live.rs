//! Live pictures over one WebSocket both ways: frames in and pictures out, or words in and pictures out as they are typed.
//!
//! A client [starts](protocol::Start) a session, which has a place among those that draw; while there is none it is told where it stands. It may have a
//! few frames unanswered (its credits); of more the newest counts. When its connection is lost its session is kept for a while, without a share of the cores.

mod connection;
mod engine;
mod pictures;
mod protocol;
mod sessions;
mod words;

use crate::app::App;
use crate::http::connection::Open;
use crate::http::{ApiError, Caller};
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;
pub use sessions::Sessions;
use std::sync::Arc;

/// Largest message that a client may send.
const LARGEST_MESSAGE: usize = 8 << 20;
/// What may wait to be written to a client.
const WRITE_BUFFER: usize = 16 << 20;
/// The subprotocol.
const SUBPROTOCOL: &str = "rockshard.live.v1";

/// `GET /v1/live`.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(open): Extension<Open>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| ApiError::invalid(None, "this is for WebSockets"))?;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(LARGEST_MESSAGE)
        .max_frame_size(LARGEST_MESSAGE)
        .max_write_buffer_size(WRITE_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| async move {
        connection::serve(app, caller, socket).await;
        drop(open);
    }))
}
