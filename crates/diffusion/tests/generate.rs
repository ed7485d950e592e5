//! Text to image around fake networks that check what they are given.

mod fake;

use fake::{Fake, mean};
use rockshard_diffusion::noise::{START, standard_normal};
use rockshard_diffusion::{
    ClipTokenizer, Conditioner, DrawProgress, Error, Generated, InitialPicture, LcmSampler, Mask,
    Networks, Picture, PictureCodec, PipelineConfig, Request, Row, Rows, SamplerConfig,
    SamplerName, TensorMap, TextToImage, guidance_embedding, mix,
};
use rockshard_manifest::Role;
use rockshard_tensor::Tensor;
use std::{ops::ControlFlow, path::Path, sync::Arc};

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

fn lcm_networks() -> Arc<Fake> {
    Arc::new(lcm())
}

fn driver(networks: &Arc<Fake>) -> Result<TextToImage, Error> {
    let tokenizer = ClipTokenizer::from_directory(&data("tokenizer")).unwrap();
    TextToImage::new(networks.clone(), Arc::new(tokenizer), &config())
}

fn run(networks: &Arc<Fake>, request: &Request) -> Result<Generated, Error> {
    driver(networks)?.generate(request, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn the_loop_is_that_of_the_formulas() {
    let (steps, guidance, seed) = (3, 1.7, 5);
    let found = run(&lcm_networks(), &Request { steps, guidance, ..request() }).unwrap();
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
    let models = lcm_networks();
    let together = run(&models, &Request { count: 3, steps: 2, ..request() }).unwrap();
    let calls = models.take_calls();
    use Role::{TextEncoder, Unet, VaeDecoder};
    assert_eq!(calls, [(TextEncoder, 1), (Unet, 3), (Unet, 3), (VaeDecoder, 3)]);
    assert_eq!(together.pictures.len(), 3);
    for (i, picture) in together.pictures.iter().enumerate() {
        let alone =
            run(&lcm_networks(), &Request { seed: 5 + i as u64, steps: 2, ..request() }).unwrap();
        assert_eq!(alone.pictures[0], *picture);
    }
    assert_ne!(together.pictures[0].rgb, together.pictures[1].rgb);
    assert!(run(&lcm_networks(), &Request { seed: u64::MAX, count: 2, ..request() }).is_ok());
}

#[test]
fn a_smaller_decoder_decodes_in_tiles() {
    let request = Request { count: 2, steps: 1, ..request() };
    let whole = run(&lcm_networks(), &request).unwrap();
    // Of 4 latent values a side: two tiles of 3, four of 1.
    for (tile, items) in [(3, 2 * 4), (1, 2 * 16)] {
        let models = Arc::new(Fake { tile: Some(tile), ..lcm() });
        assert_eq!(run(&models, &request).unwrap(), whole, "tiles of {tile}");
        assert_eq!(models.take_calls().last(), Some(&(Role::VaeDecoder, items)));
    }
    let error = run(&Arc::new(Fake { tile: Some(5), ..lcm() }), &request).unwrap_err().to_string();
    assert_eq!(error, "vae_decoder: takes [1, 4, 5, 5], the U-Net gives [1, 4, 4, 4]");
}

#[test]
fn guidance_without_an_input_takes_the_negative_prompt() {
    let models = Arc::new(Fake::default());
    let with = |guidance, negative: Option<&str>| {
        run(&models, &Request { guidance, negative_prompt: negative.map(Into::into), ..request() })
    };
    let plain = with(1.0, None).unwrap().pictures;
    assert_eq!(models.take_calls()[..2], [(Role::TextEncoder, 1), (Role::Unet, 1)]);
    let guided = with(3.0, None).unwrap().pictures;
    assert_eq!(models.take_calls()[..2], [(Role::TextEncoder, 2), (Role::Unet, 2)]);
    assert_ne!(plain[0].rgb, guided[0].rgb);
    assert_eq!(with(3.0, Some("")).unwrap().pictures, guided);
    assert_ne!(with(3.0, Some("a blue square")).unwrap().pictures[0].rgb, guided[0].rgb);
    // Guided towards and away from the same prompt nothing is left of the guidance.
    assert_eq!(with(3.0, Some("a red circle")).unwrap().pictures[0].rgb, plain[0].rgb);
    assert!(matches!(with(1.0, Some("blurry")), Err(Error::NegativePromptUnused(_))));
    // Weights are read in both; equal ones of all words change nothing here, where a mean is all that counts.
    assert_eq!(with(3.0, Some("(a red circle:1.3)")).unwrap().pictures[0].rgb, plain[0].rgb);
    assert!(matches!(with(3.0, Some("[a|b]")), Err(Error::Prompt(_))));
    let refused =
        run(&lcm_networks(), &Request { negative_prompt: Some("blurry".into()), ..request() })
            .unwrap_err();
    assert!(
        refused.to_string().contains("guidance embedding")
            && refused.to_string().contains("no negative prompt")
    );
}

#[test]
fn a_picture_can_be_the_start() {
    let initial = |value: u8, strength| {
        let picture = Picture { width: 10, height: 20, rgb: vec![value; 600], parameters: None };
        Request {
            initial: Some(InitialPicture { picture, strength, mask: None }),
            steps: 2,
            ..request()
        }
    };
    let dark = run(&lcm_networks(), &initial(0, 0.2)).unwrap().pictures.remove(0);
    let light = run(&lcm_networks(), &initial(255, 0.2)).unwrap().pictures.remove(0);
    let sum = |p: &Picture| p.rgb.iter().map(|&v| u64::from(v)).sum::<u64>();
    assert!(sum(&dark) < sum(&light));
    assert_eq!(dark.parameters.unwrap().strength, Some(0.2));
    assert!(matches!(
        run(&Arc::new(Fake::default()), &Request { guidance: 1.0, ..initial(0, 0.5) }),
        Err(Error::MissingNetwork { role: Role::VaeEncoder })
    ));
    assert!(matches!(run(&lcm_networks(), &initial(0, 0.0)), Err(Error::Sampler(_))));
    assert!(matches!(run(&lcm_networks(), &initial(0, f64::NAN)), Err(Error::Sampler(_))));
    let mut short = initial(0, 0.5);
    short.initial.as_mut().unwrap().picture.rgb.pop();
    assert!(matches!(
        run(&lcm_networks(), &short),
        Err(Error::InitialPicture { expected: 600, found: 599, .. })
    ));
}

#[test]
fn requests_that_cannot_be_done_are_refused() {
    let refused = |change: fn(&mut Request)| {
        let mut r = request();
        change(&mut r);
        run(&lcm_networks(), &r).unwrap_err()
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
    assert_eq!(size, "size 512x32 is not in this pack, which has 32x32, 64x32");
    let broken = Arc::new(Fake { broken: true, ..lcm() });
    assert!(matches!(
        run(&broken, &request()),
        Err(Error::NotFinite { role: Role::Unet, item: 0 })
    ));
}

#[test]
fn progress_is_told_and_can_stop() {
    let models = lcm_networks();
    let driver = driver(&models).unwrap();
    let mut seen = Vec::new();
    let result =
        driver.generate(&Request { steps: 2, prompt: "red ".repeat(80), ..request() }, &mut |p| {
            seen.push(p);
            ControlFlow::Continue(())
        });
    assert_eq!(result.unwrap().dropped_tokens, 5);
    assert_eq!(
        seen,
        [
            DrawProgress::Prompt { dropped_tokens: 5 },
            DrawProgress::Step { done: 1, total: 2 },
            DrawProgress::Step { done: 2, total: 2 },
            DrawProgress::Decoded
        ]
    );
    models.take_calls();
    let stop = |p| {
        if matches!(p, DrawProgress::Step { .. }) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    assert!(matches!(driver.generate(&request(), &mut { stop }), Err(Error::Cancelled)));
    // The prompt is another one than before, so it is encoded.
    assert_eq!(models.take_calls(), [(Role::TextEncoder, 1), (Role::Unet, 1)]);
}

#[test]
fn a_prompt_is_encoded_once() {
    let models = lcm_networks();
    let driver = driver(&models).unwrap();
    let draw = |driver: &TextToImage| {
        driver.generate(&request(), &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let first = draw(&driver);
    models.take_calls();
    assert_eq!(draw(&driver), first);
    assert!(models.take_calls().iter().all(|(role, _)| *role != Role::TextEncoder));
    // Another way to the same networks has the same prompts.
    let other = lcm_networks();
    assert_eq!(draw(&driver.over(&(other.clone() as Arc<dyn Networks>))), first);
    assert!(models.take_calls().is_empty());
    assert!(other.take_calls().iter().all(|(role, _)| *role != Role::TextEncoder));
}

#[test]
fn the_parts_are_owned_and_may_be_used_from_any_thread() {
    fn owned<T: Clone + Send + Sync + 'static>() {}
    owned::<TextToImage>();
    owned::<Conditioner>();
    owned::<Rows>();
    owned::<PictureCodec>();
}

#[test]
fn each_row_has_a_timestep_and_a_prompt_of_its_own() {
    let models = lcm_networks();
    let rows = Rows::new(models.clone(), &config()).unwrap();
    let row = |timestep, hidden: f32| Row {
        latent: vec![1.0; 64],
        timestep,
        prompt: [(
            "encoder_hidden_states".to_owned(),
            Tensor::from_f32([1, 77, 2], vec![hidden; 154]),
        )]
        .into(),
        guidance: rows.embed_guidance(1.0).unwrap(),
    };
    let found = rows.predict(vec![row(100.0, 0.0), row(900.0, 0.0), row(900.0, 2.0)]).unwrap();
    let first: Vec<f32> = found.iter().map(|values| values[0]).collect();
    let close = |a: f32, b: f32| (a - b).abs() < 1e-5;
    assert!(close(first[1] - first[0], 0.08) && close(first[2] - first[1], 2.0), "{first:?}");
    assert_eq!(models.take_calls(), [(Role::Unet, 3)]);
    let short = Row { latent: vec![0.0; 3], ..row(1.0, 0.0) };
    assert!(matches!(rows.predict(vec![short]), Err(Error::Latent { expected: 64, found: 3 })));
}

#[test]
fn prompts_blend() {
    let prompt = |v: f32| TensorMap::from([("h".into(), Tensor::from_f32([1, 2], vec![v, -v]))]);
    let (a, b) = (prompt(1.0), prompt(3.0));
    assert_eq!(mix(&[(&a, 1.0)]).unwrap(), a);
    assert_eq!(mix(&[(&a, 1.0), (&b, 0.0)]).unwrap(), a);
    assert_eq!(mix(&[(&a, 0.75), (&b, 0.25)]).unwrap(), prompt(1.5));
    let other =
        |name: &str, n| TensorMap::from([(name.into(), Tensor::from_f32([n], vec![0.0; n]))]);
    assert!(mix(&[(&a, 0.5), (&other("h", 2), 0.5)]).is_err());
    assert!(mix(&[(&a, 0.5), (&other("g", 2), 0.5)]).is_err());
}

#[test]
fn the_configuration_must_fit_the_network() {
    let tokenizer = ClipTokenizer::from_directory(&data("tokenizer")).unwrap();
    let config = PipelineConfig { time_cond_proj_dim: Some(256), ..config() };
    let driver = TextToImage::new(lcm_networks(), Arc::new(tokenizer), &config);
    let error = driver.map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unet: timestep_cond has 64 values, but sampler.json has time_cond_proj_dim 256"
    );
}

#[test]
fn what_a_mask_keeps_stays_as_it_was() {
    let picture = Picture {
        width: 32,
        height: 32,
        rgb: (0..32 * 32 * 3).map(|i| (i % 251) as u8).collect(),
        parameters: None,
    };
    let right = |i: usize| i % 32 >= 16;
    let mask = |change: fn(usize) -> bool| {
        Mask::new(32, 32, (0..32 * 32).map(|i| if change(i) { 255 } else { 0 }).collect())
    };
    let draw = |mask: Option<Mask>, sampler| {
        let initial = InitialPicture { picture: picture.clone(), strength: 1.0, mask };
        let request = Request { initial: Some(initial), sampler, ..request() };
        run(&lcm_networks(), &request).unwrap().pictures.remove(0).rgb
    };
    for sampler in [None, Some(SamplerName::Euler), Some(SamplerName::DpmKarras)] {
        let all = draw(None, sampler);
        assert_eq!(draw(mask(|_| true), sampler), all, "{sampler:?}: everything may change");
        assert_eq!(draw(mask(|_| false), sampler), picture.rgb, "{sampler:?}: nothing may");
        let half = draw(mask(|i| i % 32 >= 16), sampler);
        for (i, (new, old)) in half.iter().zip(&picture.rgb).enumerate() {
            assert!(right(i / 3) || new == old, "{sampler:?}: byte {i} of the left half changed");
        }
        assert!((0..half.len()).any(|i| right(i / 3) && half[i] != picture.rgb[i]));
    }
    let small = Mask::new(16, 32, vec![255; 16 * 32]);
    let initial = InitialPicture { picture: picture.clone(), strength: 1.0, mask: small };
    let refused = run(&lcm_networks(), &Request { initial: Some(initial), ..request() });
    let said = refused.unwrap_err().to_string();
    assert_eq!(said, "the mask is 16x32, its picture 32x32; both must have the same size");
    assert!(Mask::new(2, 2, vec![0; 3]).is_none() && Mask::new(0, 2, vec![]).is_none());
}

#[test]
fn unfinished_pictures_are_shown_and_cost_nothing_else() {
    for sampler in [None, Some(SamplerName::Euler), Some(SamplerName::Ddim)] {
        let request = Request { previews: 3, count: 2, sampler, ..request() };
        let mut shown = Vec::new();
        let mut tell = |progress| {
            if let DrawProgress::Preview { index, pictures } = progress {
                shown.push((index, pictures));
            }
            ControlFlow::Continue(())
        };
        let drawn = driver(&lcm_networks()).unwrap().generate(&request, &mut tell).unwrap();
        let plain = run(&lcm_networks(), &Request { previews: 0, ..request }).unwrap();
        assert_eq!(drawn, plain, "{sampler:?}");
        assert_eq!(shown.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(shown.iter().all(|s| s.1.len() == 2));
        // They come nearer to what is drawn.
        let far = |pictures: &[Picture]| {
            let pairs = pictures[0].rgb.iter().zip(&drawn.pictures[0].rgb);
            pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
        };
        assert!(far(&shown[2].1) <= far(&shown[0].1), "{sampler:?}");
    }
}
