//! A server under load: clients that ask again as soon as they are served, half of them for one picture at a time and half for eight, beside the same pictures
//! through `generate` without HTTP. What must hold in any case ends the program when it does not; the rest is printed. Shares and memory are held to their limits
//! from 100 seconds on.
//!
//!     cargo run --release -p rockshard-benches --example serve_load -- target/release/rockshard PACK --seconds 120
#![allow(clippy::print_stdout)]

mod serving;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use serving::{Connection, Server, quantile, sleep_until};
use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pictures that a client of the second kind asks for at once.
const MANY: u64 = 8;
/// Pictures of a run of `generate`.
const PEER: u64 = 200;
/// What is waited before memory has to be flat, over what it is looked at, and how much it may still grow.
const SETTLING: Duration = Duration::from_secs(20);
const SPAN: Duration = Duration::from_secs(10);
const GROWTH: f64 = 1.05;
/// Shares of both kinds may differ by this.
const UNFAIR: f64 = 0.10;
/// Seconds from which on shares and memory are held to that.
const LONG: u64 = 100;
/// Milliseconds.
const HEALTH_P99: f64 = 50.0;
const PROMPTS: [&str; 4] = [
    "a small yellow ring on a black background",
    "a large red circle on a white background",
    "a large green square on a white background",
    "a small blue triangle on a black background",
];

/// What is measured.
#[derive(Parser)]
struct Args {
    /// The program.
    binary: String,
    /// A pack that draws.
    pack: String,
    /// How long.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How many clients.
    #[arg(long, default_value_t = 64)]
    clients: usize,
}

/// What a client got.
#[derive(Default)]
struct Got {
    pictures: u64,
    /// Pictures of jobs that were over within the time.
    share: f64,
    jobs: u64,
    refused: u64,
    seeds: Vec<u64>,
}

/// Ask until the time is over.
fn client(address: &str, number: usize, end: Instant) -> Result<Got> {
    let (key, count) = (key(number), count(number));
    let mut connection = Connection::open(address)?;
    let mut got = Got::default();
    let mut seed = number as u64 * 1_000_000;
    while Instant::now() < end {
        let body =
            json!({ "prompt": PROMPTS[number / 2 % PROMPTS.len()], "n": count, "seed": seed });
        let response = connection.request("POST", "/v1/images/generations", &key, Some(&body))?;
        match response.status {
            200 => {
                let data = response.json()?["data"].clone();
                let seeds: Vec<u64> = data
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|d| d["seed"].as_u64())
                    .collect();
                let asked: Vec<u64> = (seed..seed + count).collect();
                ensure!(seeds == asked, "asked for seeds {asked:?}, got {seeds:?}");
                got.seeds.extend(seeds);
                (got.pictures, got.jobs) = (got.pictures + count, got.jobs + 1);
                got.share += if Instant::now() < end { count as f64 } else { 0.0 };
                seed += count;
            }
            429 | 503 => {
                let wait = response.retry_after.context("refused without Retry-After")?;
                got.refused += 1;
                sleep_until(end.min(Instant::now() + Duration::from_secs(wait)));
            }
            status => anyhow::bail!("status {status}: {}", String::from_utf8_lossy(&response.body)),
        }
    }
    Ok(got)
}

/// Pictures a second of `generate`, with their files, once it has started: from a run of many pictures and one of a single one.
fn peer(args: &Args) -> Result<f64> {
    let (one, all) = (generate(args, 1)?, generate(args, PEER)?);
    Ok((PEER - 1) as f64 / (all - one))
}

/// Seconds of a run of `generate`.
fn generate(args: &Args, count: u64) -> Result<f64> {
    let out = tempfile::tempdir()?;
    let file = out.path().join("p.png").display().to_string();
    let start = Instant::now();
    let output = Command::new(&args.binary)
        .args(["generate", &args.pack, "--prompt", PROMPTS[0], "--count", &count.to_string()])
        .args(["--out", &file, "--quiet"])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(start.elapsed().as_secs_f64())
}

/// Pictures of the jobs that are not over, as far as they are drawn.
fn begun(connection: &mut Connection, number: usize) -> Result<f64> {
    let jobs = connection.request("GET", "/v1/jobs", &key(number), None)?.json()?;
    let done = |job: &Value| {
        let [done, total] = ["done", "total"].map(|name| job["progress"][name].as_f64());
        done.unwrap_or(0.0) / total.unwrap_or(1.0).max(1.0)
    };
    let share: f64 = jobs["data"].as_array().into_iter().flatten().map(done).sum();
    Ok(share * count(number) as f64)
}

fn key(number: usize) -> String {
    format!("client-{number}")
}

/// Pictures that a client asks for at once.
fn count(number: usize) -> u64 {
    if number.is_multiple_of(2) { 1 } else { MANY }
}

