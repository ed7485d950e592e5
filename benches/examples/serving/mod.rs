//! A running server, and requests to it over connections that are kept.
#![allow(dead_code)] // Each program uses some of it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server in a process of its own, which is ended with it.
pub struct Server {
    child: Child,
    /// Host and port.
    pub address: String,
}

impl Server {
    /// Start `rockshard serve` on a port that the system chooses.
    pub fn start(binary: &str, pack: &str, options: &[&str]) -> Result<Self> {
        let named = format!("tiny={pack}");
        let mut command = Command::new(binary);
        command.args(["serve", &named, "--listen", "127.0.0.1:0"]).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().context(binary.to_owned())?;
        let mut line = String::new();
        let out = child.stdout.take().context("no standard output")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line.split("http://").nth(1).and_then(|rest| rest.trim().strip_suffix('/'));
        let address = address.with_context(|| format!("the server says {line:?}"))?.to_owned();
        Ok(Server { child, address })
    }

    /// Resident bytes of its process.
    pub fn resident(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = text.split(' ').nth(1).context("statm")?.parse()?;
        Ok(pages * 4096)
    }

    /// A metric without labels, or with these.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = Connection::open(&self.address)?.request("GET", "/metrics", "", None)?.body;
        let text = String::from_utf8(text)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response.
pub struct Response {
    /// Status.
    pub status: u16,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// A connection that is kept between requests.
pub struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connect.
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        Ok(Connection { reader: BufReader::new(stream), host: address.to_owned() })
    }

    /// Send a request of JSON, or of nothing, as the client of a key.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> Result<Response> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if !key.is_empty() {
            head += &format!("Authorization: Bearer {key}\r\n");
        }
        if !body.is_empty() {
            head += "Content-Type: application/json\r\n";
        }
        head += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.reader.get_mut().write_all(head.as_bytes())?;
        self.response()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line)? > 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }

    fn response(&mut self) -> Result<Response> {
        let status = self.line()?;
        let status: u16 = status.split(' ').nth(1).context("no status")?.parse()?;
        let (mut length, mut retry_after) = (None, None);
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse::<usize>()?),
                "retry-after" => retry_after = Some(value.trim().parse()?),
                _ => {}
            }
        }
        let Some(length) = length else { bail!("a response without its length") };
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(Response { status, retry_after, body })
    }
}

/// The value below which this share of sorted values is.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Sleep until a time.
pub fn sleep_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}
