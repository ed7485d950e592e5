//! The virtual clock: when runs start and end on cores that share one memory. Everything it gives is modelled time.
//!
//! A [`Task`] is a run of a shard: it waits for the tasks it needs, then for its core (or for all of its cores), and does its phases one
//! after the other. [`simulate`] moves from event to event. Each core has one queue, first in first out, and a task that was started is
//! not interrupted, as in the NPU's driver (docs/rk3588.md 1.1). While several cores work, the part of a phase that waits for the memory takes
//! longer: see [`Memory`].

mod chrome;
mod label;
mod memory;
mod schedule;
mod simulate;
mod task;
mod timeline;

pub use chrome::chrome_trace;
pub use memory::Memory;
pub use schedule::{Schedule, Span};
pub use simulate::{simulate, simulate_replicated};
pub use task::{Lane, Phase, Task};
pub use timeline::timeline_svg;
