//! Streams of the bundled model on the simulated NPU: order, settings that change, streams beside each other, ends and failures.

mod bundled;

use bundled::{BUNDLED, PROMPTS, all, picture, prepare, settings};
use rockshard::{
    CfgType, FrameSource, Pack, Painter, PainterOptions, Picture, QueueOptions, Settings,
    StreamConfig, StreamModel, StreamOptions,
};
use std::time::{Duration, Instant};

/// i: nothing is lost at the start, nothing is shown that was not drawn, and the end is drained.
#[test]
fn i_the_first_frames_come_late_and_the_last_ones_come() {
    let stream = prepare(settings(PROMPTS[0]), QueueOptions::default());
    let warm_up = stream.warm_up();
    assert!(warm_up >= 3);
    let mut numbers = Vec::new();
    for number in 0..8 {
        let frame = stream.img2img(picture(number)).unwrap();
        assert_eq!(frame.is_some(), number >= warm_up as u64, "{number}");
        numbers.extend(frame.map(|f| f.number));
    }
    stream.finish();
    while let Some(frame) = stream.next_frame() {
        numbers.push(frame.unwrap().number);
    }
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
    assert!(stream.push(FrameSource::Noise).is_err());
    let stats = stream.stats();
    assert_eq!((stats.given, stats.drawn, stats.dropped, stats.skipped), (8, 8, 0, 0));
    assert!(stats.modelled_busy_us > 0.0);
}

