//! The bundled model on the simulated NPU, for streams.
#![allow(dead_code)]

use rockshard::{
    CfgType, ConvertRequest, Cores, DeviceName, Pack, Picture, QueueOptions, Settings, Stream,
    StreamConfig, StreamModel, StreamOptions,
};
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

pub struct Bundled {
    pub cores: Cores,
    pub model: StreamModel,
    _folder: tempfile::TempDir,
}

pub static BUNDLED: LazyLock<Bundled> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let pack = converted(folder.path(), 1);
    let cores = rockshard::take_cores(DeviceName::Sim).unwrap();
    let pack = Pack::open(&pack).unwrap();
    let model = StreamModel::load(&cores, &pack, &StreamOptions::default()).unwrap();
    Bundled { cores, model, _folder: folder }
});

pub const PROMPTS: [&str; 4] = [
    "a large red circle on a blue background",
    "a small green square on a white background",
    "a large yellow ring on a black background",
    "a large purple cross on an orange background",
];

pub fn settings(prompt: &str) -> Settings {
    let (cfg_type, guidance_scale) = (CfgType::None, 2.0);
    Settings { cfg_type, guidance_scale, t_index_list: vec![16, 36], ..Settings::new(prompt) }
}

pub fn prepare(settings: Settings, queue: QueueOptions) -> Stream {
    BUNDLED.model.prepare(StreamConfig::default(), settings, queue).unwrap()
}

/// A picture of one colour that its number decides.
pub fn picture(number: u64) -> Picture {
    let colour = [number * 37 % 256, number * 91 % 256, number * 153 % 256].map(|v| v as u8);
    let rgb = std::iter::repeat_n(colour, 128 * 128).flatten().collect();
    Picture { width: 128, height: 128, rgb, parameters: None }
}

/// Everything that a stream gives for pictures of these numbers.
pub fn all(stream: &Stream, numbers: std::ops::Range<u64>) -> Vec<Arc<Picture>> {
    let mut pictures = Vec::new();
    for number in numbers {
        pictures.extend(stream.img2img(picture(number)).unwrap().map(|f| f.picture));
    }
    stream.finish();
    while let Some(frame) = stream.next_frame() {
        pictures.push(frame.unwrap().picture);
    }
    pictures
}

/// The bundled model as a pack for so many items at once.
pub fn converted(folder: &Path, batch: usize) -> PathBuf {
    let pack = folder.join("pack");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm");
    let request = ConvertRequest {
        sandwich: rockshard::Sandwich::Off,
        batch,
        ..ConvertRequest::new(&source, &pack)
    };
    rockshard::convert(request, &mut |_| Continue(())).unwrap();
    pack
}
