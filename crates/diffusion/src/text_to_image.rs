//! Text to image and image to image: a short driver over conditioning, rows and pictures.

use crate::noise::{START, standard_normal};
use crate::{
    ClipTokenizer, Conditioner, Conditioning, DrawProgress, Error, Generated, History,
    InitialPicture, MAX_COUNT, Networks, Parameters, Picture, PictureCodec, PipelineConfig,
    Request, Row, Rows, Sampler, SamplerConfig, SamplerError, SamplerName, TensorMap,
    WeightedPrompt, classifier_free,
};
use rockshard_tensor::Tensor;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A text-to-image model that is ready to take requests. Cheap to clone; clones share the prompts that were encoded.
#[derive(Clone)]
pub struct TextToImage {
    conditioner: Conditioner,
    rows: Rows,
    pictures: PictureCodec,
    sampler: SamplerConfig,
    model: String,
}

/// How the prompt steers the U-Net.
enum Guide {
    /// The guidance scale is embedded (or there is none): one row a picture.
    Direct { prompt: TensorMap, guidance: Option<Tensor> },
    /// Classifier-free guidance: a row with the negative prompt and one with the prompt for each picture.
    ClassifierFree { prompt: TensorMap, negative: TensorMap, scale: f32 },
}

/// What stays of a picture that only part of changes.
struct Kept {
    /// For each latent value, how much of it may change, 0 to 1.
    change: Vec<f32>,
    clean: Vec<f32>,
    /// Of each picture.
    noise: Vec<Vec<f32>>,
}

impl TextToImage {
    /// Put a model together.
    ///
    /// # Errors
    /// A network is missing or is not one of a latent diffusion model, or the configuration does not fit them.
    pub fn new(
        networks: Arc<dyn Networks>,
        tokenizer: Arc<ClipTokenizer>,
        config: &PipelineConfig,
    ) -> Result<Self, Error> {
        let rows = Rows::new(networks.clone(), config)?;
        Ok(TextToImage {
            conditioner: Conditioner::new(networks.clone(), tokenizer)?,
            pictures: PictureCodec::new(networks, rows.latent_shape(), config)?,
            rows,
            sampler: config.sampler.clone(),
            model: config.model.clone(),
        })
    }

    /// The same over another way to the same networks.
    pub fn over(&self, networks: &Arc<dyn Networks>) -> Self {
        TextToImage {
            conditioner: self.conditioner.over(networks.clone()),
            rows: self.rows.over(networks.clone()),
            pictures: self.pictures.over(networks.clone()),
            ..self.clone()
        }
    }

    /// The sampler that the model's scheduler names.
    ///
    /// # Errors
    /// A scheduler that is not there.
    pub fn usual_sampler(&self) -> Result<SamplerName, SamplerError> {
        SamplerName::of(&self.sampler)
    }

    /// Width and height of the pictures, in pixels.
    pub fn size(&self) -> [u32; 2] {
        self.pictures.size()
    }

    /// Pixels that a side of the pictures is a multiple of.
    pub fn multiple(&self) -> u32 {
        self.pictures.multiple()
    }

    /// A request for one picture of a prompt, by a sampler (`None`: the one that the model's scheduler names), with the steps and the guidance that are usual with it.
    ///
    /// # Errors
    /// The model's scheduler is one that is not there, and no other was asked for.
    pub fn request(&self, prompt: &str, sampler: Option<SamplerName>) -> Result<Request, Error> {
        let name = sampler.map_or_else(|| self.usual_sampler(), Ok)?;
        let [width, height] = self.size();
        Ok(Request {
            prompt: prompt.to_owned(),
            width,
            height,
            steps: name.usual_steps(),
            guidance: name.usual_guidance(),
            sampler: Some(name),
            ..Request::default()
        })
    }

