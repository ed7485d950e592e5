//! The converter: ONNX models to sandwich-scaled, tiled, sharded packs.
//!
//! [`convert`] takes a model apart, cuts it into shards ([`partition`]), rewrites each for the NPU ([`passes`]), and writes a pack
//! with the unchanged pieces beside them as the reference that validation compares with.

mod calibrate;
mod compile;
mod convert;
mod emit;
mod error;
mod golden;
mod lora;
mod noise;
pub mod options;
mod pack;
pub mod partition;
pub mod passes;
mod reference;
mod source;
mod toolkit;

pub use calibrate::Sample;
pub use convert::{Progress, Request, convert};
pub use emit::write_onnx;
pub use error::ConvertError;
pub use golden::Recording;
pub use lora::{LoraError, LoraFile};
pub use pack::PackWriter;
pub use source::{Part, Source};
pub use toolkit::{Failure, Toolkit};
