//! Draws a moving picture anew with a prompt that changes half way: `cargo run --release -p rockshard --example img2img_stream`.
#![allow(clippy::print_stdout)]

use rockshard::{
    CfgType, ConvertRequest, DeviceName, Pack, Picture, QueueOptions, Settings, StreamConfig,
    StreamModel, StreamOptions,
};
use std::ops::ControlFlow::Continue;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shards/tiny-lcm");
    let out = Path::new("out/example-img2img-stream");
    let request = ConvertRequest::new(bundled, out.join("pack"));
    rockshard::convert(request, &mut |_| Continue(()))?;

    let cores = rockshard::take_cores(DeviceName::Sim)?;
    let pack = Pack::open(&out.join("pack"))?;
    let model = StreamModel::load(&cores, &pack, &StreamOptions::default())?;
    let settings = Settings {
        t_index_list: vec![6, 16, 28, 40],
        // The bundled model takes the guidance scale as an input, as LCM does.
        cfg_type: CfgType::None,
        guidance_scale: 2.0,
        ..Settings::new("a large red circle on a white background")
    };
    let stream = model.prepare(StreamConfig::default(), settings, QueueOptions::default())?;
    let save = |frame: rockshard::StreamFrame| {
        frame.picture.save(&out.join(format!("frame-{:02}.png", frame.number)))
    };
    for number in 0..12u8 {
        if number == 6 {
            stream.update_prompt("a large green square on a white background")?;
        }
        let [width, height] = model.size();
        let bar =
            |i: u32| if (i % width) / 8 == u32::from(number) { [200, 60, 60] } else { [240; 3] };
        let rgb = (0..width * height).flat_map(bar).collect();
        let picture = Picture { width, height, rgb, parameters: None };
        stream.img2img(picture)?.map(save).transpose()?;
    }
    stream.finish();
    while let Some(frame) = stream.next_frame() {
        save(frame?)?;
    }
    println!("{:?}", stream.stats());
    Ok(())
}
