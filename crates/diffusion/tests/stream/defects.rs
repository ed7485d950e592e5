//! StreamDiffusion's upstream defects, by their letters in its issue list as this project keeps it; none of them is here.

use crate::fake::Fake;
use rockshard_diffusion::stream::{
    CfgType, FrameSource, Frames, Group, Settings, StreamConfig, StreamParts,
};
use rockshard_diffusion::{
    ClipTokenizer, Conditioner, LcmSampler, Networks, Picture, PictureCodec, PipelineConfig, Rows,
};
use rockshard_manifest::Role;
use std::path::Path;
use std::sync::Arc;

fn parts(networks: Arc<dyn Networks>) -> StreamParts {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm/tokenizer");
    let tokenizer = Arc::new(ClipTokenizer::from_directory(&folder).unwrap());
    let config = PipelineConfig::default();
    let rows = Rows::new(networks.clone(), &config).unwrap();
    StreamParts {
        conditioner: Conditioner::new(networks.clone(), tokenizer).unwrap(),
        pictures: PictureCodec::new(networks, rows.latent_shape(), &config).unwrap(),
        rows,
        sampler: LcmSampler::new(&config.sampler).unwrap(),
    }
}

fn stream(networks: &Arc<Fake>, config: StreamConfig, settings: Settings) -> Frames {
    Frames::prepare(parts(networks.clone()), config, settings).unwrap()
}

/// A grey picture of the stream's size.
fn grey(value: u8) -> FrameSource {
    FrameSource::Picture(Picture {
        width: 32,
        height: 32,
        rgb: vec![value; 3072],
        parameters: None,
    })
}

fn group(frames: &Frames, sources: impl IntoIterator<Item = FrameSource>) -> Group {
    let entered = sources.into_iter().map(|s| frames.enter(s).unwrap().unwrap()).collect();
    frames.group(entered).unwrap()
}

fn draw(frames: &Frames, source: FrameSource) -> Picture {
    frames.draw(group(frames, [source])).unwrap().remove(0)
}

/// A model with an encoder; guidance is not one of its inputs unless asked for.
fn networks() -> Arc<Fake> {
    Arc::new(Fake { encoder: true, ..Fake::default() })
}

fn guided(cfg_type: CfgType, guidance_scale: f64, t_index_list: Vec<usize>) -> Settings {
    let prompt = "a large red circle";
    Settings { cfg_type, guidance_scale, t_index_list, ..Settings::new(prompt) }
}

/// a: more than one frame at a time, at more than one level, for every kind of guidance; all of them come out.
#[test]
fn a_frame_buffers_of_several_frames_at_several_levels() {
    let networks = networks();
    let config = StreamConfig { frame_buffer_size: 3, ..StreamConfig::default() };
    for cfg in CfgType::ALL {
        let frames = stream(&networks, config, guided(cfg, 1.4, vec![10, 30, 45]));
        let together = frames.draw(group(&frames, [40, 120, 200].map(grey))).unwrap();
        assert_eq!(together.len(), 3, "{cfg:?}");
        for (value, picture) in [40, 120, 200].into_iter().zip(together) {
            let alone =
                stream(&networks, StreamConfig::default(), guided(cfg, 1.4, vec![10, 30, 45]));
            assert_eq!(draw(&alone, grey(value)), picture, "{cfg:?} {value}");
        }
    }
}

/// b: with one level and residual guidance, a frame has nothing of the one before.
#[test]
fn b_one_level_leaks_nothing_into_the_next_frame() {
    let networks = networks();
    for cfg in [CfgType::SelfNegative, CfgType::Initialize] {
        let frames = stream(&networks, StreamConfig::default(), guided(cfg, 1.5, vec![30]));
        let first = draw(&frames, grey(90));
        draw(&frames, grey(250));
        assert_eq!(draw(&frames, grey(90)), first, "{cfg:?}");
    }
}

/// c: another prompt keeps the negative one.
#[test]
fn c_another_prompt_keeps_the_negative_one() {
    let networks = networks();
    for cfg in [CfgType::Full, CfgType::Initialize] {
        let settings =
            Settings { negative_prompt: "blue".into(), ..guided(cfg, 1.5, vec![20, 40]) };
        let frames = stream(&networks, StreamConfig::default(), settings.clone());
        let other = Settings { prompts: vec![("a green ring".into(), 1.0)], ..settings.clone() };
        assert_eq!(frames.update(other.clone(), 0).unwrap(), 1);
        let updated = draw(&frames, grey(100));
        let fresh = stream(&networks, StreamConfig::default(), other.clone());
        assert_eq!(updated, draw(&fresh, grey(100)), "{cfg:?}");
        let without = Settings { negative_prompt: String::new(), ..other };
        let without = stream(&networks, StreamConfig::default(), without);
        assert_ne!(updated, draw(&without, grey(100)), "{cfg:?}: the negative prompt does nothing");
    }
}

