//! Who asks.

use super::token;
use axum::http::HeaderMap;
use std::net::{IpAddr, SocketAddr};

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// Over TCP, and whether with TLS.
    Tcp(SocketAddr, bool),
    /// Over a Unix socket.
    Unix,
}

impl Peer {
    /// Its address, where it has one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address, _) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    /// Whether it is on this machine, where a reverse proxy would be.
    pub fn is_local(self) -> bool {
        self.address().is_none_or(|address| address.is_loopback())
    }

    /// Whether it came with TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Peer::Tcp(_, true))
    }
}

/// Who asks, as far as fairness between clients is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// A name: of the token, of the key that was sent although none is asked for, or of the address.
    pub name: String,
    /// Whether the name was checked: a token is needed here.
    pub checked: bool,
}

impl Caller {
    /// The one who sent a request over a connection.
    pub fn of(peer: Peer, headers: &HeaderMap, tokens: &[String]) -> Option<Self> {
        let sent = token::sent(headers);
        if !tokens.is_empty() {
            let number = token::find(tokens, &sent?)?;
            return Some(Caller { name: format!("token {number}"), checked: true });
        }
        let name = match sent {
            Some(key) => format!("key {}", token::short_digest(&key)),
            None => address(peer, headers),
        };
        Some(Caller { name, checked: false })
    }

    /// Whether a client's name is that of a caller, or of one of its users.
    pub fn is_of(client: &str, caller: &str) -> bool {
        client.strip_prefix(caller).is_some_and(|rest| rest.is_empty() || rest.starts_with(USER))
    }

    /// The same for one of its users, where names are not checked anyhow.
    pub fn user(&self, user: Option<&str>) -> String {
        match user.filter(|user| !self.checked && !user.is_empty()) {
            Some(user) => format!("{}{USER}{}", self.name, token::short_digest(user)),
            None => self.name.clone(),
        }
    }
}

/// What stands between a caller's name and that of one of its users.
const USER: &str = " user ";

/// The address that a request came from; a proxy on this machine says for whom it asks.
fn address(peer: Peer, headers: &HeaderMap) -> String {
    let address = asked_for(peer, headers);
    address.map_or_else(|| "socket".to_owned(), |address| address.to_string())
}

/// The same as an address, where it has one.
pub fn asked_for(peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
    let forwarded = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
    let forwarded = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
    forwarded.filter(|_| peer.is_local()).or(peer.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let parsed = |&(name, value): &(&'static str, &str)| {
            (axum::http::HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(parsed).collect()
    }

    #[test]
    fn callers_are_told_apart() {
        let near = Peer::Tcp("127.0.0.1:5".parse().unwrap(), false);
        let far = Peer::Tcp("10.0.0.9:5".parse().unwrap(), false);
        let name = |peer, pairs: &[_]| Caller::of(peer, &headers(pairs), &[]).unwrap().name;
        let forwarded = [("x-forwarded-for", "1.2.3.4, 10.0.0.7")];
        assert_eq!(name(near, &[]), "127.0.0.1");
        assert_eq!(name(near, &forwarded), "10.0.0.7");
        assert_eq!(name(far, &forwarded), "10.0.0.9", "only a proxy on this machine is believed");
        assert_eq!(name(Peer::Unix, &[]), "socket");
        assert_ne!(
            name(near, &[("authorization", "Bearer a")]),
            name(near, &[("authorization", "Bearer b")])
        );
        let tokens = ["a".to_owned()];
        assert_eq!(Caller::of(near, &headers(&[]), &tokens), None);
        let caller = Caller::of(near, &headers(&[("authorization", "Bearer a")]), &tokens).unwrap();
        assert_eq!(caller.user(Some("somebody")), "token 0");
    }
}
