//! Whisper's encoder in patterns that this program chooses, what each pass made of it, and every layer against the reference:
//! `convert_whisper [ENCODER.onnx]`. Without a model, a small one from the tests.
#![allow(clippy::print_stdout)]

use rockshard::{
    ConvertRequest, DeviceName, Manifest, Mode, ModelInputs, Pack, Placement, RunOptions, Sandwich,
    Shards, Tile, random_inputs,
};
use std::error::Error;
use std::ops::ControlFlow::Continue;
use std::path::Path;

const THRESHOLD: f64 = 0.999;

fn main() -> Result<(), Box<dyn Error>> {
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/whisper/encoder_model.onnx");
    let model = std::env::args().nth(1).unwrap_or_else(|| small.to_owned());
    let folder = Path::new("out/example-whisper");
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let mut request = ConvertRequest {
        sandwich: Sandwich::Auto,
        tile: Tile::Rows(512),
        shards: Shards::Layer,
        placement: Placement::Balanced,
        ..ConvertRequest::new(model, folder.join("pack"))
    };
    // One recording at a time; exporters leave the batch open.
    request.fixed.shapes.insert("input_features".into(), vec![1, 80, 3000]);
    tell(&rockshard::convert(request, &mut |_| Continue(()))?);

    let pack = Pack::open(&folder.join("pack"))?;
    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let loaded = cores.load(&pack, Mode::Pipeline, |_| true)?;
    let encoder = loaded.models().next().ok_or("the pack has no model")?;
    let recordings = (0..3).map(|seed| random_inputs(&encoder.inputs, seed)).collect();
    let outcome = loaded.run(&encoder.name, recordings, &RunOptions::default())?;
    for (name, states) in outcome.outputs?.iter().flatten() {
        println!("{name} {:?}", states.shape());
    }

    let (devices, inputs) = (rockshard::open_devices(DeviceName::Sim)?, ModelInputs::new());
    let report = rockshard::validate(&pack, &devices, &inputs, THRESHOLD, &mut |_| Continue(()))?;
    println!("{}", report.summary().join("\n"));
    if report.passed() { Ok(()) } else { Err("a layer is below the threshold".into()) }
}

/// What the passes did, shard by shard, and what they declined.
fn tell(manifest: &Manifest) {
    for model in &manifest.models {
        model.passes.iter().for_each(|line| println!("{line}"));
        for shard in &model.shards {
            println!("{:40} {}, {:.0} us modelled", shard.name, shard.core, shard.modelled.micros);
            for region in &shard.sandwich {
                println!("  {} to {}: times {}", region.nodes[0], region.nodes[1], region.factor);
            }
            for attention in &shard.attention {
                println!(
                    "  attention {:?}: {}, {} KiB of scores instead of {}, modelled",
                    attention.shape,
                    attention.lowering,
                    attention.peak_after >> 10,
                    attention.peak_before >> 10
                );
            }
        }
        model.declined.iter().for_each(|line| println!("declined: {line}"));
    }
}
