//! Live sessions: simulated webcams, each of a colour of its own, at ten frames a second. What must hold in any case ends the program when it does not.
//!
//!     cargo run --release -p rockshard-benches --example serve_live -- target/release/rockshard PACK --seconds 60
#![allow(clippy::print_stdout)]

mod serving;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use serving::{Connection, Server, quantile};
use std::collections::HashMap;
use std::io::Cursor;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

/// Frames a second of a webcam.
const RATE: f64 = 10.0;
/// Their colours, and those of their pictures: little of a frame changes at this strength.
const COLOURS: [[u8; 3]; 4] = [[220, 30, 30], [30, 160, 40], [40, 60, 220], [235, 225, 60]];
const STRENGTH: f64 = 0.04;
/// A picture's latency at most, in frames at the rate that a session gets.
const LATENCY: f64 = 3.0;
/// Bytes of a frame's and of a picture's header.
const FRAME_HEADER: usize = 16;
const PICTURE_HEADER: usize = 24;

/// What is measured.
#[derive(Parser)]
struct Args {
    /// The program.
    binary: String,
    /// A pack that draws.
    pack: String,
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// What a webcam got.
#[derive(Default)]
struct Got {
    sent: u64,
    drawn: u64,
    dropped: u64,
    latencies: Vec<f64>,
}

type Socket = WebSocket<TcpStream>;

fn open(address: &str) -> Result<Socket> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let request = format!("ws://{address}/v1/live");
    let (mut socket, _) = tungstenite::client(request, stream)?;
    let start = json!({
        "type": "start", "source": "pictures", "prompt": "a large red circle on a white background",
        "strength": STRENGTH, "format": "png",
    });
    socket.send(Message::text(start.to_string()))?;
    loop {
        let said = told(&socket.read()?)?;
        match said["type"].as_str() {
            Some("hello") => break,
            Some("error") => bail!("{said}"),
            _ => {}
        }
    }
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(5)))?;
    Ok(socket)
}

fn told(message: &Message) -> Result<Value> {
    match message {
        Message::Text(text) => Ok(serde_json::from_str(text)?),
        _ => Ok(Value::Null),
    }
}

fn frame(seq: u32, colour: [u8; 3]) -> Result<Vec<u8>> {
    let mut message = vec![1, 1, 0, 0];
    message.extend(seq.to_be_bytes());
    message.extend(0u64.to_be_bytes());
    ensure!(message.len() == FRAME_HEADER, "a header");
    let mut file = Cursor::new(Vec::new());
    RgbImage::from_pixel(128, 128, Rgb(colour)).write_to(&mut file, ImageFormat::Png)?;
    message.extend(file.into_inner());
    Ok(message)
}

/// Which webcam's colour a picture is nearest to.
fn nearest(picture: &[u8]) -> Result<usize> {
    let pixels = image::load_from_memory(picture)?.into_rgb8();
    let mut mean = [0.0; 3];
    for pixel in pixels.pixels() {
        (0..3).for_each(|c| mean[c] += f64::from(pixel[c]));
    }
    let count = f64::from(pixels.width() * pixels.height());
    let away = |colour: &[u8; 3]| -> f64 {
        (0..3).map(|c| (mean[c] / count - f64::from(colour[c])).powi(2)).sum()
    };
    let best = COLOURS.iter().enumerate().min_by(|a, b| away(a.1).total_cmp(&away(b.1)));
    Ok(best.map(|(at, _)| at).unwrap_or(0))
}

