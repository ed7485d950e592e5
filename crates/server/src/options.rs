//! How a server is used.

use crate::queue::local::QueueLimits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

/// Files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// How a server is used.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Words of which requests must have one; none where everybody may ask.
    pub tokens: Vec<String>,
    /// TLS on the TCP addresses.
    pub tls: Option<TlsFiles>,
    /// Origins besides its own, as `https://draw.example.org`, whose pages may use it.
    pub origins: Vec<String>,
    /// How much waits and runs.
    pub queue: QueueLimits,
    /// Limits of what is sent to it.
    pub limits: Limits,
    /// Whether prompts are logged.
    pub log_prompts: bool,
    /// How long it goes on for what was taken, once it is told to stop.
    pub grace: Duration,
}

/// Limits of what is sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Pixels of an image.
    pub pixels: u64,
    /// Characters of a prompt or a message.
    pub prompt: usize,
    /// Pictures of a request.
    pub pictures: u32,
    /// Images of a request.
    pub images: usize,
    /// Connections that are open.
    pub connections: usize,
    /// Live sessions that draw at a time; more wait.
    pub live: usize,
    /// How long a request's head may take.
    pub head_time: Duration,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// How long a request may take in all where it does not say.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 32 << 20,
            pixels: 16_777_216,
            prompt: 32_000,
            pictures: 10,
            images: 16,
            connections: 512,
            live: 8,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            deadline: Duration::from_secs(600),
        }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { waiting: 256, waiting_of_client: 64, running: 5 }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            tokens: Vec::new(),
            tls: None,
            origins: Vec::new(),
            queue: QueueLimits::default(),
            limits: Limits::default(),
            log_prompts: false,
            grace: Duration::from_secs(60),
        }
    }
}
