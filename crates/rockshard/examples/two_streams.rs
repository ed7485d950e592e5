//! Two streams share the cores, each with its own prompt: `cargo run --release -p rockshard --example two_streams`.
#![allow(clippy::print_stdout)]

use rockshard::{
    CfgType, ConvertRequest, DeviceName, Error, FrameSource, Pack, QueueOptions, Settings,
    StreamConfig, StreamModel, StreamOptions,
};
use std::ops::ControlFlow::Continue;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shards/tiny-lcm");
    let pack = Path::new("out/example-two-streams");
    let request = ConvertRequest::new(bundled, pack);
    rockshard::convert(request, &mut |_| Continue(()))?;

    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let pack = Pack::open(pack)?;
    let model = StreamModel::load(&cores, &pack, &StreamOptions::default())?;
    let run = |prompt: &str| -> Result<usize, Error> {
        let (cfg_type, guidance_scale) = (CfgType::None, 2.0);
        let settings = Settings { cfg_type, guidance_scale, ..Settings::new(prompt) };
        let stream = model.prepare(StreamConfig::default(), settings, QueueOptions::default())?;
        let drawn = std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..10).try_for_each(|_| stream.push(FrameSource::Noise).map(drop)).ok();
                stream.finish();
            });
            std::iter::from_fn(|| stream.next_frame()).filter(Result::is_ok).count()
        });
        Ok(drawn)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run("a large blue cross on a yellow background"));
        let own = run("a small red diamond on a green background")?;
        println!("{own} frames of one, {} of the other", other.join().expect("no panic")?);
        Ok(())
    })
}
