//! The sampler and the guidance embedding against diffusers, recorded by tools/record_vectors.py.

use proptest::prelude::*;
use rockshard_diffusion::{LcmSampler, SamplerConfig, SamplerError, guidance_embedding};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::Path};

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
    schedules: Vec<(usize, usize, f64, Option<Vec<i64>>)>,
    embeddings: Vec<Embedding>,
    alphas_every_37: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Case {
    config: SamplerConfig,
    steps: usize,
    strength: f64,
    timesteps: Vec<i64>,
    clean: Vec<f32>,
    noise: Vec<f32>,
    noisy: Vec<f32>,
    trace: Vec<Traced>,
}

#[derive(Deserialize)]
struct Traced {
    output: Vec<f32>,
    noise: Vec<f32>,
    previous: Vec<f32>,
    denoised: Vec<f32>,
}

#[derive(Deserialize)]
struct Embedding {
    guidance: f64,
    size: usize,
    values: Vec<f32>,
}

fn recorded() -> Recorded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sampler.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Largest difference, relative to the largest expected magnitude.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn steps_equal_diffusers() {
    let mut worst = 0f32;
    let cases = recorded().cases;
    assert_eq!(cases.len(), 19);
    for case in cases {
        let sampler = LcmSampler::new(&case.config).unwrap();
        let timesteps = sampler.timesteps(case.steps, case.strength).unwrap();
        assert_eq!(timesteps, case.timesteps);
        let mut sample = sampler.add_noise(timesteps[0], &case.clean, &case.noise).unwrap();
        worst = worst.max(difference(&sample, &case.noisy));
        // Our own latent is carried on, so that the difference of the last step is that of a whole run.
        for (index, traced) in case.trace.iter().enumerate() {
            let step =
                sampler.step(&timesteps, index, &traced.output, &sample, &traced.noise).unwrap();
            worst = worst
                .max(difference(&step.previous, &traced.previous))
                .max(difference(&step.denoised, &traced.denoised));
            sample = step.previous;
        }
    }
    assert!(worst <= 2e-6, "largest relative difference {worst:e}");
}

#[test]
fn schedules_equal_diffusers() {
    for (original, steps, strength, expected) in recorded().schedules {
        let sampler = LcmSampler::new(&SamplerConfig {
            original_inference_steps: original,
            ..SamplerConfig::default()
        })
        .unwrap();
        assert_eq!(
            sampler.timesteps(steps, strength).ok(),
            expected,
            "{original} {steps} {strength}"
        );
    }
}

#[test]
fn signal_shares_equal_diffusers() {
    for (beta_schedule, expected) in recorded().alphas_every_37 {
        let config = SamplerConfig { beta_schedule, ..SamplerConfig::default() };
        let found: Vec<f32> = config.signal_shares().unwrap().into_iter().step_by(37).collect();
        assert!(difference(&found, &expected) <= 2e-7, "{}", config.beta_schedule);
    }
}

#[test]
fn guidance_embeddings_equal_diffusers() {
    let mut worst = 0f32;
    for e in recorded().embeddings {
        let found = guidance_embedding(e.guidance, e.size).unwrap();
        worst = found.iter().zip(&e.values).fold(worst, |m, (a, b)| m.max((a - b).abs()));
        assert_eq!(found.len(), e.values.len());
    }
    // Sines of angles up to 7000: one rounding of the angle is 4e-4.
    assert!(worst <= 5e-4, "largest difference {worst:e}");
    assert_eq!(guidance_embedding(2.0, 3), Err(SamplerError::EmbeddingSize(3)));
}

#[test]
fn reference_levels() {
    let sampler = LcmSampler::new(&SamplerConfig::default()).unwrap();
    for (timestep, signal, sigma) in
        [(999, 0.068_265, 0.997_667), (479, 0.552_355, 0.833_609), (19, 0.991_082, 0.133_252)]
    {
        let (a, b) = sampler.levels(timestep).unwrap();
        assert!((a - signal).abs() < 1e-6 && (b - sigma).abs() < 1e-6, "{timestep}: {a} {b}");
    }
    let (skip, out) = sampler.boundary(19);
    assert!((skip - 6.925e-6).abs() < 1e-9 && (out - 0.999_996_5).abs() < 1e-7);
}

