//! What every route may use.

use crate::metrics::{Metrics, Readings};
use crate::options::ServerOptions;
use crate::packs::{Kind, ServedPack};
use crate::queue::Queue;
use crate::studio::Studio;
use rockshard::DeviceName;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::watch;

/// What every route may use.
pub struct App {
    /// Packs and cores.
    pub studio: Arc<Studio>,
    /// What waits for them.
    pub queue: Arc<dyn Queue>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// How the server is used.
    pub options: ServerOptions,
    /// The device.
    pub device: DeviceName,
    /// Live sessions.
    pub live: crate::live::Sessions,
    /// The model that A1111's clients chose.
    pub chosen: Mutex<Option<String>>,
    /// Failed attempts at a token.
    pub attempts: crate::http::token::Attempts,
    /// How many pictures are read at a time.
    pub reading: Arc<tokio::sync::Semaphore>,
    /// Bytes of bodies that are being read or looked at.
    pub bodies: std::sync::atomic::AtomicUsize,
    /// When the server was started.
    pub started: Instant,
    /// Whether it is about to stop.
    pub stopping: watch::Sender<bool>,
    /// `/openapi.json`.
    pub openapi: bytes::Bytes,
}

impl App {
    /// Whether times are modelled.
    pub fn is_modelled(&self) -> bool {
        self.device == DeviceName::Sim
    }

    /// Whether the server is about to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The packs.
    pub fn packs(&self) -> &[ServedPack] {
        self.studio.packs.all()
    }

    /// The first pack that draws, or that describes.
    pub fn first(&self, draws: bool) -> Option<&ServedPack> {
        self.packs().iter().find(|pack| matches!(pack.kind, Kind::Draws(_)) == draws)
    }

    /// All metrics as Prometheus reads them.
    pub fn metrics_text(&self) -> String {
        let (load, activity, packs) =
            (self.queue.load(), &*self.studio.activity, &self.studio.packs);
        self.metrics.text(&Readings { load, activity, packs, live: &self.live })
    }
}
