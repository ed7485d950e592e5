//! What to type when a server cannot be started.

use rockshard_server::{Listen, ServeError};

/// What to do about it.
pub fn serving(error: &ServeError) -> Option<String> {
    Some(match error {
        ServeError::InUse { listen: Listen::Tcp(address) } => {
            let next = address.port().checked_add(1).unwrap_or(8080);
            format!(
                "stop the other one, or listen elsewhere with --listen {}:{next}",
                host(address)
            )
        }
        ServeError::InUse { listen: Listen::Unix(_) } => {
            "stop the other one, or listen elsewhere with another --listen unix:PATH".into()
        }
        ServeError::Listen { .. } => {
            "name an address of this machine, and a port that you may use, with --listen".into()
        }
        ServeError::NoToken(_) => "give tokens with --token-file".into(),
        ServeError::Tls { .. } => {
            "--tls-cert takes the certificate chain and --tls-key its private key, both as PEM"
                .into()
        }
        ServeError::SameName(name) => {
            format!("name one of them otherwise: {name}-2=PACK")
        }
        ServeError::NoPack | ServeError::Threads(_) => return None,
    })
}

fn host(address: &std::net::SocketAddr) -> String {
    match address.ip() {
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    }
}
