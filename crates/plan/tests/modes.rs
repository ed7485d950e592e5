//! The modes on models whose figures can be worked out by hand.

use proptest::prelude::*;
use rockshard_clock::{Memory, Phase, simulate};
use rockshard_manifest::CoreId;
use rockshard_plan::{
    FrameCost, ModelCost, NetworkCost, Parallel, ShardCost, Work, figures, stream, tasks,
};

/// A memory that hinders nobody.
const AMPLE: Memory = Memory { core_bytes_per_second: 1.0, shared_bytes_per_second: 1e9 };
const SHARED: Memory = Memory { core_bytes_per_second: 11.7e9, shared_bytes_per_second: 19.3e9 };

fn shard(core: u8, stage: u32, needs: &[usize], micros: f64) -> ShardCost {
    let phase = Phase { micros, streaming: 0.0 };
    let half = Phase { micros: micros / 2.0, streaming: 0.0 };
    ShardCost {
        name: format!("s{stage}.{core}"),
        core: CoreId::Npu(core),
        stage,
        needs: needs.to_vec(),
        phases: vec![phase],
        masked: [vec![half], vec![half]],
        work: Work { compute: micros, moving: 0.0, calls: 0.0 },
        weight_bytes: 100,
        internal_bytes: 10 + u64::from(core),
        cycles: 0,
        moved_bytes: 0,
    }
}

fn model(shards: Vec<ShardCost>) -> ModelCost {
    ModelCost { name: "m".into(), resolution: None, shards }
}

/// Three shards in a row, on a core each.
fn chain() -> ModelCost {
    model(vec![shard(0, 0, &[], 30.0), shard(1, 1, &[0], 30.0), shard(2, 2, &[1], 30.0)])
}

/// Three stages of three equal shards.
fn divided() -> ModelCost {
    let mut shards = Vec::new();
    for stage in 0..3u32 {
        let needs: Vec<usize> = if stage == 0 {
            Vec::new()
        } else {
            (0..3).map(|c| (stage as usize - 1) * 3 + c).collect()
        };
        shards.extend((0..3u8).map(|core| shard(core, stage, &needs, 10.0)));
    }
    model(shards)
}

#[test]
fn a_pipeline_gives_an_item_a_stage_time_and_does_not_hasten_one() {
    let f = figures(&chain(), Parallel::Pipeline, 3, AMPLE);
    assert_eq!((f.latency_us, f.interval_us), (90.0, 30.0));
    assert!(f.busy.iter().all(|&b| (b - 1.0).abs() < 1e-9), "{:?}", f.busy);
    assert_eq!(f.resident_bytes, 300 + 10 + 11 + 12);
}

#[test]
fn replicas_work_side_by_side() {
    let f = figures(&chain(), Parallel::Replicate, 3, AMPLE);
    assert_eq!((f.latency_us, f.interval_us), (90.0, 30.0));
    // Weights once, activations a core.
    assert_eq!(f.resident_bytes, 300 + 3 * 12);
    assert_eq!(figures(&chain(), Parallel::Replicate, 1, AMPLE).interval_us, 90.0);
}

#[test]
fn split_divides_the_time_of_one_item() {
    let f = figures(&divided(), Parallel::Split, 3, AMPLE);
    assert_eq!((f.latency_us, f.interval_us), (30.0, 30.0));
    assert!((f.shares.compute - 1.0).abs() < 1e-9 && f.shares.idle < 1e-9, "{:?}", f.shares);
    // On two cores one of them has two shards of each stage.
    assert_eq!(figures(&divided(), Parallel::Split, 2, AMPLE).latency_us, 60.0);
    assert_eq!(figures(&chain(), Parallel::Split, 3, AMPLE).latency_us, 90.0);
}

#[test]
fn split_spreads_a_stage_that_is_pinned_to_one_core() {
    let shards = vec![shard(0, 0, &[], 10.0), shard(0, 0, &[], 20.0), shard(0, 0, &[], 10.0)];
    assert_eq!(figures(&model(shards), Parallel::Split, 2, AMPLE).latency_us, 20.0);
}

#[test]
fn a_mask_takes_all_cores_for_its_own_times() {
    let f = figures(&chain(), Parallel::Mask, 3, AMPLE);
    assert_eq!((f.latency_us, f.interval_us), (45.0, 45.0));
    assert_eq!(f.busy, [1.0, 1.0, 1.0]);
    assert_eq!(f.resident_bytes, 300 + 12);
}

