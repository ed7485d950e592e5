//! A vision encoder, an attention and an MLP shard a layer, on one picture of noise: `convert_vit [MODEL]`. Without a model, a small one
//! from the tests.
#![allow(clippy::print_stdout)]

use rockshard::{ConvertRequest, DeviceName, Mode, Pack, RunOptions, Shards, random_inputs};
use std::error::Error;
use std::ops::ControlFlow::Continue;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/tests/data/vision");
    let model = std::env::args().nth(1).unwrap_or_else(|| small.to_owned());
    let pack = Path::new("out/example-vit/pack");
    if !pack.exists() {
        std::fs::create_dir_all("out/example-vit")?;
        let request = ConvertRequest { shards: Shards::Layer, ..ConvertRequest::new(model, pack) };
        rockshard::convert(request, &mut |_| Continue(()))?;
    }

    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let loaded = cores.load(&Pack::open(pack)?, Mode::Pipeline, |_| true)?;
    let vision = loaded.models().next().ok_or("the pack has no model")?;
    for shard in &vision.shards {
        println!("{:40} {}, {:.0} us modelled", shard.name, shard.core, shard.modelled.micros);
    }
    let items = (0..3).map(|seed| random_inputs(&vision.inputs, seed)).collect();
    let outcome = loaded.run(&vision.name, items, &RunOptions::default())?;
    for (name, features) in outcome.outputs?.iter().flatten() {
        println!("{name} {:?}", features.shape());
    }
    Ok(())
}
