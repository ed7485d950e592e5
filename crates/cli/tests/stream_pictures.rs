//! A stream draws what its prompt asks for, from noise and over pictures of something else, with the tiny autoencoder.

mod checker;
mod common;

use checker::{Scene, draw, is_right};
use common::{Work, model};
use rockshard::{
    CfgType, DeviceName, FrameSource, Pack, QueueOptions, Settings, StreamConfig, StreamModel,
    StreamOptions,
};

/// Shares of the captions for which it must be.
const FROM_PICTURES: f64 = 0.85;
const FROM_NOISE: f64 = 0.9;

/// The share of scenes that a stream draws from a source each.
fn score(
    model: &StreamModel,
    scenes: &[Scene],
    t_index_list: Vec<usize>,
    source: impl Fn(usize) -> FrameSource,
) -> f64 {
    let settings = Settings {
        t_index_list,
        cfg_type: CfgType::None,
        guidance_scale: 2.0,
        ..Settings::new(&scenes[0].caption)
    };
    let queue = QueueOptions::default();
    let stream = model.prepare(StreamConfig::default(), settings, queue).unwrap();
    let mut right = 0;
    for (i, scene) in scenes.iter().enumerate() {
        let generation = stream.update_prompt(&scene.caption).unwrap();
        stream.push(source(i)).unwrap();
        let frame = stream.next_frame().unwrap().unwrap();
        assert_eq!(frame.generation, generation);
        right += usize::from(is_right(&frame.picture, scene, "stream"));
    }
    right as f64 / scenes.len() as f64
}

#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn a_stream_draws_what_its_prompt_asks_for() {
    let text = std::fs::read(model().join("held_out.json")).unwrap();
    let scenes: Vec<Scene> = serde_json::from_slice(&text).unwrap();
    assert_eq!(scenes.len(), 64);
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(&pack, &["--sandwich", "off"]);
    let cores = rockshard::take_cores(DeviceName::Sim).unwrap();
    let pack = Pack::open(&pack).unwrap();
    let model = StreamModel::load(&cores, &pack, &StreamOptions::default()).unwrap();
    assert!(model.is_tiny());
    let noise = score(&model, &scenes, vec![0, 12, 25, 37], |_| FrameSource::Noise);
    // Each over the picture of the scene after it.
    let other =
        |i: usize| FrameSource::Picture(draw(&scenes[(i + 1) % scenes.len()], [0.0, 0.0], 1.0));
    let pictures = score(&model, &scenes, vec![6, 16, 28, 40], other);
    eprintln!(
        "right: {:.1} % from noise, {:.1} % over pictures of something else",
        noise * 100.0,
        pictures * 100.0
    );
    assert!(noise >= FROM_NOISE && pictures >= FROM_PICTURES, "{noise}, {pictures}");
}