/// Ask for `/health` until told to stop; milliseconds that it took.
fn health(address: &str, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut connection = Connection::open(address)?;
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let response = connection.request("GET", "/health", "", None)?;
        ensure!(response.status == 200, "/health is {}", response.status);
        took.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(took)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let before = peer(&args)?;
    let server = Server::start(&args.binary, &args.pack, &["--quiet"])?;
    let warm = json!({ "prompt": PROMPTS[0] });
    Connection::open(&server.address)?.request(
        "POST",
        "/v1/images/generations",
        "",
        Some(&warm),
    )?;
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let end = start + Duration::from_secs(args.seconds);
    let (got, mut health, memory) = std::thread::scope(|scope| -> Result<_> {
        let address = &server.address;
        let clients: Vec<_> =
            (0..args.clients).map(|n| scope.spawn(move || client(address, n, end))).collect();
        let prober = scope.spawn(|| health(address, &stop));
        let mut memory = Vec::new();
        while Instant::now() < end {
            memory.push((start.elapsed(), server.resident()?));
            std::thread::sleep(Duration::from_millis(500));
        }
        let mut connection = Connection::open(address)?;
        let begun =
            (0..args.clients).map(|n| begun(&mut connection, n)).collect::<Result<Vec<f64>>>()?;
        let joined = clients
            .into_iter()
            .map(|c| c.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        let mut got = joined.collect::<Result<Vec<Got>>>()?;
        got.iter_mut().zip(begun).for_each(|(got, begun)| got.share += begun);
        stop.store(true, Ordering::Relaxed);
        let health = prober.join().map_err(|_| anyhow::anyhow!("the prober panicked"))??;
        Ok((got, health, memory))
    })?;
    let took = start.elapsed().as_secs_f64();
    let after = peer(&args)?;

    let pictures: u64 = got.iter().map(|g| g.pictures).sum();
    let jobs: u64 = got.iter().map(|g| g.jobs).sum();
    let refused: u64 = got.iter().map(|g| g.refused).sum();
    let seeds: HashSet<u64> = got.iter().flat_map(|g| g.seeds.iter().copied()).collect();
    ensure!(seeds.len() as u64 == pictures, "{pictures} pictures of {} seeds", seeds.len());
    let done = server.metric("rockshard_jobs_finished_total{kind=\"draw\",outcome=\"done\"}")?;
    let accepted = server.metric("rockshard_jobs_accepted_total{kind=\"draw\"}")?;
    ensure!(done == accepted, "{accepted} jobs were taken, {done} done");
    ensure!(done == (jobs + 1) as f64, "{done} jobs were done, clients have {}", jobs + 1);
    println!(
        "jobs         {jobs} of {} clients in {took:.1} s, each once; {refused} refused with 429 or 503",
        args.clients
    );

    let kind = |many: bool| {
        let own = got.iter().enumerate().filter(|(n, _)| n.is_multiple_of(2) != many);
        let all: Vec<f64> = own.map(|(_, g)| g.share).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let (one, many) = (kind(false), kind(true));
    let unfair = (one - many).abs() / ((one + many) / 2.0);
    println!(
        "shares       {one:.1} pictures a client that asks for one, {many:.1} for eight: {:.1} % apart",
        unfair * 100.0
    );

    let p99 = quantile(&mut health, 0.99);
    println!(
        "/health      {} times, p50 {:.2} ms, p99 {p99:.2} ms",
        health.len(),
        quantile(&mut health, 0.5)
    );
    // Medians of the first and of the last ten seconds after it has settled; what is in flight goes up and down.
    let median = |from: Duration, to: Duration| {
        let within = memory.iter().filter(|(at, _)| (from..to).contains(at));
        quantile(&mut within.map(|(_, bytes)| *bytes as f64).collect::<Vec<_>>(), 0.5)
    };
    let whole = Duration::from_secs(args.seconds);
    let first = median(SETTLING, SETTLING + SPAN);
    let last = median(whole.saturating_sub(SPAN), whole);
    if args.seconds >= LONG {
        println!(
            "memory       {:.1} MB after {} s, {:.1} MB at the end",
            first / 1e6,
            SETTLING.as_secs(),
            last / 1e6
        );
    }
    let drawn: f64 = got.iter().map(|g| g.share).sum();
    let (rate, peer) = (drawn / args.seconds as f64, (before + after) / 2.0);
    println!(
        "throughput   {rate:.2} pictures/s, `generate` {before:.2} before and {after:.2} after: ratio {:.3}",
        rate / peer
    );

    ensure!(p99 < HEALTH_P99, "/health takes {p99:.1} ms");
    // In little time a client has few pictures, and memory has not settled.
    if args.seconds < LONG {
        return Ok(());
    }
    ensure!(unfair <= UNFAIR, "the shares are {:.1} % apart", unfair * 100.0);
    ensure!(last <= first * GROWTH, "memory grows");
    Ok(())
}
