//! The converter: ONNX models to sandwich-scaled, tiled, sharded packs.
//!
//! [`convert`] takes a model apart ([`Source`]), rewrites it for the NPU ([`passes`]), cuts it into shards ([`partition`]), and writes a pack
//! with the unchanged pieces beside them as the reference that validation compares with.

mod calibrate;
mod compile;
mod convert;
mod emit;
mod error;
mod family;
mod golden;
mod keys_values;
mod language;
mod listing;
mod lock;
mod lora;
mod measure;
mod noise;
pub mod options;
mod original;
mod pack;
mod part;
pub mod partition;
pub mod passes;
mod recipe;
mod reference;
mod request;
mod rounding;
mod scaling;
mod shards;
mod sizes;
mod toolkit;
mod trial;

pub use calibrate::Sample;
pub use convert::convert;
pub use emit::write_onnx;
pub use error::ConvertError;
pub use family::{CompanionFile, Language, Part, Source};
pub use golden::Recording;
pub use language::convert_language;
pub use listing::list_graph;
pub use lora::{LoraError, LoraFile, fuse_lora};
pub use measure::Engines;
pub use original::check_original;
pub use pack::PackWriter;
pub use request::{Calibrating, ConvertProgress, ConvertRequest, Fixed};
pub use rockshard_import::ImportError;
pub use toolkit::{Failure, Toolkit};
