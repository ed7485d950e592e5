//! `serve`: arguments to a server, and what it says when it has started.

use crate::args::ServeArgs;
use crate::output::Output;
use crate::{devices, interrupt, progress};
use anyhow::{Context, Result, ensure};
use rockshard_server::{
    Limits, Listen, QueueLimits, ServedPack, Server, ServerOptions, TlsFiles, random_word,
};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How often is looked whether the server is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Threads that speak HTTP, and threads that read images.
const TALKERS: usize = 2;
const READERS: usize = 4;
/// Jobs that are done at a time beside one for each core: one is with the host (encoding, noise) while the cores are busy.
const BESIDE_CORES: usize = 2;

/// Shorter tokens can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// `serve`.
pub fn run(args: &ServeArgs, out: &Output) -> Result<ExitCode> {
    let (tokens, made) = tokens(args)?;
    let packs = args.packs.iter().map(|text| open(text)).collect::<Result<Vec<_>>>()?;
    let cores = devices::cores(&args.device)?;
    let running = usize::from(cores.options().cores) + BESIDE_CORES;
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let options = ServerOptions {
        listen: args.listen.clone(),
        tokens,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        origins: args.allow_origin.clone(),
        queue: QueueLimits { waiting: args.queue, running, ..QueueLimits::default() },
        limits: Limits { live: args.live, ..Limits::default() },
        log_prompts: args.log_prompts,
        grace: Duration::from_secs(args.grace),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(TALKERS)
        .max_blocking_threads(READERS)
        .enable_all()
        .build()?;
    let (device, mode) = (args.device.device, args.device.mode.chosen());
    let secure = options.tls.is_some();
    runtime.block_on(async {
        let server = Server::bind(options, device, cores, mode, packs).await?;
        started(&server, secure, made.as_deref(), out);
        server.serve(stopped()).await;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Until Ctrl-C or SIGTERM.
async fn stopped() {
    while interrupt::go_on().is_continue() {
        tokio::time::sleep(LOOK).await;
    }
}

/// The tokens, and the one that was made because none was given.
fn tokens(args: &ServeArgs) -> Result<(Vec<String>, Option<String>)> {
    if let Some(path) = &args.token_file {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text.lines().map(str::trim);
        let tokens: Vec<String> =
            lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect();
        ensure!(!tokens.is_empty(), "{}: it has no token; write one a line", path.display());
        // Browsers can send these in every place where a token goes.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let good = |token: &String| token.len() >= SHORTEST_TOKEN && token.chars().all(plain);
        ensure!(
            tokens.iter().all(good),
            "{}: a token must have at least {SHORTEST_TOKEN} letters, digits or -._~, and nothing else; `openssl rand -hex 16` makes one",
            path.display()
        );
        return Ok((tokens, None));
    }
    if args.listen.iter().all(Listen::is_local) {
        return Ok((Vec::new(), None));
    }
    let made = random_word();
    Ok((vec![made.clone()], Some(made)))
}

/// A pack by NAME=PACK, or by its folder's name.
fn open(text: &str) -> Result<ServedPack> {
    let named = text.split_once('=').filter(|(name, _)| !name.contains('/'));
    let (name, path) = match named {
        Some((name, path)) => (name.to_owned(), path),
        None => {
            let folder = std::fs::canonicalize(text).with_context(|| text.to_owned())?;
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_else(|| "pack".into()), text)
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "{name:?} is no name for a model: letters, digits and -_.: are taken; give one as NAME={path}"
    );
    Ok(ServedPack::open(name, Path::new(path))?)
}

fn started(server: &Server, secure: bool, made: Option<&str>, out: &Output) {
    let scheme = if secure { "https" } else { "http" };
    let address = |listen: &Listen| match listen {
        Listen::Tcp(address) => format!("{scheme}://{address}/"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    };
    let addresses: Vec<String> = server.addresses().iter().map(address).collect();
    let models = server.models();
    let value = json!({ "addresses": addresses, "models": models, "token": made });
    out.result(&value, || {
        let mut lines = vec![format!("serving {} at {}", models.join(", "), addresses.join(", "))];
        if let Some(token) = made {
            lines.push(format!("token: {token}"));
        }
        lines.join("\n")
    });
    if !secure && server.addresses().iter().any(|listen| !listen.is_local()) {
        progress::line(
            "rockshard: without TLS the token and the pictures can be read on the way; --tls-cert and --tls-key make the connections secure",
        );
    }
}
