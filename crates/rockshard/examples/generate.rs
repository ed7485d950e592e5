//! Draw a picture: `generate [MODEL [PROMPT]]`. Without a model, the bundled one.
#![allow(clippy::print_stdout)]

use rockshard::{ConvertRequest, DeviceName, Pack, Painter, PainterOptions, RunOptions};
use std::error::Error;
use std::ops::ControlFlow::Continue;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shards/tiny-lcm");
    let model = args.next().unwrap_or_else(|| bundled.to_owned());
    let prompt = args.next().unwrap_or_else(|| "a small yellow ring on a black background".into());
    let out = PathBuf::from("out/example-generate");
    std::fs::create_dir_all(&out)?;
    let pack = out.join("pack");
    if !pack.exists() {
        rockshard::convert(ConvertRequest::new(model, &pack), &mut |_| Continue(()))?;
    }

    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let painter = Painter::load(&cores, &Pack::open(&pack)?, &PainterOptions::default())?;
    let request = painter.request(&prompt, None)?;
    let drawing = painter.draw(&request, &RunOptions::default(), &mut |_| Continue(()))?;

    let picture = out.join("picture.png");
    drawing.pictures[0].save(&picture)?;
    let modelled = drawing.trace.modelled_total_us() / 1e3;
    println!("{}: {modelled:.1} ms of the NPU, modelled", picture.display());
    Ok(())
}
