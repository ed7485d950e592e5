//! Packs on devices: checked files, one executor thread a core, pipelines with several items in flight, and traces.
//!
//! [`Runner`] opens every shard of the models it
//! is given on the core the manifest pins it to, and runs items through them; results do not depend on how runs interleave,
//! because a shard is a function of its inputs.
//!
//! A core may fail, hang, or give NaN: the shard is then tried again and elsewhere, and every such [`Incident`] is logged and kept.
//! What is given as a result was computed by a run without a fault.

mod call;
mod cancel;
mod error;
mod executor;
mod fault;
mod incident;
mod plan;
mod resident;
mod runner;
mod trace;

pub use cancel::Cancel;
pub use error::RuntimeError;
pub use incident::{Action, Incident};
pub use runner::{Options, Runner, TensorMap};
pub use trace::{ScheduledRun, ShardRun, Trace};
