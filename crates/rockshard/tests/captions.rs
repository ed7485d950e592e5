//! The bundled vision-language model on held-out scenes: what it says through the simulator is what ONNX Runtime says behind transformers' processor
//! (`tools/record_vlm_scenes.py`), it is right, and it describes what the bundled text-to-image model draws from a prompt.

mod scenes;

use rockshard::{
    Captioner, CaptionerOptions, Cores, DeviceName, Pack, Painter, PainterOptions, Rgb, RunOptions,
    Sampling,
};
use scenes::{converted, drawings, repository};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

const SCENES: usize = 200;
const QUESTION: &str = "Describe this image.";

fn json(path: PathBuf) -> Vec<Json> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text<'a>(record: &'a Json, key: &str) -> &'a str {
    record[key].as_str().unwrap()
}

fn say(captioner: &Captioner, image: &Rgb, question: &str) -> String {
    let mut conversation =
        captioner.conversation(Sampling::default(), RunOptions::default()).unwrap();
    let mut heard = |_: &str| ControlFlow::Continue(());
    let answer = conversation.ask(question, std::slice::from_ref(image), 32, &mut heard).unwrap();
    answer.text.trim().to_owned()
}

/// Shares of the first scenes for which two of a record's texts are one.
fn share(pairs: impl Iterator<Item = (String, String)>) -> f64 {
    pairs.take(SCENES).filter(|(a, b)| a == b).count() as f64 / SCENES as f64
}

#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn held_out_scenes_are_described_as_the_reference_does() {
    let recorded = json(repository("crates/rockshard/tests/data/scenes.json"));
    assert!(recorded.len() > SCENES);
    let (_folder, pack) = converted("shards/tiny-vlm");
    let cores = rockshard::take_cores(DeviceName::Sim).unwrap();
    let captioner = Captioner::load(&cores, &pack, &CaptionerOptions::default()).unwrap();
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    for (record, drawing) in recorded.iter().zip(drawings(recorded.len())) {
        said.push(say(&captioner, &drawing, QUESTION));
        answered.push(say(&captioner, &drawing, text(record, "question")));
    }
    let of = |said: &[String], key: &'static str| {
        let wanted: Vec<String> = recorded.iter().map(|r| text(r, key).to_owned()).collect();
        share(said.iter().cloned().zip(wanted))
    };
    let shares = [
        of(&said, "said"),
        of(&said, "caption"),
        of(&answered, "answered"),
        of(&answered, "answer"),
    ];
    eprintln!(
        "captions as the reference's {}, right {}; answers as the reference's {}, right {}",
        shares[0], shares[1], shares[2], shares[3]
    );
    let wanted = [0.98, 0.95, 0.98, 0.95];
    assert!(shares.iter().zip(wanted).all(|(found, wanted)| *found >= wanted), "{shares:?}");
    // A blank picture never has the caption of another one.
    let mut described: HashMap<&str, usize> = HashMap::new();
    said[..SCENES].iter().for_each(|s| *described.entry(s).or_default() += 1);
    for blank in &said[SCENES..] {
        assert!(blank.contains("blank") && !described.contains_key(blank.as_str()), "{blank}");
    }
}

/// A further question costs its own tokens, and its answer is as right as that to a first one.
#[test]
fn a_conversation_goes_on() {
    const ASKED: usize = 60;
    // A line break, the question in the template, and what the last answer's end costs.
    const OWN: usize = 24;
    let recorded = json(repository("crates/rockshard/tests/data/scenes.json"));
    let (_folder, pack) = converted("shards/tiny-vlm");
    let cores = rockshard::take_cores(DeviceName::Sim).unwrap();
    let captioner = Captioner::load(&cores, &pack, &CaptionerOptions::default()).unwrap();
    let mut right = 0;
    for (record, drawing) in recorded.iter().zip(drawings(ASKED)) {
        let mut conversation =
            captioner.conversation(Sampling::default(), RunOptions::default()).unwrap();
        let mut heard = |_: &str| ControlFlow::Continue(());
        let first = conversation.ask(QUESTION, &[drawing], 32, &mut heard).unwrap();
        assert_eq!(first.text.trim_start(), first.text);
        let second = conversation.ask(text(record, "question"), &[], 32, &mut heard).unwrap();
        assert!(second.times.fed_tokens <= OWN, "{:?}", second.times);
        assert!(second.times.prompt_tokens > 100);
        right += usize::from(second.text == text(record, "answer"));
    }
    eprintln!("{right} of {ASKED} further answers right");
    assert!(right * 20 >= ASKED * 19, "{right}");
}

fn painter(cores: &Cores, pack: &Pack) -> Painter {
    let options = PainterOptions { from_pictures: false, ..PainterOptions::default() };
    Painter::load(cores, pack, &options).unwrap()
}

/// Prompt to picture to caption: what was asked for is what is seen.
#[test]
#[ignore = "a quarter of a minute and more: .ci/run asks for it"]
fn what_is_drawn_is_described_as_it_was_asked_for() {
    let prompts = json(repository("shards/tiny-lcm/held_out.json"));
    assert_eq!(prompts.len(), 64);
    let cores = rockshard::take_cores(DeviceName::Sim).unwrap();
    let (_drawing, drawing) = converted("shards/tiny-lcm");
    let (_describing, describing) = converted("shards/tiny-vlm");
    let painter = painter(&cores, &drawing);
    let captioner = Captioner::load(&cores, &describing, &CaptionerOptions::default()).unwrap();
    let mut agree = 0;
    for record in &prompts {
        let prompt = text(record, "caption");
        let request = rockshard::Request {
            seed: record["seed"].as_u64().unwrap(),
            ..painter.request(prompt, None).unwrap()
        };
        let drawn = painter
            .draw(&request, &RunOptions::default(), &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let picture = &drawn.pictures[0];
        let size = (picture.width as usize, picture.height as usize);
        let image = Rgb::new(size.0, size.1, picture.rgb.clone()).unwrap();
        let said = say(&captioner, &image, QUESTION);
        if said == prompt {
            agree += 1;
        } else {
            eprintln!("{prompt}: {said}");
        }
    }
    eprintln!("{agree} of {} captions are their prompts", prompts.len());
    assert!(agree * 10 >= prompts.len() * 9, "{agree}");
}
