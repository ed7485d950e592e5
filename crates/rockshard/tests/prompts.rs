//! Weights in prompts: hidden states are those of diffusers' community pipeline behind the same text encoder (`tools/record_prompts.py`).

use rockshard::{
    ConvertRequest, DeviceName, Pack, Painter, PainterOptions, Request, RunOptions, Sandwich,
};
use rockshard_tensor::read_safetensors;
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};

/// Largest difference of a value; they are near 1.
const TOLERANCE: f32 = 1e-4;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prompts").join(file)
}

#[test]
fn hidden_states_are_those_of_the_pipeline() {
    let prompts: Vec<String> =
        serde_json::from_slice(&std::fs::read(data("prompts.json")).unwrap()).unwrap();
    let expected = read_safetensors(&data("hidden.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm");
    let request = ConvertRequest { sandwich: Sandwich::Off, ..ConvertRequest::new(source, &path) };
    rockshard::convert(request, &mut |_| Continue(())).unwrap();
    let cores = rockshard::take_cores(DeviceName::Cpu).unwrap();
    let pack = Pack::open(&path).unwrap();
    let painter = Painter::load(&cores, &pack, &PainterOptions::default()).unwrap();
    assert_eq!(prompts.len(), expected.len());
    let mut largest = 0.0f32;
    for (index, prompt) in prompts.iter().enumerate() {
        let request = Request { steps: 1, ..painter.request(prompt, None).unwrap() };
        let options = RunOptions::default();
        let (drawing, inputs) =
            painter.draw_and_record(&request, &options, &mut |_| Continue(())).unwrap();
        let parameters = drawing.pictures[0].parameters.as_ref().unwrap();
        assert_eq!(&parameters.prompt, prompt, "the picture keeps the prompt as it was typed");
        let found = inputs["unet"]["encoder_hidden_states"].to_f32().unwrap().into_owned();
        let expected = expected[&format!("prompt-{index}")].to_f32().unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected.iter()) {
            largest = largest.max((found - expected).abs());
        }
    }
    eprintln!("largest difference of hidden states: {largest:.1e}");
    assert!(largest < TOLERANCE, "{largest:.1e}");
}
