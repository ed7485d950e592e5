//! `manifest.json`: the only contract between the converter and everything that runs a pack.
//!
//! A pack is a directory; the manifest names each of its files with size and SHA-256, the models in it, their shards, and for
//! every shard the core, the tensors that cross its boundary, what the passes did to it and what it is modelled to cost.

mod digest;
mod extras;
mod language;
mod model;
mod words;

pub use digest::{Digest, FileEntry};
pub use extras::{Compiled, CompiledLayer, FusedLora, Golden, ImportCheck, LOGITS_FILE, Verified};
pub use language::LanguageConversion;
pub use model::{
    AttentionTiling, Conversion, CoreId, Generator, MANIFEST_FILE, Manifest, ManifestError, Model,
    ModelledCost, SCHEMA, SandwichRegion, Shard, TensorSpec,
};
pub use rockshard_tensor::{PathError, check_relative};
pub use words::{Companion, Family, Optimise, Placement, Role, UnknownWord};
