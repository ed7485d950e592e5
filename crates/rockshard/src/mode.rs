//! The planner's choice of a mode, for what is loaded onto cores.

use rockshard_pack::{Mode, Pack};
use rockshard_runtime::CoresOptions;

/// The mode in which a pack does `items` items soonest, modelled, within the memory limit; for one item, that which it was
/// converted for.
pub fn pick_mode(pack: &Pack, cores: &CoresOptions, items: usize) -> Mode {
    rockshard_plan::pick(pack.manifest(), cores.cores, items, cores.memory_limit)
}
