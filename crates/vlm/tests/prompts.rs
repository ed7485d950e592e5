//! Prompts against those of transformers' processor, recorded by `tools/record_vlm_prompts.py`.

use rockshard_vlm::{ImageProcessor, Message, Part, Prompter, Rgb, Speaker, Views};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

const PLACES: usize = 64;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

fn prompter() -> Prompter {
    Prompter::open(&[&data("chat")], PLACES).unwrap()
}

fn views(width: usize, height: usize, edge: usize) -> Views {
    let text = std::fs::read_to_string(data("preprocessor_config.json")).unwrap();
    let processor = ImageProcessor::from_json(&text).unwrap().with_grid(edge).unwrap();
    processor.views(&Rgb::new(width, height, vec![90; width * height * 3]).unwrap())
}

fn message(json: &Json) -> Message {
    let role = match json["role"].as_str().unwrap() {
        "system" => Speaker::System,
        "user" => Speaker::User,
        _ => Speaker::Assistant,
    };
    let part = |p: &Json| match p["text"].as_str() {
        Some(text) => Part::Text { text: text.to_owned() },
        None => Part::Image,
    };
    Message { role, content: json["content"].as_array().unwrap().iter().map(part).collect() }
}

/// Token ids exactly, for no, one and several images, grids of one to seventeen views, and with what was said before.
#[test]
fn prompts_are_transformers() {
    let text = std::fs::read_to_string(data("chat/prompts.json")).unwrap();
    let recorded: Vec<Json> = serde_json::from_str(&text).unwrap();
    let prompter = prompter();
    let mut counts = std::collections::BTreeSet::new();
    for case in &recorded {
        let number = |v: &Json| v.as_u64().unwrap() as usize;
        let edge = number(&case["edge"]);
        let sizes = case["sizes"].as_array().unwrap().iter();
        let images: Vec<Views> = sizes.map(|s| views(number(&s[0]), number(&s[1]), edge)).collect();
        let messages: Vec<Message> =
            case["messages"].as_array().unwrap().iter().map(message).collect();
        let prompt = prompter.prompt(&messages, &images.iter().collect::<Vec<_>>()).unwrap();
        let expected: Vec<u32> = case["ids"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|run| std::iter::repeat_n(number(&run[0]) as u32, number(&run[1])))
            .collect();
        assert_eq!(prompt.ids, expected, "{}", case["prompt"]);
        let places: usize = prompt.views.iter().map(ExactSizeIterator::len).sum();
        assert_eq!(places, PLACES * images.iter().map(Views::count).sum::<usize>());
        counts.extend(images.iter().map(Views::count));
    }
    assert!(recorded.len() >= 28);
    assert!(counts.contains(&1) && counts.contains(&17) && counts.len() >= 6, "{counts:?}");
}

#[test]
fn what_cannot_be_a_prompt_is_refused() {
    let prompter = prompter();
    let image = views(8, 8, 1);
    let said = |messages: &[Message], images: &[&Views]| {
        prompter.prompt(messages, images).unwrap_err().to_string()
    };
    for token in ["<image>", "<end_of_utterance>", "<fake_token_around_image>", "<row_1_col_2>"] {
        let typed = [Message::text(Speaker::User, format!("see {token} there"))];
        assert!(said(&typed, &[]).contains(&format!("{token:?} is a control token")));
    }
    let about = [Message::about(2, "What is it?")];
    assert_eq!(said(&about, &[&image]), "2 places for images in the conversation, but 1 images");
    let empty = [Message { role: Speaker::User, content: Vec::new() }];
    assert!(said(&empty, &[]).contains("empty message"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = || Prompter::open(&[folder.path()], PLACES).err().unwrap().to_string();
    assert!(said().contains("tokenizer.json"));
    std::fs::copy(data("chat/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(
        said().contains("none of chat_template.jinja, chat_template.json, tokenizer_config.json")
    );
    let template = folder.path().join("chat_template.jinja");
    std::fs::write(&template, "{% for x in %}").unwrap();
    assert!(said().contains("chat template"));
    std::fs::write(&template, "{{ raise_exception('roles must alternate') }}").unwrap();
    let prompter = Prompter::open(&[folder.path()], PLACES).unwrap();
    let found = prompter.prompt(&[Message::text(Speaker::User, "hello")], &[]).unwrap_err();
    assert!(found.to_string().contains("roles must alternate"), "{found}");
    // A template that loses images.
    std::fs::write(&template, "{{ messages[0].content[0].text.strip() }}").unwrap();
    let prompter = Prompter::open(&[folder.path()], PLACES).unwrap();
    let found = prompter.prompt(&[Message::about(1, "x")], &[&views(8, 8, 1)]).unwrap_err();
    assert!(found.to_string().contains("chat template"), "{found}");
    let json = r#"{"chat_template": "{{ messages[0].content[0].text.strip() }}"}"#;
    std::fs::remove_file(&template).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), json).unwrap();
    let prompter = Prompter::open(&[folder.path()], PLACES).unwrap();
    let prompt = prompter.prompt(&[Message::text(Speaker::User, "  hello ")], &[]).unwrap();
    assert_eq!(prompt.text, "hello");
}
