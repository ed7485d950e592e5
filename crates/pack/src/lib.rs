//! Packs: the directories that a conversion writes and everything else reads.
//!
//! [`Pack`] opens one and checks each file it hands out against the manifest. A shard has several graphs, its [`Variant`]s; [`Devices`]
//! says which of them its NPU takes. [`walk`] goes over a model's shards once for everybody who must know when a value is read
//! for the last time and at which scale it is stored; [`Footprint`] is the one formula of the device memory that models take
//! in a [`Mode`].

mod devices;
mod footprint;
mod mode;
mod pack;
mod walk;

pub use devices::Devices;
pub use footprint::Footprint;
pub use mode::{IN_FLIGHT_PER_CORE, Mode};
pub use pack::{Pack, PackError, Variant};
pub use walk::{Port, Walk, WalkedShard, last_uses, walk};