/// j: streams in one process never see each other's frames: each gives what it gives alone, byte for byte.
#[test]
fn j_streams_beside_each_other_give_what_each_gives_alone() {
    let alone: Vec<_> = (0..2)
        .map(|i| all(&prepare(settings(PROMPTS[i]), QueueOptions::default()), 0..40))
        .collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let run =
            |i: usize| move || all(&prepare(settings(PROMPTS[i]), QueueOptions::default()), 0..40);
        let threads: Vec<_> = (0..2).map(|i| scope.spawn(run(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(alone[0].len(), 40);
    assert!(alone == together);
    assert!(alone[0] != alone[1]);
}

/// Weights reach a stream's frames; a prompt that cannot be read changes nothing.
#[test]
fn prompts_of_a_stream_have_weights() {
    let drawn = |prompt: &str| all(&prepare(settings(prompt), QueueOptions::default()), 0..3);
    let plain = drawn("a large red circle");
    assert!(plain == drawn("a large (red:1) circle"));
    assert!(plain != drawn("a large (red:1.5) circle"));
    let stream = prepare(settings("a large red circle"), QueueOptions::default());
    let said = stream.update_prompt("a [red|blue] circle").unwrap_err().to_string();
    assert!(said.contains("alternating words"), "{said}");
    assert!(plain == all(&stream, 0..3));
}

/// A frame is drawn with the settings of one generation, whatever changes beside it.
#[test]
fn each_frame_is_of_one_generation() {
    let expected: Vec<_> = PROMPTS
        .iter()
        .map(|p| all(&prepare(settings(p), QueueOptions::default()), 5..6).remove(0))
        .collect();
    let stream = prepare(settings(PROMPTS[0]), QueueOptions::default());
    let mut asked = vec![0usize];
    let mut seen = std::collections::BTreeSet::new();
    let mut check = |frame: rockshard::StreamFrame, asked: &[usize]| {
        let prompt = asked[frame.generation as usize];
        assert!(*frame.picture == *expected[prompt], "generation {}", frame.generation);
        seen.insert(frame.generation);
    };
    for round in 0..60u64 {
        if let Some(frame) = stream.img2img(picture(5)).unwrap() {
            check(frame, &asked);
        }
        let prompt = (round % 4) as usize;
        assert_eq!(stream.update_prompt(PROMPTS[prompt]).unwrap(), asked.len() as u64);
        asked.push(prompt);
    }
    stream.finish();
    while let Some(frame) = stream.next_frame() {
        check(frame.unwrap(), &asked);
    }
    assert!(seen.len() > 20, "{seen:?}");
}

/// A still scene is drawn every so often; what is skipped repeats the last picture, in its place.
#[test]
fn a_still_scene_is_mostly_skipped() {
    let stream = prepare(settings(PROMPTS[1]), QueueOptions::default());
    stream.enable_similar_image_filter(0.98, 10);
    let mut frames = Vec::new();
    for _ in 0..44 {
        frames.extend(stream.img2img(picture(3)).unwrap());
    }
    stream.finish();
    while let Some(frame) = stream.next_frame() {
        frames.push(frame.unwrap());
    }
    let drawn: Vec<u64> = frames.iter().filter(|f| !f.skipped).map(|f| f.number).collect();
    assert_eq!(drawn, [0, 11, 22, 33]);
    assert_eq!(frames.len(), 44);
    assert!(frames.iter().all(|f| f.picture == frames[0].picture));
    assert_eq!(stream.stats().skipped, 40);
}

/// Where frames come faster than they are drawn, stale ones are dropped and counted; the newest is drawn, and order is kept.
#[test]
fn stale_frames_are_dropped_and_counted() {
    let stream = prepare(settings(PROMPTS[2]), QueueOptions { capacity: 2, drop_stale: true });
    for number in 0..60 {
        stream.push(FrameSource::Picture(picture(number))).unwrap();
    }
    stream.finish();
    let mut numbers = Vec::new();
    while let Some(frame) = stream.next_frame() {
        numbers.push(frame.unwrap().number);
    }
    let stats = stream.stats();
    assert!(numbers.windows(2).all(|w| w[0] < w[1]), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&59));
    assert!(stats.dropped > 0);
    assert_eq!(stats.given, stats.dropped + stats.drawn);
    assert_eq!(stats.drawn, numbers.len() as u64);
}

/// A picture that cannot be is an error in its place; the stream goes on.
#[test]
fn a_broken_frame_stops_nothing() {
    let stream = prepare(settings(PROMPTS[3]), QueueOptions::default());
    let broken = Picture { rgb: vec![0; 5], ..picture(1) };
    for source in [picture(0), broken, picture(2)] {
        stream.push(FrameSource::Picture(source)).unwrap();
    }
    stream.finish();
    let frames: Vec<_> = std::iter::from_fn(|| stream.next_frame()).collect();
    assert_eq!(frames.len(), 3);
    assert!(frames[0].is_ok() && frames[2].is_ok());
    let error = frames[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("has 5 bytes"), "{error}");
    assert_eq!(stream.stats().failed, 1);
}

/// A stream that is dropped stops at once, whatever waits in it; so does one whose frames nobody takes.
#[test]
fn a_dropped_stream_hangs_nobody() {
    let start = Instant::now();
    for _ in 0..3 {
        let stream =
            prepare(settings(PROMPTS[0]), QueueOptions { capacity: 50, drop_stale: false });
        for number in 0..40 {
            stream.push(FrameSource::Picture(picture(number))).unwrap();
        }
        drop(stream);
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    let stream = prepare(settings(PROMPTS[0]), QueueOptions { capacity: 1, drop_stale: true });
    (0..200).for_each(|n| drop(stream.push(FrameSource::Picture(picture(n)))));
    let stats = stream.stats();
    assert!(stats.dropped >= 180, "{stats:?}");
    assert!(BUNDLED.cores.options().cores == 3);
}

/// A pack for four items at once gives the same frames: rows of several frames, at several levels, share a run.
#[test]
fn a_pack_of_batches_gives_the_same_frames() {
    let folder = tempfile::tempdir().unwrap();
    let pack = bundled::converted(folder.path(), 4);
    let pack = Pack::open(&pack).unwrap();
    let options = StreamOptions::default();
    let model = StreamModel::load(&BUNDLED.cores, &pack, &options).unwrap();
    for cfg_type in [CfgType::None, CfgType::Full] {
        for frame_buffer_size in [1, 2] {
            let settings = Settings { cfg_type, ..settings(PROMPTS[1]) };
            let config = StreamConfig { frame_buffer_size, ..StreamConfig::default() };
            let frames = |model: &StreamModel| {
                let stream = model.prepare(config, settings.clone(), QueueOptions::default());
                all(&stream.unwrap(), 0..10)
            };
            let (alone, together) = (frames(&BUNDLED.model), frames(&model));
            assert_eq!(together.len(), 10);
            for (a, b) in alone.iter().zip(&together) {
                // Products of another shape add in another order, which float16 may round otherwise.
                let most = a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(most <= Some(2), "{most:?} {cfg_type:?} {frame_buffer_size}");
            }
        }
    }
    assert!(Painter::load(&BUNDLED.cores, &pack, &PainterOptions::default()).is_err());
}

/// Frames of the prompt alone: each has noise of its own, and the same again with the same seed.
#[test]
fn frames_of_the_prompt_alone() {
    let pictures = |sequential: bool| {
        let settings = Settings { t_index_list: vec![0, 16, 32, 45], ..settings(PROMPTS[0]) };
        let config = StreamConfig { use_denoising_batch: !sequential, ..StreamConfig::default() };
        let stream = BUNDLED.model.prepare(config, settings, QueueOptions::default()).unwrap();
        let mut pictures = Vec::new();
        for _ in 0..4 {
            pictures.extend(stream.txt2img().unwrap().map(|f| f.picture));
        }
        assert!(stream.txt2img_sd_turbo().is_err());
        stream.finish();
        pictures.extend(std::iter::from_fn(|| stream.next_frame()).map(|f| f.unwrap().picture));
        pictures
    };
    for sequential in [false, true] {
        let found = pictures(sequential);
        assert_eq!(found.len(), 4);
        assert!(found[0] != found[1]);
        assert!(found == pictures(sequential));
    }
}
