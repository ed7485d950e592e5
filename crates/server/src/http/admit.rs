//! What every request goes through before its route, and every response after it: host, origin, token; request id, headers, metrics.

use super::caller::Peer;
use super::{ApiError, Caller};
use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Instant;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken from a client.
const LONGEST_ID: usize = 64;
/// What pages may load: nothing that is not from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Routes that need no token: what a browser or a supervisor asks before it could have one, and pictures, whose names nobody guesses.
const OPEN: &[&str] = &[
    "/",
    "/page/{name}",
    "/docs",
    "/health",
    "/ready",
    "/openapi.json",
    "/v1/jobs/{id}/pictures/{number}",
];

/// Let a request in, or not.
pub async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "other".into());
    let method = request.method().clone();
    let id = request_id(request.headers());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match check(&app, &request, &route) {
        Ok(caller) if method == Method::OPTIONS => {
            drop(caller);
            preflight(&app, origin.as_ref())
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Some(origin) = origin.filter(|origin| is_listed(&app, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, retry-after, location"),
        );
    }
    let status = response.status();
    let took = start.elapsed().as_secs_f64();
    let labels = [route.as_str(), word(&method), status.as_str()];
    app.metrics.requests.with_label_values(&labels).inc();
    app.metrics.request_seconds.with_label_values(&[&route]).observe(took);
    let id = id.to_str().unwrap_or_default();
    tracing::info!("{id} {} {route} {} {:.1} ms", word(&method), status.as_u16(), took * 1e3);
    response
}

/// A method as a label: clients cannot make up series.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn check(app: &App, request: &Request, route: &str) -> Result<Caller, ApiError> {
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Unix);
    let tokens = &app.options.tokens;
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(ApiError::invalid(None, "a request has one Host"));
    }
    let host = host(request);
    if tokens.is_empty() && !is_own_host(app, peer, host) {
        // A name that somebody else's DNS gives this machine's address.
        return Err(ApiError::forbidden(format!(
            "the host {:?} is not known here: whoever started the server can allow its origin",
            host.unwrap_or("")
        )));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let upgrade = headers.contains_key(header::UPGRADE);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if (upgrade || !reads) && !is_listed(app, origin) && !is_own(origin, host) {
            return Err(ApiError::forbidden("pages of this origin may not use the server"));
        }
    }
    if OPEN.contains(&route) || *request.method() == Method::OPTIONS {
        return Ok(Caller::of(peer, headers, &[])
            .unwrap_or(Caller { name: String::new(), checked: false }));
    }
    // A right token is always let in: others behind the same proxy may guess.
    if let Some(caller) = Caller::of(peer, headers, tokens) {
        return Ok(caller);
    }
    let from = super::caller::asked_for(peer, headers);
    if let Some(wait) = app.attempts.wait(from) {
        return Err(ApiError::busy("too_many_attempts", "too many wrong tokens", wait));
    }
    app.metrics.unauthorized.inc();
    if super::token::sent(headers).is_some() {
        app.attempts.failed(from);
    }
    Err(ApiError::unauthorized())
}

/// The host that a request names: that of its target, where it is a whole address, else that of its head.
fn host(request: &Request) -> Option<&str> {
    let named = || request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
    request.uri().authority().map(|a| a.as_str()).or_else(named)
}

/// Without its port, and without the brackets of an IPv6 address.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether a host is one of this machine's own names, or of an origin that is allowed. A proxy at a Unix socket has looked already.
fn is_own_host(app: &App, peer: Peer, host: Option<&str>) -> bool {
    if matches!(peer, Peer::Unix) {
        return true;
    }
    let Some(name) = host.map(name_of) else { return false };
    let local = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let listed = |origin: &String| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some_and(|host| name_of(host).eq_ignore_ascii_case(name))
    };
    local || app.options.origins.iter().any(listed)
}

/// Whether an origin was allowed by name.
fn is_listed(app: &App, origin: &HeaderValue) -> bool {
    app.options
        .origins
        .iter()
        .any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

/// Whether an origin is the host that it asks.
fn is_own(origin: &HeaderValue, host: Option<&str>) -> bool {
    let origin = origin.to_str().ok().and_then(|text| Some(text.split_once("://")?.1));
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let simple = |v: &&HeaderValue| {
        let bytes = v.as_bytes();
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        !bytes.is_empty() && bytes.len() <= LONGEST_ID && bytes.iter().all(plain)
    };
    let given = headers.get(REQUEST_ID).filter(simple).cloned();
    let made = || HeaderValue::from_str(&crate::random::word()).ok();
    given.or_else(made).unwrap_or(HeaderValue::from_static("-"))
}

/// The answer to what a browser asks before a request of another origin.
fn preflight(app: &App, origin: Option<&HeaderValue>) -> Response {
    if !origin.is_some_and(|origin| is_listed(app, origin)) {
        return ApiError::method().into_response();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in allowed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_without_ports() {
        for (host, name) in [
            ("localhost:8080", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:8080", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[", ""),
        ] {
            assert_eq!(name_of(host), name, "{host}");
        }
    }

    #[test]
    fn a_page_is_of_the_host_that_it_asks() {
        let own = |origin, host| is_own(&HeaderValue::from_static(origin), Some(host));
        assert!(own("http://localhost:8080", "localhost:8080"));
        assert!(own("https://Draw.example.org", "draw.example.org"));
        assert!(!own("http://localhost:8081", "localhost:8080"));
        assert!(!own("null", "localhost:8080"));
        assert!(!own("http://evil.example", "localhost:8080"));
    }

    #[test]
    fn request_ids_are_simple_words() {
        let id = |text: &'static str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(text))]);
            request_id(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(id("abc-1_2.3"), "abc-1_2.3");
        assert_eq!(id("a b").len(), 32);
        assert_eq!(id("").len(), 32);
        assert_eq!(request_id(&HeaderMap::new()).len(), 32);
    }
}