    /// Generate pictures. `progress` is told of every stage and stops the request by breaking.
    ///
    /// # Errors
    /// A request that the model cannot do, a network that fails, or [`Error::Cancelled`].
    pub fn generate(
        &self,
        request: &Request,
        progress: &mut dyn FnMut(DrawProgress) -> ControlFlow<()>,
    ) -> Result<Generated, Error> {
        self.check(request)?;
        let mut report = |p: DrawProgress| {
            if progress(p).is_break() { Err(Error::Cancelled) } else { Ok(()) }
        };
        let strength = request.initial.as_ref().map_or(1.0, |initial| initial.strength);
        let sampler = Sampler::new(&self.sampler, request.sampler)?;
        let run = sampler.run(request.steps, strength)?;
        let (guide, dropped_tokens) = self.guide(request)?;
        report(DrawProgress::Prompt { dropped_tokens })?;

        let seeds: Vec<u64> =
            (0..u64::from(request.count)).map(|i| request.seed.wrapping_add(i)).collect();
        let values = self.rows.latent_shape().iter().product();
        let noise = |seed: u64, step: u32| standard_normal(seed, 0, step, values);
        let mut latents: Vec<Vec<f32>> = seeds.iter().map(|&seed| noise(seed, START)).collect();
        let kept = match &request.initial {
            Some(initial) => {
                let clean = self.pictures.encode(&initial.picture)?;
                let kept = initial.mask.as_ref().map(|mask| {
                    let (clean, noise) = (clean.clone(), latents.clone());
                    Kept { change: mask.of_latent(self.rows.latent_shape()), clean, noise }
                });
                for latent in &mut latents {
                    *latent = sampler.noised(&run, 0, &clean, latent)?;
                }
                kept
            }
            None => {
                latents.iter_mut().flatten().for_each(|v| *v *= run.start as f32);
                None
            }
        };
        let shown = preview_steps(run.timesteps.len(), request.previews);
        let mut histories = vec![History::default(); latents.len()];
        for (index, &timestep) in run.timesteps.iter().enumerate() {
            let scaled: Vec<_> = latents.iter().map(|l| sampler.scaled(&run, index, l)).collect();
            let predictions = self.predict(&scaled, timestep, &guide)?;
            if let Some(at) = shown.iter().position(|&step| step == index) {
                let guess = |(latent, output): (&Vec<f32>, &Vec<f32>)| {
                    sampler.guess(&run, index, output, latent)
                };
                let guesses = latents.iter().zip(&predictions).map(guess);
                let pictures = self.pictures.decode(guesses.collect::<Result<_, _>>()?)?;
                report(DrawProgress::Preview { index: at as u32, pictures })?;
            }
            let runs = latents.iter_mut().zip(&mut histories).zip(&predictions).zip(&seeds);
            for (((latent, history), output), &seed) in runs {
                let fresh = match sampler.needs_noise(&run, index) {
                    true => noise(seed, index as u32 + 1),
                    false => Vec::new(),
                };
                *latent = sampler.step(&run, index, history, output, latent, &fresh)?;
            }
            if let Some(kept) = &kept {
                for (latent, noise) in latents.iter_mut().zip(&kept.noise) {
                    let own = sampler.noised(&run, index + 1, &kept.clean, noise)?;
                    blend(latent, &own, &kept.change);
                }
            }
            report(DrawProgress::Step { done: index + 1, total: run.timesteps.len() })?;
        }
        let mut pictures = self.pictures.decode(latents)?;
        if let Some(InitialPicture { picture, mask: Some(mask), .. }) = &request.initial {
            pictures.iter_mut().for_each(|drawn| mask.compose(picture, drawn));
        }
        report(DrawProgress::Decoded)?;
        let signed = |(picture, &seed)| {
            let parameters = Some(self.parameters(request, seed, sampler.name()));
            Picture { parameters, ..picture }
        };
        let pictures = pictures.into_iter().zip(&seeds).map(signed).collect();
        Ok(Generated { pictures, dropped_tokens })
    }

