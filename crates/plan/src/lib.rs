//! What a pack takes in each parallel mode, modelled: nothing is computed and no weight is read.
//!
//! - **pipeline**: shards on the cores they are pinned to, several items in flight;
//! - **replicate**: each core runs whole items;
//! - **split**: one item, shards of one stage on several cores at once;
//! - **mask**: the vendor's way, every shard on several cores under one mask. For comparison: the runtime does not use it.
//!
//! [`ModelCost`] prices a model's shards by their operators, [`tasks`] lays them out for a mode, the virtual clock runs them, and [`Figures`]
//! says what came out. [`Plan`] does all of it for a pack and picks; [`pick`] chooses between the two modes of the runtime without reading a
//! shard.

mod cost;
mod figures;
mod mode;
mod network;
mod pick;
mod picture;
mod plan;
mod stream;

pub use cost::{ModelCost, PlanError, ShardCost, Work};
pub use figures::{Figures, Shares, figures};
pub use mode::{Parallel, tasks};
pub use network::NetworkCost;
pub use pick::pick;
pub use picture::picture_tasks;
pub use plan::{ModelPlan, Plan};
pub use stream::{FrameCost, StreamCostError, StreamCosts, StreamFigures, UnchangedCosts, stream};
