//! The pipeline around fake networks that check what they are given.

mod fake;

use fake::{Fake, mean};
use rockshard_diffusion::noise::{START, standard_normal};
use rockshard_diffusion::{
    ClipTokenizer, Error, Generated, InitialPicture, LcmSampler, Picture, Pipeline, PipelineConfig,
    Progress, Request, SamplerConfig, guidance_embedding,
};
use rockshard_tensor::Tensor;
use std::{ops::ControlFlow, path::Path};

fn lcm() -> Fake {
    Fake { guidance: Some(64), ..Fake::default() }
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn config() -> PipelineConfig {
    PipelineConfig { model: "fake".into(), scaling_factor: 0.5, ..PipelineConfig::default() }
}

fn request() -> Request {
    Request { prompt: "a red circle".into(), width: 32, height: 32, seed: 5, ..Request::default() }
}

fn run(models: &Fake, request: &Request) -> Result<Generated, Error> {
    let tokenizer = ClipTokenizer::from_directory(&data("tokenizer")).unwrap();
    Pipeline::new(models, &tokenizer, &config())?
        .generate(request, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn the_loop_is_that_of_the_formulas() {
    let (steps, guidance, seed) = (3, 1.7, 5);
    let found = run(&lcm(), &Request { steps, guidance, ..request() }).unwrap();
    let tokenizer = ClipTokenizer::from_directory(&data("tokenizer")).unwrap();
    let hidden = tokenizer.encode("a red circle").unwrap().ids.iter().sum::<i64>() as f32 / 1e5;
    let embedding = mean(&Tensor::from_f32([1, 64], guidance_embedding(guidance, 64).unwrap()));
    let sampler = LcmSampler::new(&SamplerConfig::default()).unwrap();
    let timesteps = sampler.timesteps(steps, 1.0).unwrap();
    let mut latent = standard_normal(seed, 0, START, 64);
    for (i, &t) in timesteps.iter().enumerate() {
        let output: Vec<f32> =
            latent.iter().map(|v| v * 0.5 + hidden + t as f32 / 1e4 + embedding).collect();
        latent = sampler
            .step(&timesteps, i, &output, &latent, &standard_normal(seed, 0, i as u32 + 1, 64))
            .unwrap()
            .previous;
    }
    let byte = |v: f32| ((v / 0.5 / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as i16;
    let rgb = &found.pictures[0].rgb;
    for (i, &v) in rgb.iter().enumerate() {
        let (x, y, c) = (i / 3 % 32, i / 96, i % 3);
        let expected = byte(latent[c * 16 + y / 8 * 4 + x / 8]);
        assert!((i16::from(v) - expected).abs() <= 1, "{i}: {v} {expected}");
    }
    let p = found.pictures[0].parameters.as_ref().unwrap();
    assert_eq!(
        (p.seed, p.steps, p.guidance, p.model.as_str(), p.strength),
        (5, 3, 1.7, "fake", None)
    );
}

#[test]
fn pictures_run_together_and_do_not_depend_on_each_other() {
    let models = lcm();
    let together = run(&models, &Request { count: 3, steps: 2, ..request() }).unwrap();
    let calls = models.calls.take();
    let expected = [("text_encoder", 1), ("unet", 3), ("unet", 3), ("vae_decoder", 3)];
    assert!(calls.iter().map(|(m, n)| (m.as_str(), *n)).eq(expected), "{calls:?}");
    assert_eq!(together.pictures.len(), 3);
    for (i, picture) in together.pictures.iter().enumerate() {
        let alone = run(&lcm(), &Request { seed: 5 + i as u64, steps: 2, ..request() }).unwrap();
        assert_eq!(alone.pictures[0], *picture);
    }
    assert_ne!(together.pictures[0].rgb, together.pictures[1].rgb);
    assert!(run(&lcm(), &Request { seed: u64::MAX, count: 2, ..request() }).is_ok());
}

#[test]
fn a_smaller_decoder_decodes_in_tiles() {
    let request = Request { count: 2, steps: 1, ..request() };
    let whole = run(&lcm(), &request).unwrap();
    // Of 4 latent values a side: two tiles of 3, four of 1.
    for (tile, items) in [(3, 2 * 4), (1, 2 * 16)] {
        let models = Fake { tile: Some(tile), ..lcm() };
        assert_eq!(run(&models, &request).unwrap(), whole, "tiles of {tile}");
        assert_eq!(models.calls.take().last(), Some(&("vae_decoder".to_owned(), items)));
    }
    let error = run(&Fake { tile: Some(5), ..lcm() }, &request).unwrap_err().to_string();
    assert_eq!(error, "vae_decoder: takes [1, 4, 5, 5], the U-Net gives [1, 4, 4, 4]");
}

#[test]
fn guidance_without_an_input_takes_the_negative_prompt() {
    let models = Fake::default();
    let with = |guidance, negative: Option<&str>| {
        run(&models, &Request { guidance, negative_prompt: negative.map(Into::into), ..request() })
    };
    let plain = with(1.0, None).unwrap().pictures;
    assert_eq!(models.calls.take()[..2], [("text_encoder".to_owned(), 1), ("unet".to_owned(), 1)]);
    let guided = with(3.0, None).unwrap().pictures;
    assert_eq!(models.calls.take()[..2], [("text_encoder".to_owned(), 2), ("unet".to_owned(), 2)]);
    assert_ne!(plain[0].rgb, guided[0].rgb);
    assert_eq!(with(3.0, Some("")).unwrap().pictures, guided);
    assert_ne!(with(3.0, Some("a blue square")).unwrap().pictures[0].rgb, guided[0].rgb);
    // Guided towards and away from the same prompt nothing is left of the guidance.
    assert_eq!(with(3.0, Some("a red circle")).unwrap().pictures[0].rgb, plain[0].rgb);
    assert!(matches!(with(1.0, Some("blurry")), Err(Error::NegativePromptUnused(_))));
    let refused =
        run(&lcm(), &Request { negative_prompt: Some("blurry".into()), ..request() }).unwrap_err();
    assert!(
        refused.to_string().contains("guidance embedding")
            && refused.to_string().contains("no negative prompt")
    );
}

#[test]
fn a_picture_can_be_the_start() {
    let initial = |value: u8, strength| {
        let picture = Picture { width: 10, height: 20, rgb: vec![value; 600], parameters: None };
        Request { initial: Some(InitialPicture { picture, strength }), steps: 2, ..request() }
    };
    let dark = run(&lcm(), &initial(0, 0.2)).unwrap().pictures.remove(0);
    let light = run(&lcm(), &initial(255, 0.2)).unwrap().pictures.remove(0);
    let sum = |p: &Picture| p.rgb.iter().map(|&v| u64::from(v)).sum::<u64>();
    assert!(sum(&dark) < sum(&light));
    assert_eq!(dark.parameters.unwrap().strength, Some(0.2));
    assert!(matches!(
        run(&Fake::default(), &Request { guidance: 1.0, ..initial(0, 0.5) }),
        Err(Error::MissingModel { model: "vae_encoder", .. })
    ));
    assert!(matches!(run(&lcm(), &initial(0, 0.0)), Err(Error::Sampler(_))));
    assert!(matches!(run(&lcm(), &initial(0, f64::NAN)), Err(Error::Sampler(_))));
    let mut short = initial(0, 0.5);
    short.initial.as_mut().unwrap().picture.rgb.pop();
    assert!(matches!(
        run(&lcm(), &short),
        Err(Error::InitialPicture { expected: 600, found: 599, .. })
    ));
}

#[test]
fn requests_that_cannot_be_done_are_refused() {
    let refused = |change: fn(&mut Request)| {
        let mut r = request();
        change(&mut r);
        run(&lcm(), &r).unwrap_err()
    };
    assert!(matches!(refused(|r| r.steps = 0), Error::Sampler(_)));
    assert!(matches!(refused(|r| r.steps = 51), Error::Sampler(_)));
    assert!(matches!(refused(|r| r.count = 0), Error::Count { count: 0 }));
    assert!(matches!(refused(|r| r.count = u32::MAX), Error::Count { .. }));
    assert!(matches!(refused(|r| r.guidance = f64::NAN), Error::Guidance(_)));
    assert!(matches!(refused(|r| r.guidance = 1e300), Error::Guidance(_)));
    assert!(matches!(refused(|r| r.width = 33), Error::Multiple { multiple: 8, .. }));
    assert!(matches!(refused(|r| r.height = 0), Error::Multiple { .. }));
    let size = refused(|r| r.width = 512).to_string();
    assert_eq!(
        size,
        "size 512x32 is not in this pack, which has 32x32, 64x32; convert with --resolution 512x32 to add it"
    );
    let broken = Fake { broken: true, ..lcm() };
    assert!(matches!(run(&broken, &request()), Err(Error::NotFinite { model: "unet", item: 0 })));
}

#[test]
fn progress_is_told_and_can_stop() {
    let (models, config) = (lcm(), config());
    let tokenizer = ClipTokenizer::from_directory(&data("tokenizer")).unwrap();
    let pipeline = Pipeline::new(&models, &tokenizer, &config).unwrap();
    let mut seen = Vec::new();
    let result = pipeline.generate(
        &Request { steps: 2, prompt: "red ".repeat(80), ..request() },
        &mut |p| {
            seen.push(p);
            ControlFlow::Continue(())
        },
    );
    assert_eq!(result.unwrap().dropped_tokens, 5);
    assert_eq!(
        seen,
        [
            Progress::Prompt,
            Progress::Step { done: 1, total: 2 },
            Progress::Step { done: 2, total: 2 },
            Progress::Decoded
        ]
    );
    models.calls.take();
    let stop = |p| {
        if matches!(p, Progress::Step { .. }) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    assert!(matches!(pipeline.generate(&request(), &mut { stop }), Err(Error::Cancelled)));
    assert_eq!(models.calls.take().len(), 2);
}

#[test]
fn the_configuration_must_fit_the_network() {
    let tokenizer = ClipTokenizer::from_directory(&data("tokenizer")).unwrap();
    let config = PipelineConfig { time_cond_proj_dim: Some(256), ..config() };
    let error = Pipeline::new(&lcm(), &tokenizer, &config).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unet: timestep_cond has 64 values, but sampler.json has time_cond_proj_dim 256"
    );
}
