//! One owner of the NPU's cores for a whole process, and what runs on them.
//!
//! [`Cores`] has a thread for each core, one ledger of device memory and one queue a core, fair between clients at the grain of a shard.
//! A [`LoadedPack`] is a pack's models on the cores; several are there at once. A run, submitted with [`RunOptions`] of its own, gives a
//! [`Ticket`] and in the end an [`Outcome`]: outputs, and this run's [`Trace`] and incidents. Results do not depend on how runs
//! interleave, because a shard is a function of its inputs.
//!
//! A core may fail, hang, or give NaN: the shard is then tried again and elsewhere, and every such [`Incident`] is logged and kept.
//! What is given as a result was computed by a run without a fault.
//!
//! The arrows within the crate: `cores` to `run` and `keeper`, these to `shared` (lanes, ledger), and `executor` to nothing of them: a
//! lane knows a `Job` only.

mod cancel;
mod cores;
mod error;
mod executor;
mod fault;
mod incident;
mod item;
mod keeper;
mod ledger;
mod loaded;
mod options;
mod queue;
mod run;
mod shared;
mod trace;

pub use cancel::Cancel;
pub use cores::{Cores, LoadedPack, Ticket};
pub use error::RuntimeError;
pub use incident::{Action, Incident};
pub use options::{Client, CoresOptions, Event, Observer, Priority, RunOptions};
pub use run::Outcome;
pub use trace::{ScheduledRun, ShardRun, Submission, Trace};

/// Tensors by name.
pub type TensorMap = std::collections::BTreeMap<String, rockshard_tensor::Tensor>;
