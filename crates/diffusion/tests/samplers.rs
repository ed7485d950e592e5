//! Every sampler against diffusers' scheduler of the same name, recorded by tools/record_vectors.py: text to image and image to image.

use rockshard_diffusion::{History, Sampler, SamplerConfig, SamplerError, SamplerName};
use serde::Deserialize;
use serde_json::Value;
use std::{fs, path::Path};

#[derive(Deserialize)]
struct Case {
    name: String,
    config: Value,
    steps: usize,
    strength: f64,
    start: f64,
    timesteps: Vec<f64>,
    clean: Vec<f32>,
    noise: Vec<f32>,
    noised: Vec<f32>,
    trace: Vec<Traced>,
}

#[derive(Deserialize)]
struct Traced {
    output: Vec<f32>,
    noise: Vec<f32>,
    scaled: Vec<f32>,
    previous: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/samplers.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Largest difference, relative to the largest expected magnitude.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn config(case: &Case) -> SamplerConfig {
    SamplerConfig::from_scheduler(&case.config.to_string()).unwrap()
}

#[test]
fn runs_equal_diffusers() {
    let cases = cases();
    assert!(cases.len() > 200);
    let mut seen: Vec<&str> = Vec::new();
    for case in &cases {
        let label = || format!("{} {} {} {}", case.name, case.config, case.steps, case.strength);
        let sampler = Sampler::new(&config(case), None).unwrap();
        assert_eq!(sampler.name().as_str(), case.name, "{}", label());
        seen.push(sampler.name().as_str());
        let run = sampler.run(case.steps, case.strength).unwrap();
        assert_eq!(run.timesteps.len(), case.timesteps.len(), "{}", label());
        for (found, expected) in run.timesteps.iter().zip(&case.timesteps) {
            assert!((found - expected).abs() < 2e-3, "{}: {:?}", label(), run.timesteps);
        }
        assert!((run.start / case.start - 1.0).abs() < 1e-5, "{}: {}", label(), run.start);
        let mut latent = sampler.noised(&run, 0, &case.clean, &case.noise).unwrap();
        let mut worst = difference(&latent, &case.noised);
        let mut history = History::default();
        // Our own latent is carried on, so that the difference of the last step is that of a whole run.
        for (index, traced) in case.trace.iter().enumerate() {
            let scaled = sampler.scaled(&run, index, &latent);
            worst = worst.max(difference(&scaled, &traced.scaled));
            let (output, noise) = (&traced.output, &traced.noise);
            latent = sampler.step(&run, index, &mut history, output, &latent, noise).unwrap();
            worst = worst.max(difference(&latent, &traced.previous));
        }
        assert!(worst <= 1e-5, "{}: largest relative difference {worst:e}", label());
    }
    let all = SamplerName::ALL.iter().filter(|name| **name != SamplerName::Lcm);
    assert!(all.clone().all(|name| seen.contains(&name.as_str())), "{seen:?}");
}

#[test]
fn names_are_found_again() {
    for name in SamplerName::ALL {
        assert_eq!(name.as_str().parse(), Ok(name));
    }
    let unknown = "heun".parse::<SamplerName>().unwrap_err();
    assert!(unknown.contains("\"heun\"") && unknown.contains("dpm++2m-karras"), "{unknown}");
}

#[test]
fn a_scheduler_that_is_not_there_is_refused_by_name() {
    let text = r#"{"_class_name": "UniPCMultistepScheduler", "lambda_min_clipped": -Infinity}"#;
    let config = SamplerConfig::from_scheduler(text).unwrap();
    let error = Sampler::new(&config, None).unwrap_err();
    assert!(
        matches!(&error, SamplerError::Unknown { class } if class == "UniPCMultistepScheduler")
    );
    assert!(error.to_string().contains("euler-a"), "{error}");
    // Another one takes its noise schedule.
    let euler = Sampler::new(&config, Some(SamplerName::Euler)).unwrap();
    assert_eq!(euler.run(3, 1.0).unwrap().timesteps, [999.0, 499.5, 0.0]);
}

#[test]
fn what_a_sampler_would_not_follow_is_refused() {
    let refused = |class: &str, field: &str, value: &str| {
        let text = format!(r#"{{"_class_name": "{class}", "{field}": {value}}}"#);
        Sampler::new(&SamplerConfig::from_scheduler(&text).unwrap(), None).unwrap_err().to_string()
    };
    for (class, field, value) in [
        ("DPMSolverMultistepScheduler", "algorithm_type", "\"sde-dpmsolver++\""),
        ("DPMSolverMultistepScheduler", "solver_order", "3"),
        ("DPMSolverMultistepScheduler", "solver_type", "\"bh1\""),
        ("EulerDiscreteScheduler", "use_beta_sigmas", "true"),
        ("EulerDiscreteScheduler", "timestep_spacing", "\"random\""),
        ("EulerDiscreteScheduler", "final_sigmas_type", "\"one\""),
        ("EulerAncestralDiscreteScheduler", "prediction_type", "\"sample\""),
        ("PNDMScheduler", "skip_prk_steps", "false"),
    ] {
        let error = refused(class, field, value);
        assert!(error.contains(field) && error.contains(value), "{error}");
    }
}

#[test]
fn runs_that_cannot_be_are_refused() {
    let config = SamplerConfig::default();
    for name in SamplerName::ALL {
        let sampler = Sampler::new(&config, Some(name)).unwrap();
        assert_eq!(sampler.run(0, 1.0).unwrap_err(), SamplerError::NoSteps);
        assert!(matches!(sampler.run(2000, 1.0), Err(SamplerError::TooManySteps { .. })), "{name}");
        assert!(matches!(sampler.run(4, f64::NAN), Err(SamplerError::Strength(_))), "{name}");
        let run = sampler.run(4, 1.0).unwrap();
        let mut history = History::default();
        let step = |index, output: &[f32], noise: &[f32], history: &mut History| {
            sampler.step(&run, index, history, output, &[0.5], noise)
        };
        assert!(step(9, &[0.0], &[0.0], &mut history).is_err());
        assert!(step(0, &[0.0, 1.0], &[0.0], &mut history).is_err());
        if sampler.needs_noise(&run, 0) {
            assert!(step(0, &[0.0], &[], &mut history).is_err());
        }
        for index in 0..run.timesteps.len() {
            let latent = step(index, &[0.1], &[0.2], &mut history).unwrap();
            assert!(latent[0].is_finite(), "{name} {index}");
        }
    }
    let ddim = Sampler::new(&config, Some(SamplerName::Ddim)).unwrap();
    let nothing_left = ddim.run(4, 0.2).unwrap_err();
    assert_eq!(nothing_left, SamplerError::NoStepsLeft { steps: 4, strength: 0.2 });
}