#[test]
fn what_is_not_supported_is_refused() {
    let refused = |change: fn(&mut SamplerConfig)| {
        let mut config = SamplerConfig::default();
        change(&mut config);
        LcmSampler::new(&config).unwrap_err().to_string()
    };
    assert!(refused(|c| c.prediction_type = "flow".into()).contains("prediction_type is \"flow\""));
    assert!(refused(|c| c.beta_schedule = "squaredcos_cap_v2".into()).contains("beta_schedule"));
    assert!(refused(|c| c.thresholding = true).contains("thresholding"));
    assert!(refused(|c| c.rescale_betas_zero_snr = true).contains("rescale_betas_zero_snr"));
    assert!(refused(|c| c.original_inference_steps = 0).contains("original_inference_steps"));
    assert!(refused(|c| c.original_inference_steps = 1001).contains("original_inference_steps"));
    assert!(refused(|c| c.num_train_timesteps = 0).contains("num_train_timesteps"));
    assert!(refused(|c| c.num_train_timesteps = usize::MAX).contains("num_train_timesteps"));
    assert!(refused(|c| c.beta_end = f64::NAN).contains("beta"));
    assert!(refused(|c| c.timestep_scaling = 0.0).contains("timestep_scaling"));
    let sampler = LcmSampler::new(&SamplerConfig::default()).unwrap();
    assert_eq!(sampler.timesteps(0, 1.0), Err(SamplerError::NoSteps));
    assert_eq!(
        sampler.timesteps(26, 0.5),
        Err(SamplerError::TooManySteps { steps: 26, strength: 0.5, available: 25 })
    );
    assert!(matches!(sampler.timesteps(4, f64::NAN), Err(SamplerError::Strength(_))));
    assert!(sampler.levels(-1).is_err() && sampler.levels(1000).is_err());
    assert!(sampler.step(&[999], 1, &[0.0], &[0.0], &[]).is_err());
    assert!(sampler.step(&[999], 0, &[0.0, 1.0], &[0.0], &[]).is_err());
    assert!(sampler.step(&[999, 499], 0, &[0.0], &[0.0], &[]).is_err());
}

proptest! {
    /// A U-Net that knows the noise gives back the clean latent, whichever way it says so.
    #[test]
    fn a_perfect_prediction_gives_the_clean_latent(clean in prop::collection::vec(-3f32..3.0, 8), seed: u64, index in 0usize..50) {
        let noise = rockshard_diffusion::noise::standard_normal(seed, 0, 0, 8);
        let timestep = 999 - 20 * index as i64;
        for prediction in ["epsilon", "sample", "v_prediction"] {
            let sampler = LcmSampler::new(&SamplerConfig { prediction_type: prediction.into(), ..SamplerConfig::default() }).unwrap();
            let (signal, sigma) = sampler.levels(timestep).unwrap();
            let noisy = sampler.add_noise(timestep, &clean, &noise).unwrap();
            let output: Vec<f32> = match prediction {
                "epsilon" => noise.clone(),
                "sample" => clean.clone(),
                _ => clean.iter().zip(&noise).map(|(c, n)| signal * n - sigma * c).collect(),
            };
            let found = sampler.denoise(timestep, &output, &noisy).unwrap();
            for (a, b) in found.iter().zip(&clean) {
                prop_assert!((a - b).abs() < 1e-4, "{prediction} at {timestep}: {a} {b}");
            }
        }
    }

    #[test]
    fn schedules_fall_and_stay_in_range(original in 1usize..200, steps in 1usize..200, strength in 0.01f64..=1.0) {
        let sampler = LcmSampler::new(&SamplerConfig { original_inference_steps: original, ..SamplerConfig::default() }).unwrap();
        if let Ok(timesteps) = sampler.timesteps(steps, strength) {
            prop_assert_eq!(timesteps.len(), steps);
            prop_assert!(timesteps.windows(2).all(|w| w[0] > w[1]));
            prop_assert!(timesteps.iter().all(|t| (0..1000).contains(t)));
        }
    }
}
