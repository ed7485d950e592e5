//! Ten steps of every sampler through the float32 device are those of diffusers' pipelines (`tools/record_sampling.py`): text to image and image to image, with and
//! without guidance, for U-Nets that predict noise and velocity.

use rockshard::{ConvertRequest, DeviceName, LoadedPack, Mode, Pack, RunOptions, Tensor, convert};
use rockshard_diffusion::{History, Sampler, SamplerConfig, classifier_free};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const SIDE: usize = 4;
const TOKENS: usize = 7;
const WIDTH: usize = 8;

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sampling").join(file)
}

fn floats(json: &Json) -> Vec<f32> {
    json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn predict(unet: &LoadedPack, latent: &[f32], timestep: f64, prompts: &[&[f32]]) -> Vec<Vec<f32>> {
    let item = |prompt: &&[f32]| {
        BTreeMap::from([
            ("sample".to_owned(), Tensor::from_f32([1, 4, SIDE, SIDE], latent.to_vec())),
            ("timestep".to_owned(), Tensor::from_f32(Vec::new(), vec![timestep as f32])),
            (
                "encoder_hidden_states".to_owned(),
                Tensor::from_f32([1, TOKENS, WIDTH], prompt.to_vec()),
            ),
        ])
    };
    let name = unet.models().next().unwrap().name.clone();
    let outcome =
        unet.run(&name, prompts.iter().map(item).collect(), &RunOptions::default()).unwrap();
    let values = |map: &BTreeMap<String, Tensor>| map["out_sample"].to_f32().unwrap().into_owned();
    outcome.outputs.unwrap().iter().map(values).collect()
}

#[test]
fn ten_steps_are_diffusers() {
    let record: Json = serde_json::from_slice(&std::fs::read(data("runs.json")).unwrap()).unwrap();
    let [prompt, negative, clean] = ["prompt", "negative", "clean"].map(|key| floats(&record[key]));
    let noises: Vec<Vec<f32>> = record["noises"].as_array().unwrap().iter().map(floats).collect();
    let steps = record["steps"].as_u64().unwrap() as usize;
    let cores = rockshard::take_cores(DeviceName::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let unet = |prediction: &str| {
        let path = folder.path().join(prediction);
        let request = ConvertRequest::new(data(&format!("{prediction}.onnx")), &path);
        convert(request, &mut |_| ControlFlow::Continue(())).unwrap();
        cores.load(&Pack::open(&path).unwrap(), Mode::Pipeline, |_| true).unwrap()
    };
    let unets = BTreeMap::from(["epsilon", "v_prediction"].map(|p| (p, unet(p))));
    let runs = record["runs"].as_array().unwrap();
    // Eight samplers, two U-Nets, with and without guidance, of text and of a picture.
    assert_eq!(runs.len(), 8 * 2 * 2 * 2);
    for run in runs {
        let label =
            format!("{} {} {} {}", run["sampler"], run["config"], run["guidance"], run["image"]);
        let config = SamplerConfig::from_scheduler(&run["config"].to_string()).unwrap();
        let unet = &unets[run["config"]["prediction_type"].as_str().unwrap()];
        let sampler = Sampler::new(&config, None).unwrap();
        assert_eq!(sampler.name().as_str(), run["sampler"].as_str().unwrap());
        let guidance = run["guidance"].as_f64().unwrap();
        let image = run["image"].as_bool().unwrap();
        let strength = if image { record["strength"].as_f64().unwrap() } else { 1.0 };
        let levels = sampler.run(steps, strength).unwrap();
        let mut fresh = noises.iter();
        let start = fresh.next().unwrap();
        let mut latent = match image {
            true => sampler.noised(&levels, 0, &clean, start).unwrap(),
            false => start.iter().map(|v| v * levels.start as f32).collect(),
        };
        let mut history = History::default();
        for (index, &timestep) in levels.timesteps.iter().enumerate() {
            let scaled = sampler.scaled(&levels, index, &latent);
            let output = match guidance > 1.0 {
                true => {
                    let both = predict(unet, &scaled, timestep, &[&negative, &prompt]);
                    classifier_free(&both[0], &both[1], guidance as f32)
                }
                false => predict(unet, &scaled, timestep, &[&prompt]).remove(0),
            };
            let none = Vec::new();
            let noise = match sampler.needs_noise(&levels, index) {
                true => fresh.next().unwrap(),
                false => &none,
            };
            latent = sampler.step(&levels, index, &mut history, &output, &latent, noise).unwrap();
        }
        let expected = floats(&run["latent"]);
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let apart = latent.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart <= 1e-4 * largest, "{label}: {apart:e} of {largest}");
    }
}
