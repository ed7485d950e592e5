//! Streams that run for long. Minutes each, so they run when asked for:
//! `cargo test --release -p rockshard --test stream_endurance -- --ignored --nocapture --test-threads 1`

mod bundled;

use bundled::{PROMPTS, all, picture, prepare, settings};
use rockshard::{FrameSource, QueueOptions, Settings, Stream, StreamFrame};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Resident memory of this process in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Give frames from another thread, and look at each that comes back.
fn through(
    stream: &Stream,
    frames: u64,
    pause: Duration,
    number: impl Fn(u64) -> u64 + Sync,
    mut look: impl FnMut(&StreamFrame),
) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..frames {
                std::thread::sleep(pause);
                stream.push(FrameSource::Picture(picture(number(n)))).unwrap();
            }
            stream.finish();
        });
        while let Some(frame) = stream.next_frame() {
            look(&frame.unwrap());
        }
    });
}

/// Ten thousand frames, every third a still one, and as many that come faster than they can be drawn: flat memory, order, nothing lost that was
/// not counted.
#[test]
#[ignore = "minutes"]
fn ten_thousand_frames() {
    const FRAMES: u64 = 10_000;
    let one = Settings { t_index_list: vec![40], ..settings(PROMPTS[0]) };
    for drop_stale in [false, true] {
        let queue = QueueOptions { drop_stale, ..QueueOptions::default() };
        let stream = prepare(one.clone(), queue);
        stream.enable_similar_image_filter(0.999, 10);
        let pause = Duration::from_millis(if drop_stale { 10 } else { 0 });
        let (mut seen, mut next, mut memory) = (0u64, 0, Vec::new());
        let start = Instant::now();
        through(
            &stream,
            FRAMES,
            pause,
            |n| n - n / 3,
            |frame| {
                assert!(frame.number >= next, "{} after {next}", frame.number);
                assert!(drop_stale || frame.number == next);
                next = frame.number + 1;
                seen += 1;
                if seen.is_multiple_of(1000) {
                    memory.push(resident());
                }
            },
        );
        let stats = stream.stats();
        eprintln!(
            "{:.0} s: {stats:?}; resident after each thousand frames, kB: {memory:?}",
            start.elapsed().as_secs_f64()
        );
        assert_eq!(stats.given, FRAMES);
        assert_eq!(stats.given, stats.drawn + stats.skipped + stats.dropped);
        assert_eq!(seen, stats.drawn + stats.skipped);
        assert!(stats.skipped > 0 && (stats.dropped > 0) == drop_stale);
        // The first thousand frames fill the pools of buffers.
        assert!(memory.last() < memory.first().map(|m| m + m / 10).as_ref(), "{memory:?}");
    }
}

/// A hundred prompts a second for ten seconds, each frame of one of them; frames come about as late as undisturbed ones.
#[test]
#[ignore = "a minute"]
fn a_thousand_prompts_in_ten_seconds() {
    const PROMPT_COUNT: usize = 40;
    let colours = ["red", "green", "blue", "yellow", "purple"];
    let prompt = |n: usize| {
        let (shape, n) = (["circle", "square", "ring", "cross"][n % 4], n / 4);
        let (colour, size) = (colours[n % 5], ["large", "small"][n / 5 % 2]);
        format!("a {size} {colour} {shape} on a white background")
    };
    let expected: Vec<_> = (0..PROMPT_COUNT)
        .map(|n| all(&prepare(settings(&prompt(n)), QueueOptions::default()), 5..6).remove(0))
        .collect();
    let run = |prompts: bool| {
        let stream = prepare(settings(&prompt(0)), QueueOptions::default());
        let generations = Mutex::new(BTreeMap::from([(0, 0)]));
        let (mut latency, mut frames, mut seen) = (Duration::ZERO, 0u32, 0u64);
        let start = Instant::now();
        let mut asked = 0u32;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while start.elapsed() < Duration::from_secs(10) {
                    stream.push(FrameSource::Picture(picture(5))).unwrap();
                }
                stream.finish();
            });
            if prompts {
                scope.spawn(|| {
                    for n in 1..=1000u32 {
                        let due = start + Duration::from_millis(10) * n;
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let at = n as usize * 7 % PROMPT_COUNT;
                        // Known before any frame can have it.
                        generations.lock().unwrap().insert(u64::from(n), at);
                        assert_eq!(stream.update_prompt(&prompt(at)).unwrap(), u64::from(n));
                        asked = n;
                    }
                });
            }
            while let Some(frame) = stream.next_frame() {
                let frame = frame.unwrap();
                let at = generations.lock().unwrap()[&frame.generation];
                assert!(*frame.picture == *expected[at], "frame {}", frame.number);
                seen = seen.max(frame.generation);
                latency += frame.latency;
                frames += 1;
            }
        });
        let interval = start.elapsed() / frames;
        (latency / frames, interval, frames, seen, asked, start.elapsed())
    };
    let (alone, beside) = (run(false), run(true));
    eprintln!(
        "undisturbed, with prompts (latency, interval, frames, last generation, prompts, time): {alone:?}, {beside:?}"
    );
    assert_eq!(beside.4, 1000);
    assert!(beside.5 < Duration::from_secs(14), "prompts wait");
    assert!(beside.0 < alone.0 + alone.1 * 2, "{:?} after {:?}", beside.0, alone.0);
}

/// Two streams in one process, a thousand frames each, byte for byte what each gives alone.
#[test]
#[ignore = "minutes"]
fn a_thousand_frames_beside_another_stream() {
    let stream = |i: usize| all(&prepare(settings(PROMPTS[i]), QueueOptions::default()), 0..1000);
    let alone: Vec<_> = (0..2).map(stream).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|i| scope.spawn(move || stream(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(alone[0].len(), 1000);
    assert!(alone == together && alone[0] != alone[1]);
}
