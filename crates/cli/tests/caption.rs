//! `caption` and `chat` with a model of SmolVLM's kind that has random weights: what it says is what transformers makes it say
//! (`tools/record_vlm_language.py`), however the views go through the cores.

mod common;

use common::{Work, rockshard};
use serde_json::Value as Json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vlm/tests/data").join(file)
}

fn image(file: &str) -> String {
    data("images").join(file).display().to_string()
}

static PACK: LazyLock<(Work, PathBuf)> = LazyLock::new(|| {
    let work = Work::new();
    let pack = work.path("pack");
    convert(&data("model"), &pack);
    (work, pack)
});

fn convert(model: &Path, pack: &Path) {
    let paths = ["convert", model.to_str().unwrap(), "--out", pack.to_str().unwrap(), "--quiet"];
    rockshard(&paths).success();
}

fn caption(images: &[&str], more: &[&str]) -> common::Run {
    let first = ["caption", PACK.1.to_str().unwrap()];
    let usual = ["--quiet", "--max-tokens", "32"];
    let usual = if more.contains(&"--max-tokens") { &usual[..1] } else { &usual[..] };
    rockshard(&[&first[..], images, usual, more].concat())
}

fn answer(images: &[&str], more: &[&str]) -> Json {
    let printed = caption(images, &[&["--json"], more].concat()).success();
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn what_is_said_is_what_transformers_says() {
    let text = std::fs::read_to_string(data("answers.json")).unwrap();
    let recorded: Vec<Json> = serde_json::from_str(&text).unwrap();
    assert!(recorded.len() >= 4);
    for case in &recorded {
        let image = image(case["file"].as_str().unwrap());
        let tiles = case["edge"].to_string();
        for way in [
            &["--device", "cpu"][..],
            &["--device", "sim"],
            &["--device", "sim", "--mode", "pipeline"],
            &["--device", "sim", "--mode", "replicate", "--threads", "1"],
        ] {
            let found = answer(&[&image], &[&["--tiles", &tiles], way].concat());
            assert_eq!(found["tokens"], case["tokens"], "{} {way:?}", case["file"]);
        }
    }
    let views = |tiles: &str| {
        let found = answer(&[&image("00-640x480-RGB.png")], &["--tiles", tiles]);
        found["times"]["views"].as_u64().unwrap()
    };
    assert_eq!((views("4"), views("1")), (13, 1));
}

#[test]
fn words_come_as_they_are_chosen() {
    let image = image("05-17x13-RGB.png");
    let warm = |seed: &str| {
        let words = ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--seed", seed];
        answer(&[&image], &[&["--tiles", "1"], &words[..]].concat())["tokens"].clone()
    };
    assert_eq!(warm("1"), warm("1"));
    assert_ne!(warm("1"), warm("2"));
    let plain = caption(&[&image], &["--tiles", "1"]).success();
    let json = answer(&[&image], &["--tiles", "1"]);
    assert_eq!(plain.trim_end_matches('\n'), json["text"].as_str().unwrap());
    let short = answer(&[&image], &["--max-tokens", "3"]);
    assert_eq!((short["tokens"].as_array().unwrap().len(), &short["end"]), (3, &"length".into()));
    let two = answer(&[&image, &image], &["--tiles", "1"]);
    assert_eq!(two["times"]["views"], 2);
}

fn chat(lines: &str) -> (Vec<Json>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rockshard"))
        .args(["chat", PACK.1.to_str().unwrap(), "--json", "--tiles", "2", "--max-tokens", "12"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8_lossy(&output.stdout);
    let answers = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (answers, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A further question costs its own tokens; what went wrong leaves the conversation as it was.
#[test]
fn a_conversation_keeps_its_images() {
    let image = image("00-640x480-RGB.png");
    let lines = format!(
        "/image {image}\nWhat is it?\n/image nowhere.png\n/wave\nIs <image> there?\nAnd what else?\n/quit\nnot asked\n"
    );
    let (answers, said) = chat(&lines);
    assert_eq!(answers.len(), 2, "{said}");
    let number = |answer: &Json, key: &str| answer["times"][key].as_u64().unwrap();
    assert!(number(&answers[0], "views") > 1);
    assert_eq!(number(&answers[0], "fed_tokens"), number(&answers[0], "prompt_tokens"));
    assert_eq!(number(&answers[1], "views"), 0);
    let (fed, all) = (number(&answers[1], "fed_tokens"), number(&answers[1], "prompt_tokens"));
    assert!(fed < all / 2, "{fed} of {all}");
    for part in ["nowhere.png", "there is no /wave", "\"<image>\" is a control token"] {
        assert!(said.contains(part), "{said}");
    }
    // The same without the mishaps.
    let (again, _) = chat(&format!("/image {image}\nWhat is it?\nAnd what else?\n"));
    assert_eq!(
        answers.iter().map(|a| &a["text"]).collect::<Vec<_>>(),
        again.iter().map(|a| &a["text"]).collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_described_is_refused() {
    let work = Work::new();
    let good = image("05-17x13-RGB.png");
    let broken = work.path("broken.png");
    std::fs::write(&broken, b"no image").unwrap();
    let empty = work.path("empty.jpg");
    std::fs::write(&empty, b"").unwrap();
    let half = work.path("half.jpg");
    let whole = std::fs::read(data("images/20-200x150-RGB-exif6.jpg")).unwrap();
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let long = "word ".repeat(3000);
    for (images, more, said) in [
        (vec![broken.to_str().unwrap()], vec![], "broken.png: the image cannot be read"),
        (
            vec![empty.to_str().unwrap()],
            vec![],
            "empty.jpg: the image cannot be read: it is empty (0 bytes)",
        ),
        (
            vec![half.to_str().unwrap()],
            vec![],
            "half.jpg: the image cannot be read: the JPEG is cut off",
        ),
        (vec!["gone.png"], vec![], "gone.png: No such file"),
        (vec![&good], vec!["--prompt", "a <row_1_col_1> b"], "is a control token of the model"),
        (vec![&good], vec!["--prompt", &long], "the model has room for 2048"),
        (vec![&good], vec!["--temperature=-2"], "temperature is -2"),
        (vec![&good], vec!["--tiles", "0"], "a grid of 0 views a side"),
    ] {
        let found = caption(&images, &more).exits(1);
        assert!(found.contains(said), "{found}");
    }
    // A directory without its language model, and a pack that draws.
    let model = work.path("model");
    std::fs::create_dir_all(model.join("onnx")).unwrap();
    for file in [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "onnx/vision_encoder.onnx",
        "onnx/vision_encoder.onnx_data",
    ] {
        std::fs::copy(data("model").join(file), model.join(file)).unwrap();
    }
    let pack = work.path("pack");
    convert(&model, &pack);
    let found = rockshard(&["caption", pack.to_str().unwrap(), &good]).exits(1);
    assert!(found.contains("it has no language_model"), "{found}");
    let drawing = work.path("drawing");
    work.convert(&drawing, &["--sandwich", "off"]);
    let found = rockshard(&["caption", drawing.to_str().unwrap(), &good]).exits(1);
    assert!(found.contains("its family is text_to_image"), "{found}");
}
