//! Options of `serve`.

use super::DeviceArgs;
use clap::Args;
use rockshard_server::Listen;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard serve out/demo/pack out/demo/vlm
  rockshard serve lighthouse=PACK --listen 127.0.0.1:9000
  rockshard serve PACK --listen 0.0.0.0:8080 --token-file tokens.txt
  rockshard serve PACK --listen unix:/run/rockshard/http.sock
  rockshard serve PACK --listen 0.0.0.0:8443 --tls-cert c.pem --tls-key k.pem"#;

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Packs to serve, as PACK or NAME=PACK; without a name, the folder's is taken.
    #[arg(required = true, value_name = "[NAME=]PACK")]
    pub packs: Vec<String>,
    /// Where to listen: an address with its port, or unix:PATH. May be given several times.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen)]
    pub listen: Vec<Listen>,
    /// File of tokens, one a line; every request needs one. Where other machines reach the server and no file is given, a token is made and printed.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain, PEM; with it the TCP addresses are served over TLS.
    #[arg(long, value_name = "FILE.pem", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Another origin whose pages may use the server, e.g. https://draw.example.org: a reverse proxy's, or another page's. May be given several times.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub allow_origin: Vec<String>,
    /// Requests that may wait.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    pub queue: usize,
    /// Live sessions that draw at a time; more wait in line.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub live: usize,
    /// How long the server goes on for what it has taken when it is told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub grace: u64,
    /// Log what is asked for; otherwise prompts are not logged.
    #[arg(long)]
    pub log_prompts: bool,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=100_000).contains(n));
    number.ok_or_else(|| "it must be a number from 1 to 100000".into())
}

fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("unix: needs a path".into());
        }
        return Ok(Listen::Unix(path.into()));
    }
    let address = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = address.as_deref().unwrap_or(text).parse();
    address.map(Listen::Tcp).map_err(|_| {
        "it must be an address and a port, as 127.0.0.1:8080 or [::1]:8080, or unix:PATH".into()
    })
}

fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |host: &&str| !host.is_empty() && !host.contains(['/', '*', ' ', '?', '#']);
    match host.filter(plain) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it must be as https://draw.example.org, without a path".into()),
    }
}