/// Send frames at the webcam's rate, and take what comes.
fn webcam(address: &str, number: usize, end: Instant) -> Result<Got> {
    let mut socket = open(address)?;
    let mut got = Got::default();
    let mut since: HashMap<u32, Instant> = HashMap::new();
    let began = Instant::now();
    while Instant::now() < end {
        if began.elapsed().as_secs_f64() * RATE >= got.sent as f64 {
            let seq = got.sent as u32;
            since.insert(seq, Instant::now());
            socket.send(Message::binary(frame(seq, COLOURS[number])?))?;
            got.sent += 1;
        }
        let message = match socket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        match message {
            Message::Binary(bytes) => {
                let seq = u32::from_be_bytes(bytes[4..8].try_into()?);
                let sent =
                    since.remove(&seq).with_context(|| format!("frame {seq} was not sent"))?;
                got.latencies.push(sent.elapsed().as_secs_f64());
                got.drawn += 1;
                let whose = nearest(&bytes[PICTURE_HEADER..])?;
                ensure!(whose == number, "webcam {number} got a picture of webcam {whose}");
            }
            Message::Text(_) => {
                let said = told(&message)?;
                match said["type"].as_str() {
                    Some("dropped") => {
                        let seq = said["seq"].as_u64().context("seq")? as u32;
                        since.remove(&seq).with_context(|| format!("frame {seq} was not sent"))?;
                        got.dropped += 1;
                    }
                    Some("error") => bail!("{said}"),
                    _ => {}
                }
            }
            _ => {}
        }
        ensure!(since.len() < 8, "{} frames are unanswered: a queue grows", since.len());
    }
    Ok(got)
}

fn active(address: &str) -> Result<u64> {
    let cores = Connection::open(address)?.request("GET", "/v1/cores", "", None)?.json()?;
    cores["live"]["active"].as_u64().context("live.active")
}

fn main() -> Result<()> {
    let args = Args::parse();
    let server = Server::start(&args.binary, &args.pack, &["--quiet"])?;
    // The first session loads the model.
    drop(open(&server.address)?);
    let start = Instant::now();
    let end = start + Duration::from_secs(args.seconds);
    let early = start + Duration::from_secs(args.seconds / 6);
    let (got, memory) = std::thread::scope(|scope| -> Result<_> {
        let address = &server.address;
        let cams: Vec<_> =
            (0..COLOURS.len()).map(|n| scope.spawn(move || webcam(address, n, end))).collect();
        serving::sleep_until(early);
        let first = server.resident()?;
        serving::sleep_until(end - Duration::from_millis(500));
        let last = server.resident()?;
        let joined =
            cams.into_iter().map(|c| c.join().map_err(|_| anyhow::anyhow!("a webcam panicked"))?);
        Ok((joined.collect::<Result<Vec<Got>>>()?, [first, last]))
    })?;
    let mut total = 0.0;
    for (number, mut one) in got.into_iter().enumerate() {
        let rate = one.drawn as f64 / args.seconds as f64;
        let (p50, p95) = (quantile(&mut one.latencies, 0.5), quantile(&mut one.latencies, 0.95));
        println!(
            "webcam {number}   {} frames sent, {} drawn ({rate:.2}/s), {} replaced; latency p50 {:.0} ms, p95 {:.0} ms = {:.2} frames",
            one.sent,
            one.drawn,
            one.dropped,
            p50 * 1e3,
            p95 * 1e3,
            p95 * rate
        );
        ensure!(p95 * rate < LATENCY, "p95 is {:.2} frames", p95 * rate);
        total += rate;
    }
    println!(
        "together   {total:.2} frames/s; memory {:.1} MB early, {:.1} MB at the end",
        memory[0] as f64 / 1e6,
        memory[1] as f64 / 1e6
    );
    // A client that goes away: how soon its place is free, beside the time of a frame.
    let waiting = Instant::now();
    while active(&server.address)? > 0 {
        ensure!(waiting.elapsed() < Duration::from_secs(5), "places are not given back");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (gone, _stays) = (open(&server.address)?, open(&server.address)?);
    ensure!(active(&server.address)? == 2, "two sessions are not active");
    let left = Instant::now();
    drop(gone);
    while active(&server.address)? > 1 {
        ensure!(left.elapsed() < Duration::from_secs(5), "a place is not given back");
        std::thread::sleep(Duration::from_millis(1));
    }
    let freed = left.elapsed().as_secs_f64();
    println!(
        "leaving    a place is free after {:.1} ms; a frame takes {:.1} ms",
        freed * 1e3,
        4e3 / total
    );
    ensure!(freed < 4.0 / total, "leaving takes longer than a frame");
    Ok(())
}
