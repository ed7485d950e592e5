//! Whole models against what was measured on boards (docs/rk3588.md 3).
//!
//! `data/` has their operators, written by `examples/operators.rs` from unchanged pieces of SD 1.5 LCM at 512 and 384 pixels and of
//! SmolVLM-256M's vision encoder with its connector (SigLIP-B/16 at 512 pixels). Host pieces are left out.
//!
//! Three kinds of anchor: `fitted` ones decided a constant or a rule; `operators` are the sums of runs whose operators' own times
//! the constants come from (docs/rk3588.md 2.4); no constant was fitted to `held out` ones, though they were known when the rules
//! were chosen.
#![allow(clippy::print_stdout)]

mod table;

use rockshard_clock::{Phase, Task, simulate};
use rockshard_cost::{Rk3588, layers};
use table::Table;

/// Seconds of a run: on one core, under the mask of three, and of as many sessions at once, a core each.
struct Seconds {
    one: f64,
    masked: f64,
    together: [f64; 2],
}

fn seconds(chip: &Rk3588, table: &Table) -> Seconds {
    let overhead = chip.graph(&table.boundary).overhead_micros;
    let (mut one, mut masked) = (overhead, overhead);
    let mut phases = vec![Phase { micros: overhead, streaming: 0.0 }];
    for (count, graph) in &table.rows {
        let found = layers(graph);
        assert_eq!(found.len(), 1, "{}: one row is one operator", graph.name);
        let cost = chip.layer(graph, &found[0]);
        one += *count as f64 * cost.micros;
        masked += *count as f64 * chip.masked_micros(graph, &found[0], 3);
        phases.extend(vec![
            Phase { micros: cost.micros, streaming: chip.streaming_micros(&cost) };
            *count
        ]);
    }
    let memory = chip.memory();
    let together = [2u8, 3].map(|n| {
        let session = |core| Task { cores: vec![core], phases: phases.clone(), ..Task::default() };
        simulate(&(0..n).map(session).collect::<Vec<_>>(), memory).total_us() / 1e6
    });
    Seconds { one: one / 1e6, masked: masked / 1e6, together }
}

#[test]
fn whole_models_take_what_was_measured_within_15_percent() {
    let chip = Rk3588::default();
    let run = |text| seconds(&chip, &table::read(text));
    let unet = run(include_str!("data/unet-512.txt"));
    let small = run(include_str!("data/unet-384.txt"));
    let vae = run(include_str!("data/vae-decoder-512.txt"));
    let small_vae = run(include_str!("data/vae-decoder-384.txt"));
    let siglip = run(include_str!("data/siglip.txt"));
    let whisper = run(include_str!("data/whisper.txt"));
    let anchors = [
        ("U-Net 512, one core, s", unet.one, 5.67, "held out"),
        ("U-Net 512, mask of three, s", unet.masked, 4.49, "held out"),
        ("U-Net 512, two sessions, times one", 2.0 * unet.one / unet.together[0], 1.78, "held out"),
        ("U-Net 384, one core, s", small.one, 2.36, "held out"),
        ("VAE decoder 512, one core, s", vae.one, 10.57, "fitted"),
        ("VAE decoder 512, mask of three, s", vae.masked, 8.05, "held out"),
        ("VAE decoder 384, one core, s", small_vae.one, 5.48, "held out"),
        ("SigLIP-B/16, one core, s", siglip.one, 1.624, "operators"),
        ("SigLIP-B/16, mask of three, s", siglip.masked, 1.195, "operators"),
        ("Whisper-base encoder, one core, s", whisper.one, 0.400, "operators"),
        ("Whisper-base encoder, mask of three, s", whisper.masked, 0.344, "operators"),
    ];
    println!("{:40} {:>9} {:>9} {:>6}", "anchor", "modelled", "measured", "ratio");
    for (name, modelled, measured, kind) in anchors {
        println!("{name:40} {modelled:9.3} {measured:9.3} {:6.3}  {kind}", modelled / measured);
    }
    println!(
        "three sessions of the U-Net at 512, times one: {:.3}",
        3.0 * unet.one / unet.together[1]
    );
    for (name, modelled, measured, _) in anchors {
        assert!(
            (modelled / measured - 1.0).abs() <= 0.15,
            "{name}: modelled {modelled:.3}, measured {measured}"
        );
    }
}
