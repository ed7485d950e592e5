//! What packs say of their shards: the walk, the memory, the modes.

use rockshard_device_kit::packs::{chain, model, pack, shard, spec};
use rockshard_manifest::{CoreId, Model, ModelledCost, Placement, Shard, TensorSpec};
use rockshard_pack::{Footprint, Mode, Port, Variant, walk};

/// Weights of all NPU shards, and the largest activations of each core; the host's shards do not count.
#[test]
fn memory_counts_weights_once_and_the_largest_shard_of_a_core() {
    let mut four = chain("m", 4, 100, 10);
    four.shards[3].modelled = ModelledCost { internal_bytes: 70, ..Default::default() };
    let host = shard("h".into(), CoreId::Host, vec![spec("v4")], "v5");
    four.shards.push(Shard { weight_bytes: 5000, ..host });
    let table = [
        (3, Mode::Pipeline, vec![70, 10, 10]),
        (2, Mode::Pipeline, vec![70, 10]),
        (1, Mode::Pipeline, vec![70]),
        (3, Mode::Replicate, vec![70, 70, 70]),
        (1, Mode::Replicate, vec![70]),
    ];
    for (cores, mode, activations) in table {
        let found = Footprint::of(&four, cores, mode);
        assert_eq!(found, Footprint { weights: 400, activations }, "{cores} cores, {mode}");
    }
    assert_eq!(Footprint::of(&four, 3, Mode::Pipeline).bytes(), 490);
}

#[test]
fn models_that_are_open_together_share_the_activations_of_a_core() {
    let [a, b] = [(100, 10), (7, 30)].map(|(weights, activations)| {
        Footprint::of(&chain("m", 3, weights, activations), 3, Mode::Pipeline)
    });
    let together = Footprint::together([&a, &b]);
    assert_eq!(together, Footprint { weights: 321, activations: vec![30; 3] });
    assert_eq!(Footprint::together([]).bytes(), 0);
}

#[test]
fn other_resolutions_are_not_open_together() {
    let (_folder, pack) = pack(1);
    let mut manifest = pack.manifest().clone();
    let at =
        |size: u32, weights| Model { resolution: Some([size; 2]), ..chain("u", 1, weights, 1) };
    manifest.models = vec![chain("text", 1, 1000, 1), at(64, 100), at(128, 10)];
    let bytes = |size: u32| Footprint::of_all(&manifest, Some([size; 2]), 3).bytes();
    assert_eq!([bytes(64), bytes(128), bytes(256)], [1101, 1011, 1001]);
    assert_eq!(manifest.resolutions(), [Some([64, 64]), Some([128, 128])]);
}

#[test]
fn the_walk_numbers_values_and_tells_who_needs_whom() {
    // v0 -> a -> v1 -> b -> v2 -> c (reads v2 and v1) -> v3; v1 is an output too.
    let scaled = |name: &str| TensorSpec { scale: 0.5, ..spec(name) };
    let shards = vec![
        shard("a".into(), CoreId::Npu(0), vec![spec("v0")], "v1"),
        shard("b".into(), CoreId::Host, vec![scaled("v1")], "v2"),
        shard("c".into(), CoreId::Npu(2), vec![spec("v2"), scaled("v1")], "v3"),
    ];
    let mut three = model("m", shards, "v3");
    three.outputs.push(spec("v1"));
    let found = walk(&three, Variant::Device);
    let port = |value, scale| Port { value, scale };
    assert_eq!((&found.inputs, &found.outputs), (&vec![0], &vec![3, 1]));
    assert_eq!(found.uses, [1, 3, 1, 1]);
    let needs: Vec<&[usize]> = found.shards.iter().map(|s| &s.needs[..]).collect();
    let next: Vec<&[usize]> = found.shards.iter().map(|s| &s.next[..]).collect();
    assert_eq!(needs, [&[][..], &[0], &[0, 1]]);
    assert_eq!(next, [&[1, 2][..], &[2], &[]]);
    // The host computes on unscaled values, and so does the reference.
    assert_eq!(found.shards[1].inputs, [port(1, 1.0)]);
    assert_eq!(found.shards[2].inputs, [port(2, 1.0), port(1, 0.5)]);
    let reference = walk(&three, Variant::Reference);
    assert_eq!(reference.shards[2].inputs, [port(2, 1.0), port(1, 1.0)]);
}

#[test]
fn modes_are_words() {
    for mode in [Mode::Pipeline, Mode::Replicate] {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    assert!("split".parse::<Mode>().unwrap_err().contains("pipeline"));
    let modes = Placement::ALL.iter().map(|&p| Mode::of(p));
    assert_eq!(modes.filter(|&m| m == Mode::Replicate).count(), 1);
}
