//! The rewrites, one file a pass. Each is exact in real arithmetic.

mod heads;
mod plane;
mod sandwich;
mod scale;
mod shuffle;
mod split;
mod tile;
mod tokens;

pub(crate) use heads::GROUP_MARK;
pub use heads::split_heads;
pub use plane::planes;
pub use sandwich::{Range, Ranges, Scales, choose_scales, uniform_scales};
pub use scale::apply_scales;
pub use shuffle::shuffled_linears;
pub use split::{SplitGraph, split};
pub use tile::{AttentionShape, attention_shape, tile_attention};
