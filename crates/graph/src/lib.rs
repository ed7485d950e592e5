//! Static-shape operator graphs.
//!
//! A [`Graph`] holds values and nodes. Every node has one output; every shape is known; all real-valued values have type
//! float32 (constants may be *stored* as float16). Nodes are always in an order in which they can run. Rewrites are
//! [`Patch`]es that rules propose and [`rewrite`] applies, verifying after each pass.

mod display;
mod fuse;
mod graph;
mod infer;
mod op;
mod patch;
mod rebuild;
mod rewrite;
mod subgraph;
mod verify;

pub use fuse::{Fusion, fusion_rules};
pub use graph::{Graph, Links, Node, NodeId, Value, ValueId};
pub use infer::{ShapeError, broadcast, infer};
pub use op::{Binary, HostOp, Op, Pool, Reduce, Resize, Unary, Window};
pub use patch::Patch;
pub use rebuild::Rebuild;
pub use rewrite::{Log, Rule, rewrite};
pub use verify::VerifyError;