/// d: full and initialize at a scale of 1 and below are no guidance, and need no negative prompt.
#[test]
fn d_guidance_of_one_is_none_for_every_kind() {
    let networks = networks();
    let none = stream(&networks, StreamConfig::default(), guided(CfgType::None, 1.0, vec![20, 40]));
    let expected = draw(&none, grey(77));
    for cfg in CfgType::ALL {
        for scale in [1.0, 0.5, 0.0] {
            let frames =
                stream(&networks, StreamConfig::default(), guided(cfg, scale, vec![20, 40]));
            networks.take_calls();
            assert_eq!(draw(&frames, grey(77)), expected, "{cfg:?} {scale}");
            let rows = networks.take_calls();
            let rows: usize = rows.iter().filter(|c| c.0 == Role::Unet).map(|c| c.1).sum();
            assert_eq!(rows, 2, "{cfg:?} {scale}");
        }
    }
}

/// e: the seed that was asked for is the one that is used.
#[test]
fn e_the_seed_is_the_users() {
    let networks = networks();
    let with = |seed| {
        let settings = Settings { seed, ..guided(CfgType::SelfNegative, 1.2, vec![20, 40]) };
        draw(&stream(&networks, StreamConfig::default(), settings), grey(128))
    };
    assert_eq!(with(2), with(2));
    assert_ne!(with(2), with(3));
}

/// f: pictures are bytes, so that nothing has to guess which range their values have: dark and bright ones are told apart.
#[test]
fn f_bright_pictures_are_not_normalised_twice() {
    let networks = networks();
    let frames = stream(&networks, StreamConfig::default(), guided(CfgType::None, 1.0, vec![45]));
    let drawn: Vec<Picture> = [0, 128, 200, 255].map(|v| draw(&frames, grey(v))).into();
    assert!(drawn.windows(2).all(|w| w[0] != w[1]));
}

/// g: a prompt that is asked for again is not encoded again.
#[test]
fn g_a_prompt_is_encoded_once() {
    let networks = networks();
    let settings = guided(CfgType::None, 1.0, vec![45]);
    let frames = stream(&networks, StreamConfig::default(), settings.clone());
    networks.take_calls();
    for _ in 0..10 {
        frames.update(settings.clone(), 0).unwrap();
        draw(&frames, grey(1));
    }
    assert!(networks.take_calls().iter().all(|c| c.0 != Role::TextEncoder));
}

/// How many rows each kind of guidance takes: N, N + 1, 2 N.
#[test]
fn guidance_takes_the_rows_it_should() {
    let networks = networks();
    for (cfg, rows) in [
        (CfgType::None, 4),
        (CfgType::SelfNegative, 4),
        (CfgType::Initialize, 5),
        (CfgType::Full, 8),
    ] {
        let frames =
            stream(&networks, StreamConfig::default(), guided(cfg, 1.4, vec![0, 16, 32, 45]));
        networks.take_calls();
        draw(&frames, grey(10));
        let ran: usize =
            networks.take_calls().iter().filter(|c| c.0 == Role::Unet).map(|c| c.1).sum();
        assert_eq!((ran, frames.rows_of_a_frame()), (rows, rows), "{cfg:?}");
    }
}

/// Within so many frames a prompt becomes another, and the last is wholly the other's.
#[test]
fn settings_are_interpolated() {
    let networks = networks();
    let settings = guided(CfgType::None, 1.0, vec![20, 40]);
    let other = Settings {
        prompts: vec![("a small blue square on a white background".into(), 1.0)],
        seed: 9,
        ..settings.clone()
    };
    let frames = stream(&networks, StreamConfig::default(), settings.clone());
    let first = draw(&frames, grey(60));
    frames.update(other.clone(), 4).unwrap();
    let between: Vec<Picture> = (0..6).map(|_| draw(&frames, grey(60))).collect();
    let last = draw(&stream(&networks, StreamConfig::default(), other), grey(60));
    assert!(between[..3].iter().all(|p| *p != first && *p != last));
    assert!(between[3..].iter().all(|p| *p == last));
    let halves = Settings {
        prompts: vec![("a red ring".into(), 2.0), ("a blue cross".into(), 2.0)],
        ..settings
    };
    let blend = draw(&stream(&networks, StreamConfig::default(), halves), grey(60));
    assert_ne!(blend, first);
}

/// What cannot be is refused before anything runs, and leaves a running stream as it was.
#[test]
fn wrong_settings_are_refused() {
    let networks = networks();
    let good = guided(CfgType::None, 1.0, vec![20, 40]);
    let frames = stream(&networks, StreamConfig::default(), good.clone());
    let before = draw(&frames, grey(5));
    for (settings, said) in [
        (Settings { t_index_list: vec![], ..good.clone() }, "at least 1 step"),
        (Settings { t_index_list: vec![50], ..good.clone() }, "step 50 is not in a schedule of 50"),
        (Settings { t_index_list: vec![40, 20], ..good.clone() }, "above the one before"),
        (Settings { guidance_scale: f64::NAN, ..good.clone() }, "guidance NaN"),
        (Settings { delta: f64::INFINITY, ..good.clone() }, "delta inf"),
        (Settings { prompts: vec![("a".into(), 0.0)], ..good.clone() }, "not all 0"),
        (Settings { prompts: vec![], ..good.clone() }, "not all 0"),
    ] {
        let error = frames.update(settings, 0).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(draw(&frames, grey(5)), before);
    assert!(good.clone().with_strength(0.0).is_err());
    assert!(good.clone().with_strength(0.01).is_err());
    assert_eq!(good.clone().with_strength(1.0).unwrap().t_index_list, [0, 25]);
    assert_eq!(good.with_strength(0.36).unwrap().t_index_list, [32, 41]);
}
