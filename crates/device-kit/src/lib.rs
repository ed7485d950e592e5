//! What devices, and what drives them, are tested with.
//!
//! [`conformance`] has the cases that every device passes, on a board too. [`MockDevice`] is a device without a graph, whose values show any
//! mistake in wiring; [`FaultyDevice`] makes any device fail, hang or lie on demand; [`packs`] are packs for
//! them.

pub mod conformance;
mod faulty;
mod mock;
pub mod packs;

pub use faulty::{Fault, FaultyDevice, Place};
pub use mock::MockDevice;
