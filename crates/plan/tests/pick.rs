//! Which mode is picked, on packs whose times can be worked out by hand.

use rockshard_device_kit::packs::{chain, pack_with};
use rockshard_manifest::{Model, ModelledCost, Placement};
use rockshard_pack::Mode;
use rockshard_plan::pick;

/// A chain of shards with these times, pinned to the cores in turn; 100 bytes of weights and 10 of activations each.
fn timed(micros: &[f64]) -> Model {
    let mut model = chain("m", micros.len(), 100, 10);
    for (shard, &micros) in model.shards.iter_mut().zip(micros) {
        shard.modelled = ModelledCost { micros, ..shard.modelled };
    }
    model
}

fn picked(micros: &[f64], placement: Placement, items: usize, limit: Option<u64>) -> Mode {
    let (_folder, pack) = pack_with(vec![timed(micros)], placement, &["graph"]);
    pick(pack.manifest(), 3, items, limit)
}

#[test]
fn the_mode_that_is_sooner_is_picked() {
    use Placement::{Replicate, RoundRobin};
    let (uneven, even) = ([10.0, 10.0, 70.0], [30.0, 30.0, 30.0]);
    let table = [
        ("one item runs as converted", &uneven, RoundRobin, 1, None, Mode::Pipeline),
        ("one item runs as converted", &uneven, Replicate, 1, None, Mode::Replicate),
        ("a slow stage holds a pipeline up", &uneven, RoundRobin, 9, None, Mode::Replicate),
        // Three items at once fill three cores sooner than a pipeline does.
        ("a pipeline has to fill", &even, RoundRobin, 3, None, Mode::Replicate),
        // Four leave two of three replicas idle at the end: 180 against 30 x 6.
        ("both take the same time", &even, RoundRobin, 4, None, Mode::Pipeline),
        ("both take the same time", &even, Replicate, 4, None, Mode::Replicate),
        // 300 bytes of weights and 10 on each of three cores.
        ("it must fit", &uneven, RoundRobin, 9, Some(330), Mode::Replicate),
        ("it does not fit", &uneven, RoundRobin, 9, Some(329), Mode::Pipeline),
    ];
    for (why, micros, placement, items, limit, mode) in table {
        assert_eq!(picked(micros, placement, items, limit), mode, "{why}, {items} items");
    }
}

#[test]
fn on_one_core_a_pack_runs_as_converted() {
    let (_folder, pack) = pack_with(vec![timed(&[1.0, 9.0])], Placement::Balanced, &["graph"]);
    assert_eq!(pick(pack.manifest(), 1, 8, None), Mode::Pipeline);
}