#[test]
fn a_stage_whose_shards_differ_leaves_cores_idle() {
    let shards = vec![shard(0, 0, &[], 10.0), shard(1, 0, &[], 20.0), shard(2, 1, &[0, 1], 10.0)];
    let f = figures(&model(shards), Parallel::Split, 3, AMPLE);
    assert_eq!(f.latency_us, 30.0);
    assert!((f.shares.idle - (1.0 - 40.0 / 90.0)).abs() < 1e-9, "{:?}", f.shares);
}

#[test]
fn the_hosts_shards_take_no_core() {
    let mut shards = chain().shards;
    shards[0].core = CoreId::Host;
    shards[0].phases.clear();
    let f = figures(&model(shards), Parallel::Pipeline, 3, AMPLE);
    assert_eq!(f.latency_us, 60.0);
    assert_eq!(f.resident_bytes, 200 + 11 + 12);
}

proptest! {
    #[test]
    fn shares_are_all_of_the_time_and_more_cores_never_hurt_a_stream(
        times in prop::collection::vec((1.0..100.0f64, 0.0..1.0f64, 0u8..3), 1..12), mode in 0usize..4, cores in 1u8..4) {
        let shards = times.iter().enumerate().map(|(i, &(micros, streaming, core))| {
            let needs: Vec<usize> = if i == 0 { Vec::new() } else { vec![i - 1] };
            let mut s = shard(core, i as u32, &needs, micros);
            s.phases[0].streaming = micros * streaming;
            s
        });
        let model = model(shards.collect());
        let f = figures(&model, Parallel::ALL[mode], cores, SHARED);
        let s = f.shares;
        let sum = s.compute + s.moving + s.calls + s.memory + s.idle;
        prop_assert!((sum - 1.0).abs() < 1e-6, "{s:?}");
        prop_assert!(f.busy.len() == usize::from(cores) && f.busy.iter().all(|b| (0.0..1.0 + 1e-9).contains(b)));
        prop_assert!(f.interval_us <= f.latency_us * 3.0 * 11.7 / 19.3 + 1e-6);
        let one = figures(&model, Parallel::Replicate, 1, SHARED);
        let three = figures(&model, Parallel::Replicate, 3, SHARED);
        prop_assert!(three.interval_us <= one.interval_us + 1e-6);
        prop_assert!(three.interval_us * 3.0 >= one.interval_us - 1e-6);
    }

    #[test]
    fn items_keep_to_the_limit_in_flight(items in 1usize..12, cores in 1u8..4) {
        let list = tasks(&chain(), Parallel::Pipeline, cores, items);
        let schedule = simulate(&list, AMPLE);
        for item in 0..items {
            let start = schedule.spans[item * 3].ready_us;
            let running = (0..item).filter(|&other| schedule.item_end_us(&list, other) > start).count();
            prop_assert!(running < 2 * usize::from(cores), "item {item}: {running} others under way");
        }
    }
}

/// A stream of frames of three rows of 30 between an encoder and a decoder of 3: 96 of work a frame.
#[test]
fn a_stream_keeps_the_cores_busy() {
    let network = |us| NetworkCost { phases: vec![[us, 0.0]], ..NetworkCost::default() };
    let (small, unet) = (network(3.0), network(30.0));
    let cost = |rows| FrameCost { encoder: &small, unet: &unet, decoder: &small, rows };
    let close = |a: f64, b: f64| (a - b).abs() < 0.06 * b;
    let alone = stream(&cost(vec![1; 3]), 1, 1, AMPLE);
    assert!(close(alone.interval_us, 96.0) && close(alone.latency_us, 96.0), "{alone:?}");
    // One frame at a time leaves two of three cores idle; rows of one level that do not wait for each other use them.
    let one = stream(&cost(vec![1; 3]), 3, 1, AMPLE);
    assert!(close(one.interval_us, 96.0), "{one:?}");
    let both = stream(&cost(vec![2; 3]), 3, 1, AMPLE);
    assert!(close(both.interval_us, 96.0), "{both:?}");
    let many = stream(&cost(vec![1; 3]), 3, 5, AMPLE);
    assert!(close(many.interval_us, 32.0) && close(many.busy, 3.0), "{many:?}");
    // Four rows on three cores: no core waits for the others.
    let four = stream(&cost(vec![1; 4]), 3, 5, AMPLE);
    assert!(close(four.interval_us, 42.0), "{four:?}");
}
