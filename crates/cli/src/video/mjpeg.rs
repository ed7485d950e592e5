//! MJPEG over HTTP on the loopback address: a page with the latest frame, for a quick look.

use anyhow::{Context, Result};
use rockshard::Picture;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tiny_http::{Header, Request, Response, Server, StatusCode};

/// Quality of the JPEG files.
const QUALITY: u8 = 85;
/// Between the frames of a stream.
const BOUNDARY: &str = "frame";
const PAGE: &str = "<!doctype html><title>rockshard stream</title>\
    <style>body{margin:0;background:#111;display:grid;place-items:center;min-height:100vh}img{min-width:50vmin}</style>\
    <img src=\"/stream\" alt=\"the stream\">";

/// The latest frame, and how many there were.
#[derive(Default)]
struct Latest {
    shown: Mutex<(u64, Arc<Vec<u8>>)>,
    changed: Condvar,
}

/// A server of frames.
pub struct Mjpeg {
    server: Arc<Server>,
    latest: Arc<Latest>,
}

impl Mjpeg {
    /// Listen on the loopback address.
    pub fn open(port: u16) -> Result<Self> {
        let server = Server::http((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("127.0.0.1:{port}"))?;
        let (server, latest) = (Arc::new(server), Arc::new(Latest::default()));
        let (listening, frames) = (server.clone(), latest.clone());
        std::thread::spawn(move || {
            for request in listening.incoming_requests() {
                let frames = frames.clone();
                // A viewer that is slow or gone holds up nobody.
                std::thread::spawn(move || answer(request, frames));
            }
        });
        Ok(Mjpeg { server, latest })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("http://{}/", self.server.server_addr())
    }

    /// Show a frame to whoever looks.
    pub fn show(&self, picture: &Picture) -> Result<()> {
        let bytes = Arc::new(picture.to_jpeg(QUALITY)?);
        let mut shown = self.latest.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = (shown.0 + 1, bytes);
        self.latest.changed.notify_all();
        Ok(())
    }
}

fn answer(request: Request, latest: Arc<Latest>) {
    let typed =
        |kind: &str| Header::from_bytes("Content-Type", kind).into_iter().collect::<Vec<_>>();
    // Nothing can be done about a viewer that has gone.
    let _ = match request.url() {
        "/" => request.respond(Response::from_string(PAGE).with_header(
            Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("a plain header"),
        )),
        "/stream" => {
            let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
            let frames = Frames { latest, seen: 0, left: Vec::new(), at: 0 };
            request.respond(Response::new(StatusCode(200), typed(&kind), frames, None, None))
        }
        _ => request.respond(
            Response::from_string("/ is the page, /stream the frames").with_status_code(404),
        ),
    };
}

/// Frames one after the other, as a body that never ends.
struct Frames {
    latest: Arc<Latest>,
    seen: u64,
    left: Vec<u8>,
    at: usize,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.left.len() {
            let shown = self.latest.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let (shown, _) = self
                .latest
                .changed
                .wait_timeout_while(shown, Duration::from_secs(60), |s| s.0 == self.seen)
                .unwrap_or_else(PoisonError::into_inner);
            if shown.0 == self.seen {
                return Ok(0);
            }
            self.seen = shown.0;
            let bytes = &shown.1;
            let head = format!(
                "--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
                bytes.len()
            );
            self.left = [head.as_bytes(), bytes, b"\r\n"].concat();
            self.at = 0;
        }
        let count = buffer.len().min(self.left.len() - self.at);
        buffer[..count].copy_from_slice(&self.left[self.at..][..count]);
        self.at += count;
        Ok(count)
    }
}