    /// Whether the model can do a request, as far as that is known without running it.
    ///
    /// # Errors
    /// What [`TextToImage::generate`] would refuse.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        if !(1..=MAX_COUNT).contains(&request.count) {
            return Err(Error::Count { count: request.count });
        }
        if !request.guidance.is_finite() || !(request.guidance as f32 * 1000.0).is_finite() {
            return Err(Error::Guidance(request.guidance));
        }
        self.pictures.check_size(request.width, request.height)?;
        if let Some(initial) = &request.initial {
            initial.check()?;
            self.pictures.check_encoder()?;
        }
        let strength = request.initial.as_ref().map_or(1.0, |initial| initial.strength);
        Sampler::new(&self.sampler, request.sampler)?.run(request.steps, strength)?;
        let negative = request.negative_prompt.as_deref().filter(|text| !text.is_empty());
        if negative.is_some() && self.takes_guidance() {
            return Err(Error::NegativePrompt);
        }
        if negative.is_some() && request.guidance <= 1.0 {
            return Err(Error::NegativePromptUnused(request.guidance));
        }
        for prompt in [Some(request.prompt.as_str()), negative].into_iter().flatten() {
            WeightedPrompt::parse(prompt)?;
        }
        Ok(())
    }

    /// Whether guidance is an input of the model, which has no use for a negative prompt then.
    pub fn takes_guidance(&self) -> bool {
        self.rows.takes_guidance()
    }

    /// Whether it can start from pictures.
    pub fn takes_pictures(&self) -> bool {
        self.pictures.check_encoder().is_ok()
    }

    fn guide(&self, request: &Request) -> Result<(Guide, usize), Error> {
        let negative = request.negative_prompt.as_deref().filter(|text| !text.is_empty());
        if self.takes_guidance() || request.guidance <= 1.0 {
            let [prompt] = self.encode([&request.prompt])?;
            let guidance = self.rows.embed_guidance(request.guidance)?;
            return Ok((Guide::Direct { prompt: prompt.prompt, guidance }, prompt.dropped_tokens));
        }
        let [prompt, away] = self.encode([&request.prompt, negative.unwrap_or("")])?;
        let dropped = prompt.dropped_tokens.max(away.dropped_tokens);
        let (prompt, negative) = (prompt.prompt, away.prompt);
        let scale = request.guidance as f32;
        Ok((Guide::ClassifierFree { prompt, negative, scale }, dropped))
    }

    fn encode<const N: usize>(&self, prompts: [&str; N]) -> Result<[Conditioning; N], Error> {
        let encoded = self.conditioner.encode(&prompts)?;
        encoded.try_into().map_err(|found: Vec<_>| Error::Interface {
            role: rockshard_manifest::Role::TextEncoder,
            detail: format!("gave {} results for {N} prompts", found.len()),
        })
    }

    fn predict(
        &self,
        latents: &[Vec<f32>],
        timestep: f64,
        guide: &Guide,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let row = |latent: &[f32], prompt: &TensorMap, guidance: Option<&Tensor>| Row {
            latent: latent.to_vec(),
            timestep,
            prompt: prompt.clone(),
            guidance: guidance.cloned(),
        };
        match guide {
            Guide::Direct { prompt, guidance } => {
                let rows = latents.iter().map(|latent| row(latent, prompt, guidance.as_ref()));
                self.rows.predict(rows.collect())
            }
            Guide::ClassifierFree { prompt, negative, scale } => {
                let both = |latent| [row(latent, negative, None), row(latent, prompt, None)];
                let rows = latents.iter().flat_map(|latent| both(latent)).collect();
                let outputs = self.rows.predict(rows)?;
                let pairs = outputs.chunks_exact(2);
                Ok(pairs.map(|pair| classifier_free(&pair[0], &pair[1], *scale)).collect())
            }
        }
    }

    fn parameters(&self, request: &Request, seed: u64, sampler: SamplerName) -> Parameters {
        Parameters {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone().filter(|text| !text.is_empty()),
            steps: request.steps,
            sampler: sampler.title().to_owned(),
            guidance: request.guidance,
            seed,
            width: request.width,
            height: request.height,
            model: self.model.clone(),
            strength: request.initial.as_ref().map(|initial| initial.strength),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Take a latent where it may change, and what it was elsewhere.
fn blend(latent: &mut [f32], own: &[f32], change: &[f32]) {
    for ((value, own), change) in latent.iter_mut().zip(own).zip(change) {
        *value = own + (*value - own) * change;
    }
}

/// Steps at which unfinished pictures are shown, ascending: spread evenly over those that are not the last one.
fn preview_steps(steps: usize, previews: u32) -> Vec<usize> {
    let before_last = steps.saturating_sub(1);
    let previews = (previews as usize).min(before_last);
    (0..previews).map(|i| (i + 1) * before_last / previews - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::preview_steps;

    #[test]
    fn previews_are_spread_over_the_steps_before_the_last() {
        assert_eq!(preview_steps(4, 3), [0, 1, 2]);
        assert_eq!(preview_steps(20, 3), [5, 11, 18]);
        assert_eq!(preview_steps(4, 1), [2]);
        assert_eq!(preview_steps(1, 3), [0usize; 0]);
        assert_eq!(preview_steps(3, 9), [0, 1]);
    }
}
