//! Tokens: who may ask.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Wrong tokens that an address may send in this time before it has to wait.
const MOST_ATTEMPTS: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Subprotocol of a WebSocket that carries a token, which a page cannot send otherwise.
pub const SUBPROTOCOL: &str = "rockshard.token.";

/// The token that a request has: a bearer's, the password of basic authentication, or a WebSocket's subprotocol.
pub fn sent(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(value) = text(header::AUTHORIZATION) {
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(rest.trim().to_owned());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
            return Some(pair.split_once(':')?.1.to_owned());
        }
        return None;
    }
    let protocols = text(header::SEC_WEBSOCKET_PROTOCOL)?.split(',').map(str::trim);
    protocols.filter_map(|p| p.strip_prefix(SUBPROTOCOL)).next().map(str::to_owned)
}

/// Which of the tokens it is. The time that it takes does not depend on what was sent.
pub fn find(tokens: &[String], sent: &str) -> Option<usize> {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    let sent = digest(sent);
    let mut found = None;
    for (number, token) in tokens.iter().enumerate() {
        if bool::from(digest(token).ct_eq(&sent)) {
            found = Some(number);
        }
    }
    found
}

/// A few digits that stand for a word which is not to be kept.
pub fn short_digest(word: &str) -> String {
    Sha256::digest(word.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Failed attempts, by address.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<Option<IpAddr>, (u32, Instant)>>);

impl Attempts {
    /// Count a failed attempt.
    pub fn failed(&self, from: Option<IpAddr>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, since)| since.elapsed() < WINDOW);
        all.entry(from).or_insert((0, Instant::now())).0 += 1;
    }

    /// How long an address has to wait before it may try again.
    pub fn wait(&self, from: Option<IpAddr>) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = all.get(&from)?;
        let left = WINDOW.checked_sub(since.elapsed())?;
        (*count >= MOST_ATTEMPTS).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn tokens_are_found_where_clients_put_them() {
        let of = |value| sent(&headers(header::AUTHORIZATION, value));
        assert_eq!(of("Bearer abc"), Some("abc".into()));
        assert_eq!(of("bearer  abc "), Some("abc".into()));
        // user:abc
        assert_eq!(of("Basic dXNlcjphYmM="), Some("abc".into()));
        assert_eq!(of("Basic !"), None);
        assert_eq!(of("Digest abc"), None);
        let protocols = "rockshard.live.v1, rockshard.token.abc";
        assert_eq!(sent(&headers(header::SEC_WEBSOCKET_PROTOCOL, protocols)), Some("abc".into()));
        assert_eq!(sent(&HeaderMap::new()), None);
    }

    #[test]
    fn only_a_whole_token_is_one() {
        let tokens = ["first".to_owned(), "second".to_owned()];
        assert_eq!(find(&tokens, "second"), Some(1));
        for wrong in ["", "secon", "second ", "SECOND"] {
            assert_eq!(find(&tokens, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn who_guesses_has_to_wait() {
        let (attempts, from) = (Attempts::default(), Some("10.0.0.1".parse().unwrap()));
        for _ in 0..MOST_ATTEMPTS {
            assert_eq!(attempts.wait(from), None);
            attempts.failed(from);
        }
        assert!(attempts.wait(from).is_some());
        assert_eq!(attempts.wait(Some("10.0.0.2".parse().unwrap())), None);
    }
}
