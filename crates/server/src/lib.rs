//! Pictures, streams and captions over HTTP, and a page, from one board. `docs/server.md` describes it for its users.
//!
//! ```no_run
//! use rockshard_server::{Server, ServedPack, ServerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = rockshard::DeviceName::Sim;
//! let packs = vec![ServedPack::open("tiny".into(), "out/demo/pack".as_ref())?];
//! let runtime = tokio::runtime::Runtime::new()?;
//! runtime.block_on(async {
//!     let cores = rockshard::take_cores(device)?;
//!     let server = Server::bind(ServerOptions::default(), device, cores, None, packs).await?;
//!     println!("http://{}", server.addresses()[0]);
//!     server.serve(std::future::pending()).await;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! The way of a request: `http` lets it in, a route turns it into [`Work`](work::Work), a [`Queue`](queue::Queue) takes it and gives a
//! [`Job`](queue::Job), the route waits for that. The queue of this process does work with a `Studio`, which has the packs and the cores.

mod activity;
mod app;
mod http;
mod live;
mod metrics;
mod openapi;
mod options;
mod packs;
pub mod queue;
mod random;
mod routes;
mod server;
mod stopping;
mod studio;
pub mod work;

pub use options::{Limits, Listen, ServerOptions, TlsFiles};
pub use packs::{Kind, ServedPack};
pub use queue::local::QueueLimits;
pub use random::word as random_word;
pub use server::{ServeError, Server};
