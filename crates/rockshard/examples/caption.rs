//! Describe a picture and ask about it: `caption [IMAGE [MODEL]]`. Without them, the demo's picture and the bundled model.
#![allow(clippy::print_stdout)]

use rockshard::{
    Captioner, CaptionerOptions, ConvertRequest, DeviceName, Pack, Rgb, RunOptions, Sampling,
};
use std::error::Error;
use std::ops::ControlFlow::Continue;
use std::path::PathBuf;

const MOST_TOKENS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let image = args.next().unwrap_or_else(|| format!("{repository}/docs/demo.png"));
    let model = args.next().unwrap_or_else(|| format!("{repository}/shards/tiny-vlm"));
    let pack = PathBuf::from("out/example-caption");
    if !pack.exists() {
        rockshard::convert(ConvertRequest::new(model, &pack), &mut |_| Continue(()))?;
    }

    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let captioner = Captioner::load(&cores, &Pack::open(&pack)?, &CaptionerOptions::default())?;
    let mut conversation = captioner.conversation(Sampling::default(), RunOptions::default())?;
    let image = Rgb::from_file(&std::fs::read(image)?)?;
    // The image is looked at once; what is asked next costs its own tokens.
    let mut images = vec![image];
    for question in ["Describe this image.", "Which shape is it?", "Where is it?"] {
        let answer = conversation.ask(question, &images, MOST_TOKENS, &mut |_| Continue(()))?;
        println!("{question} {}", answer.text.trim());
        images.clear();
    }
    Ok(())
}
