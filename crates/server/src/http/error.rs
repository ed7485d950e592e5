//! Errors as OpenAI's API has them, with `detail` besides, which clients of the other two APIs look for.

use crate::queue::Refusal;
use crate::work::{Failure, FailureKind};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Status of the response.
    pub status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<&'static str>,
    /// Seconds after which it may be tried again.
    retry_after: Option<u64>,
}

/// Longest message, in characters.
const MOST_SAID: usize = 500;
/// Longest `Retry-After`, in seconds: OpenAI's clients do not try again at all after more.
const LONGEST: u64 = 120;

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        mut message: String,
    ) -> Self {
        // What was sent comes back in messages, but not without end.
        if let Some((end, _)) = message.char_indices().nth(MOST_SAID) {
            message.truncate(end);
            message.push_str("...");
        }
        ApiError { status, kind, code, message, param: None, retry_after: None }
    }

    /// A request that is not what the API takes.
    pub fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let error = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "invalid_value",
            message.into(),
        );
        ApiError { param, ..error }
    }

    /// A request that is understood, and that this model cannot do.
    pub fn impossible(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_request_error",
            "not_possible",
            message.into(),
        );
        ApiError { param, ..error }
    }

    /// There is no such model.
    pub fn no_model(message: impl Into<String>) -> Self {
        let error = Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            message.into(),
        );
        ApiError { param: Some("model"), ..error }
    }

    /// There is nothing of this name.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", message.into())
    }

    /// It is too late for that.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "invalid_request_error", "conflict", message.into())
    }

    /// The token is missing or wrong.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            "invalid_api_key",
            "a token is needed: send it as `Authorization: Bearer TOKEN`; the server printed it when it was started".into(),
        )
    }

    /// The page that asks may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", "forbidden", message.into())
    }

    /// Too much was sent.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body has more than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "too_large", message)
    }

    /// The body did not come in time.
    pub fn too_slow() -> Self {
        let message = "the body did not come in time".into();
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "too_slow", message)
    }

    /// A body of another type.
    pub fn media_type(expected: &str) -> Self {
        let message = format!("the body must be {expected}");
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "unsupported_media_type",
            message,
        )
    }

    /// Another method is needed.
    pub fn method() -> Self {
        let message = "this method is not allowed here".into();
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            "method_not_allowed",
            message,
        )
    }

    /// Too much is asked at once.
    pub fn busy(code: &'static str, message: impl Into<String>, wait: Duration) -> Self {
        let error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message.into());
        let seconds = (wait.as_secs_f64().ceil() as u64).clamp(1, LONGEST);
        ApiError { retry_after: Some(seconds), ..error }
    }

    /// The device, or the server, failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "device_failed",
            message.into(),
        )
    }

    /// The error as JSON.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code },
            "detail": self.message,
        })
    }

    /// For whom a queue's refusal is.
    pub fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full(wait) => Self::busy("queue_full", "too many requests wait already", wait),
            Refusal::TooMany(wait) => {
                Self::busy("client_full", "too many of your requests wait already", wait)
            }
            Refusal::Draining => Self {
                retry_after: Some(5),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "server_error",
                    "draining",
                    "the server is about to stop".into(),
                )
            },
        }
    }

    /// The code, which programs look at.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is said.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message } = failure;
        match kind {
            FailureKind::Refused => Self::impossible(None, message),
            FailureKind::Cancelled => Self::conflict(message),
            FailureKind::TooLate => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "deadline", message)
            }
            FailureKind::Device => Self::failed(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let text = self.json().to_string();
        let mut response = (self.status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let timeout = self.status == StatusCode::REQUEST_TIMEOUT;
        if self.retry_after.is_none() && (self.status.is_server_error() || timeout) {
            // The same request would fail the same way, or nobody waits for it any more.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if matches!(self.code, "too_slow" | "too_large") {
            // The rest of the body is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
