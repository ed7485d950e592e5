//! Modelled time and memory of a graph on the RK3588's NPU, one core, at 1 GHz.
//!
//! [`Rk3588`] is the description of the chip: every constant names where it comes from, as a section of
//! `docs/rk3588.md` ("2.4") or of `docs/toolkit.md` ("toolkit 4"), and can be read from and written to JSON.
//! Cycle counts of convolutions and matrix products equal the vendor compiler's own; times multiply them by measured
//! factors. Everything here is modelled: print it with that word.

mod bias;
mod boundary;
mod chip;
mod description;
mod layer;
mod limits;
mod memory;
mod operator;
mod transpose;

pub use bias::fused_bias;
pub use boundary::Boundary;
pub use chip::Rk3588;
pub use description::{CHIP_VARIABLE, DescriptionError};
pub use layer::{Layer, layers};
pub use limits::{Fallback, LimitError};
pub use memory::GraphCost;
pub use operator::OpCost;
