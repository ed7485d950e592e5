//! StreamDiffusion (Kodaira et al. 2023, arXiv 2312.12491): a stream of frames, each drawn with a prompt that may change, several of them on
//! their way at once. `docs/stream.md` draws it.
//!
//! [`Frames`] is the driver; [`Chain`] is the arithmetic of a frame's way, [`SimilarityFilter`] skips what is like before.

mod chain;
mod filter;
mod frames;
mod levels;
mod prepared;
mod settings;
mod steering;

pub use chain::{Chain, ChainRow, Steer};
pub use filter::{Similarity, SimilarityFilter};
pub use frames::{Entered, FrameSource, Frames, Group, StreamParts};
pub use levels::Level;
pub use settings::{CfgType, INFERENCE_STEPS, Settings, StreamConfig};
