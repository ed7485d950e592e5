//! Draws pictures of a prompt, one after the other, all cores busy: `cargo run --release -p rockshard --example txt2img_stream`.

use rockshard::{
    CfgType, ConvertRequest, DeviceName, Pack, QueueOptions, Settings, StreamConfig, StreamModel,
    StreamOptions,
};
use std::ops::ControlFlow::Continue;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shards/tiny-lcm");
    let out = Path::new("out/example-txt2img-stream");
    let request = ConvertRequest::new(bundled, out.join("pack"));
    rockshard::convert(request, &mut |_| Continue(()))?;

    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let pack = Pack::open(&out.join("pack"))?;
    let model = StreamModel::load(&cores, &pack, &StreamOptions::default())?;
    let settings = Settings {
        t_index_list: vec![0, 12, 25, 37],
        cfg_type: CfgType::None,
        guidance_scale: 2.0,
        ..Settings::new("a small yellow ring on a black background")
    };
    let stream = model.prepare(StreamConfig::default(), settings, QueueOptions::default())?;
    let save = |frame: rockshard::StreamFrame| {
        frame.picture.save(&out.join(format!("frame-{:02}.png", frame.number)))
    };
    for _ in 0..8 {
        stream.txt2img()?.map(save).transpose()?;
    }
    stream.finish();
    while let Some(frame) = stream.next_frame() {
        save(frame?)?;
    }
    Ok(())
}
