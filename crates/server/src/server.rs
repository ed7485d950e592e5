//! A server: sockets, routes and the queue put together.

use crate::app::App;
use crate::http::connection::Acceptor;
use crate::http::listen::{Socket, listen};
use crate::http::{tls, token};
use crate::metrics::Metrics;
use crate::options::{Listen, ServerOptions};
use crate::packs::{Packs, ServedPack};
use crate::queue::local::LocalQueue;
use crate::routes::reading::AT_A_TIME;
use crate::studio::Studio;
use rockshard::{Cores, DeviceName, Mode};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// How often is looked whether everything that was taken is done.
const LOOK: Duration = Duration::from_millis(50);

/// How long what came of jobs can be fetched when all of them are over and the server stops.
const FETCHING: Duration = Duration::from_secs(10);

/// How long connections may take to end after that: what is left is a response on its way, or half a request.
const LINGERING: Duration = Duration::from_secs(3);

/// Why a server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken.
    #[error("{listen} is in use: another server is there already")]
    InUse {
        /// The address.
        listen: Listen,
    },
    /// An address cannot be listened on.
    #[error("{listen}: {source}")]
    Listen {
        /// The address.
        listen: Listen,
        /// Cause.
        source: std::io::Error,
    },
    /// An address that others reach, without a token.
    #[error("{0} can be reached from other machines: that needs a token")]
    NoToken(Listen),
    /// A certificate cannot be used.
    #[error("{}: {problem}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Two packs of one name.
    #[error("two packs are called {0:?}")]
    SameName(String),
    /// No packs.
    #[error("there is no pack to serve")]
    NoPack,
    /// Threads cannot be started.
    #[error("threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

/// A server that listens already.
pub struct Server {
    app: Arc<App>,
    sockets: Vec<(Listen, Socket)>,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Put a server together and listen. Packs are loaded when they are first used.
    ///
    /// # Errors
    /// Addresses that are taken or need a token, certificates that cannot be used, packs of one name.
    pub async fn bind(
        options: ServerOptions,
        device: DeviceName,
        cores: Cores,
        mode: Option<Mode>,
        packs: Vec<ServedPack>,
    ) -> Result<Self, ServeError> {
        if packs.is_empty() {
            return Err(ServeError::NoPack);
        }
        for (at, pack) in packs.iter().enumerate() {
            if packs[..at].iter().any(|other| other.name == pack.name) {
                return Err(ServeError::SameName(pack.name.clone()));
            }
        }
        if options.tokens.is_empty()
            && let Some(open) = options.listen.iter().find(|l| !l.is_local())
        {
            return Err(ServeError::NoToken(open.clone()));
        }
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let mut sockets = Vec::new();
        for asked in &options.listen {
            let socket = listen(asked).await?;
            sockets.push((socket.address(asked), socket));
        }
        let metrics = Arc::new(Metrics::default());
        let studio = Arc::new(Studio::new(Packs::new(cores, mode, packs)));
        let queue = LocalQueue::start(options.queue, studio.clone(), metrics.clone())?;
        let openapi = crate::openapi::document(
            studio.packs.all(),
            &options.limits,
            !options.tokens.is_empty(),
        );
        let app = App {
            live: crate::live::Sessions::new(options.limits.live),
            studio,
            queue: Arc::new(queue),
            metrics,
            options,
            device,
            chosen: Mutex::default(),
            attempts: token::Attempts::default(),
            reading: Arc::new(Semaphore::new(AT_A_TIME)),
            bodies: AtomicUsize::new(0),
            started: Instant::now(),
            stopping: watch::Sender::new(false),
            openapi: openapi.into(),
        };
        Ok(Server { app: Arc::new(app), sockets, tls })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<Listen> {
        self.sockets.iter().map(|(listen, _)| listen.clone()).collect()
    }

    /// The models that it serves.
    pub fn models(&self) -> Vec<String> {
        self.app.packs().iter().map(|pack| pack.name.clone()).collect()
    }

    /// Serve until `stop` is done. Then no more work is taken, what was taken is finished, and what came of it can be fetched until the time of grace is over.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Server { app, sockets, tls } = self;
        let router = crate::routes::router(&app);
        let room = Arc::new(Semaphore::new(app.options.limits.connections));
        let acceptor = |listen: &Listen| {
            let tls = tls.clone().filter(|_| matches!(listen, Listen::Tcp(_)));
            let (router, app, room) = (router.clone(), app.clone(), room.clone());
            Arc::new(Acceptor { router, app, room, tls })
        };
        let serving: Vec<_> = sockets
            .into_iter()
            .map(|(listen, socket)| tokio::spawn(acceptor(&listen).serve(socket)))
            .collect();
        stop.await;
        app.queue.drain();
        app.live.close();
        let end = Instant::now() + app.options.grace;
        while Instant::now() < end && app.queue.owed().running > 0 {
            tokio::time::sleep(LOOK).await;
        }
        let fetched = (Instant::now() + FETCHING).min(end);
        while Instant::now() < fetched && app.queue.owed().unfetched > 0 {
            tokio::time::sleep(LOOK).await;
        }
        let told = Instant::now() + LINGERING;
        while Instant::now() < told && app.live.counts() != (0, 0) {
            tokio::time::sleep(LOOK).await;
        }
        app.stopping.send_replace(true);
        let end = tokio::time::Instant::now() + LINGERING;
        for one in serving {
            // What does not end by itself is cut off: nothing that was taken is waited for there.
            let _ = tokio::time::timeout_at(end, one).await;
        }
    }
}
