//! Packs on devices: checked files, one executor thread a core, pipelines with several items in flight, and traces.
//!
//! [`Pack`] opens a pack directory and checks what it hands out against the manifest. [`Runner`] opens every shard of the models it
//! is given on the core the manifest pins it to, and runs items through them; results do not depend on how runs interleave,
//! because a shard is a function of its inputs and tensors are passed by name.

mod error;
mod executor;
mod pack;
mod runner;
mod timeline;
mod trace;

pub use error::RuntimeError;
pub use pack::{Pack, PackError, Variant};
pub use runner::{Devices, Placement, Runner, TensorMap};
pub use timeline::timeline_svg;
pub use trace::{ScheduledRun, ShardRun, Trace};
