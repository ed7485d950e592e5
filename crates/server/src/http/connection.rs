//! Connections: accepted as long as there is room, each with a time for its requests' heads, ended when the server stops.

use super::caller::Peer;
use super::listen::Socket;
use super::patience::Patient;
use crate::app::App;
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Largest head of a request, in bytes.
const HEAD: usize = 64 << 10;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait when the system has no sockets left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the connections of one socket until the server stops.
pub struct Acceptor {
    /// The routes.
    pub router: Router,
    /// What they use.
    pub app: Arc<App>,
    /// How many connections may be open, over all sockets.
    pub room: Arc<Semaphore>,
    /// TLS, on TCP.
    pub tls: Option<TlsAcceptor>,
}

impl Acceptor {
    /// Accept connections until the server stops; then wait until those that are open have ended.
    pub async fn serve(self: Arc<Self>, socket: Socket) {
        let mut stopping = self.app.stopping.subscribe();
        let mut open = JoinSet::new();
        loop {
            // Those that have ended are forgotten.
            while open.try_join_next().is_some() {}
            let accepted = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                accepted = self.accept(&socket) => accepted,
            };
            match accepted {
                Ok(connection) => match self.room.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let acceptor = self.clone();
                        open.spawn(async move { acceptor.connection(connection, permit).await });
                    }
                    Err(_) => self.app.metrics.connections_refused.inc(),
                },
                Err(error) => {
                    tracing::warn!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(socket);
        while open.join_next().await.is_some() {}
    }

    async fn accept(&self, socket: &Socket) -> std::io::Result<Connection> {
        match socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small messages, as live pictures are, must not wait for others.
                let _ = stream.set_nodelay(true);
                Ok(Connection::Tcp(stream, address))
            }
            Socket::Unix { listener, .. } => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }

    async fn connection(&self, connection: Connection, permit: OwnedSemaphorePermit) {
        let open = Open::new(&self.app, permit);
        match connection {
            Connection::Unix(stream) => self.http(stream, Peer::Unix, open).await,
            Connection::Tcp(stream, address) => match &self.tls {
                None => self.http(stream, Peer::Tcp(address, false), open).await,
                Some(tls) => {
                    let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        self.http(stream, Peer::Tcp(address, true), open).await;
                    }
                }
            },
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        open: Open,
    ) {
        let router = self.router.clone();
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (router, open) = (router.clone(), open.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(open);
                let response = router.oneshot(request).await;
                Ok::<_, Infallible>(response.unwrap_or_else(|never| match never {}))
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        builder.header_read_timeout(self.app.options.limits.head_time);
        builder.max_buf_size(HEAD);
        let connection =
            builder.serve_connection(TokioIo::new(Patient::new(stream)), service).with_upgrades();
        tokio::pin!(connection);
        let mut stopping = self.app.stopping.subscribe();
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = stopping.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

enum Connection {
    Tcp(tokio::net::TcpStream, std::net::SocketAddr),
    Unix(tokio::net::UnixStream),
}

/// A connection's place among those that may be open. A WebSocket takes it over.
#[derive(Clone)]
pub struct Open(
    #[expect(dead_code, reason = "given back when the last one is dropped")] Arc<Place>,
);

struct Place {
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(app: &Arc<App>, permit: OwnedSemaphorePermit) -> Self {
        app.metrics.connections.inc();
        Open(Arc::new(Place { app: app.clone(), _permit: permit }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.metrics.connections.dec();
    }
}
