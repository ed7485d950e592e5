//! Print what the networks of a text-to-image pack take, as `crates/plan/src/sd15.json` has it:
//! `cargo run --release -p rockshard-plan --example record_costs PACK TITLE > crates/plan/src/sd15.json`
#![allow(clippy::print_stdout)]

use rockshard_cost::Rk3588;
use rockshard_pack::Pack;
use rockshard_plan::{NetworkCost, StreamCosts};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pack, title] = &arguments[..] else { return Err("record_costs PACK TITLE".into()) };
    let pack = Pack::open(Path::new(pack))?;
    let costs = StreamCosts::read(pack.root(), pack.manifest(), &Rk3588::default())?;
    let costs = StreamCosts {
        title: title.clone(),
        unet: rounded(costs.unet),
        whole: costs.whole.map(rounded),
        tiny: costs.tiny.map(|tiny| tiny.map(rounded)),
        ..costs
    };
    println!("{}", serde_json::to_string(&costs)?);
    Ok(())
}

/// To tenths of microseconds.
fn rounded(mut cost: NetworkCost) -> NetworkCost {
    cost.phases.iter_mut().flatten().for_each(|us| *us = (*us * 10.0).round() / 10.0);
    cost
}
