//! Text to image and image to image.

use crate::networks::Networks;
use crate::{
    ClipTokenizer, Error, Generated, InitialPicture, LcmSampler, MAX_COUNT, Models, Parameters,
    Picture, PipelineConfig, Progress, Request, guidance_embedding,
    noise::{START, standard_normal},
};
use rockshard_tensor::Tensor;
use std::ops::ControlFlow;

/// A text-to-image model that is ready to take requests.
pub struct Pipeline<'a> {
    networks: Networks<'a>,
    available: Vec<[u32; 2]>,
    tokenizer: &'a ClipTokenizer,
    config: &'a PipelineConfig,
    sampler: LcmSampler,
}

/// How the prompt steers the U-Net.
enum Guide {
    /// The guidance scale is embedded (or there is none): one item a picture.
    Direct { prompt: Tensor, embedding: Option<Vec<f32>> },
    /// Classifier-free guidance: an item with the negative prompt and one with the prompt for each picture.
    ClassifierFree { prompt: Tensor, negative: Tensor, scale: f32 },
}

impl<'a> Pipeline<'a> {
    /// Put a model together.
    ///
    /// # Errors
    /// The U-Net is missing or is not one of a latent diffusion model, or the configuration does not fit it.
    pub fn new(
        models: &'a dyn Models,
        tokenizer: &'a ClipTokenizer,
        config: &'a PipelineConfig,
    ) -> Result<Self, Error> {
        let networks = Networks::new(models)?;
        if let (Some(declared), Some(taken)) = (config.time_cond_proj_dim, networks.guidance_size())
            && declared != taken
        {
            let detail = format!(
                "timestep_cond has {taken} values, but sampler.json has time_cond_proj_dim {declared}"
            );
            return Err(Error::Interface { model: "unet", detail });
        }
        let [height, width] =
            networks.latent_size().map(|n| (n as u32).saturating_mul(config.vae_scale));
        let mut available = models.sizes();
        if !available.contains(&[width, height]) {
            available.insert(0, [width, height]);
        }
        Ok(Pipeline {
            available,
            networks,
            tokenizer,
            config,
            sampler: LcmSampler::new(&config.sampler)?,
        })
    }

    /// Generate pictures. `progress` is told of every stage and stops the request by breaking.
    ///
    /// # Errors
    /// A request that the model cannot do, a network that fails, or [`Error::Cancelled`].
    pub fn generate(
        &self,
        request: &Request,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Generated, Error> {
        self.check(request)?;
        let mut report = |p| {
            if progress(p).is_break() { Err(Error::Cancelled) } else { Ok(()) }
        };
        let strength = request.initial.as_ref().map_or(1.0, |initial| initial.strength);
        let timesteps = self.sampler.timesteps(request.steps, strength)?;
        let (guide, dropped_tokens) = self.guide(request)?;
        report(Progress::Prompt)?;

        let seeds: Vec<u64> =
            (0..u64::from(request.count)).map(|i| request.seed.wrapping_add(i)).collect();
        let noise =
            |seed: u64, step: u32| standard_normal(seed, 0, step, self.networks.latent_len());
        let mut latents: Vec<Vec<f32>> = seeds.iter().map(|&seed| noise(seed, START)).collect();
        if let Some(initial) = &request.initial {
            let clean = self.initial_latent(&initial.picture, request)?;
            for latent in &mut latents {
                *latent = self.sampler.add_noise(timesteps[0], &clean, latent)?;
            }
        }
        for (index, &timestep) in timesteps.iter().enumerate() {
            let predictions = self.predict(&latents, timestep, &guide)?;
            for ((latent, output), &seed) in latents.iter_mut().zip(&predictions).zip(&seeds) {
                let fresh = if index + 1 < timesteps.len() {
                    noise(seed, index as u32 + 1)
                } else {
                    Vec::new()
                };
                *latent = self.sampler.step(&timesteps, index, output, latent, &fresh)?.previous;
            }
            report(Progress::Step { done: index + 1, total: timesteps.len() })?;
        }
        for value in latents.iter_mut().flatten() {
            *value /= self.config.scaling_factor;
        }
        let pixels = request.width as usize * request.height as usize;
        let planes = self.networks.decode(latents, pixels)?;
        report(Progress::Decoded)?;
        let picture = |(planes, &seed): (&Vec<f32>, &u64)| {
            let picture = Picture::from_planes(request.width, request.height, planes);
            Picture { parameters: Some(self.parameters(request, seed)), ..picture }
        };
        Ok(Generated { pictures: planes.iter().zip(&seeds).map(picture).collect(), dropped_tokens })
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let (width, height, multiple) = (request.width, request.height, self.config.vae_scale);
        if !(1..=MAX_COUNT).contains(&request.count) {
            return Err(Error::Count { count: request.count });
        }
        if !request.guidance.is_finite() || !(request.guidance as f32 * 1000.0).is_finite() {
            return Err(Error::Guidance(request.guidance));
        }
        if [width, height].iter().any(|&n| n == 0 || n % multiple != 0) {
            return Err(Error::Multiple { width, height, multiple });
        }
        let latent = [height, width].map(|n| (n / multiple) as usize);
        if latent != self.networks.latent_size() {
            let available = self
                .available
                .iter()
                .map(|[w, h]| format!("{w}x{h}"))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::Size { width, height, available });
        }
        if let Some(InitialPicture { picture, .. }) = &request.initial {
            let expected = picture.width as usize * picture.height as usize * 3;
            if expected == 0 || picture.rgb.len() != expected {
                return Err(Error::InitialPicture {
                    width: picture.width,
                    height: picture.height,
                    expected,
                    found: picture.rgb.len(),
                });
            }
        }
        Ok(())
    }

    fn guide(&self, request: &Request) -> Result<(Guide, usize), Error> {
        let negative = request.negative_prompt.as_deref().filter(|text| !text.is_empty());
        let prompt = self.tokenizer.encode(&request.prompt)?;
        let encode = |ids| Ok::<_, Error>(self.networks.encode_text(ids)?.into_iter());
        let missing = || Error::Interface {
            model: "text_encoder",
            detail: "gave too few results".to_owned(),
        };
        if let Some(size) = self.networks.guidance_size() {
            if negative.is_some() {
                return Err(Error::NegativePrompt);
            }
            let embedding = Some(guidance_embedding(request.guidance, size)?);
            let hidden = encode(vec![prompt.ids])?.next().ok_or_else(missing)?;
            return Ok((Guide::Direct { prompt: hidden, embedding }, prompt.dropped));
        }
        if request.guidance <= 1.0 {
            if negative.is_some() {
                return Err(Error::NegativePromptUnused(request.guidance));
            }
            let hidden = encode(vec![prompt.ids])?.next().ok_or_else(missing)?;
            return Ok((Guide::Direct { prompt: hidden, embedding: None }, prompt.dropped));
        }
        let away = self.tokenizer.encode(negative.unwrap_or(""))?;
        let mut hidden = encode(vec![prompt.ids, away.ids])?;
        let (prompt_hidden, negative) =
            (hidden.next().ok_or_else(missing)?, hidden.next().ok_or_else(missing)?);
        let guide = Guide::ClassifierFree {
            prompt: prompt_hidden,
            negative,
            scale: request.guidance as f32,
        };
        Ok((guide, prompt.dropped.max(away.dropped)))
    }

    fn predict(
        &self,
        latents: &[Vec<f32>],
        timestep: i64,
        guide: &Guide,
    ) -> Result<Vec<Vec<f32>>, Error> {
        match guide {
            Guide::Direct { prompt, embedding } => {
                let items: Vec<_> =
                    latents.iter().map(|latent| (latent.as_slice(), prompt)).collect();
                self.networks.predict(&items, timestep, embedding.as_deref())
            }
            Guide::ClassifierFree { prompt, negative, scale } => {
                let items: Vec<_> = latents
                    .iter()
                    .flat_map(|latent| [(latent.as_slice(), negative), (latent.as_slice(), prompt)])
                    .collect();
                let outputs = self.networks.predict(&items, timestep, None)?;
                let blend = |pair: &[Vec<f32>]| {
                    pair[0]
                        .iter()
                        .zip(&pair[1])
                        .map(|(away, to)| away + scale * (to - away))
                        .collect()
                };
                Ok(outputs.chunks_exact(2).map(blend).collect())
            }
        }
    }

    fn initial_latent(&self, picture: &Picture, request: &Request) -> Result<Vec<f32>, Error> {
        let resized = picture.resized(request.width, request.height);
        let mut latent = self.networks.encode(
            resized.planes(),
            request.width as usize,
            request.height as usize,
        )?;
        for value in &mut latent {
            *value *= self.config.scaling_factor;
        }
        Ok(latent)
    }

    fn parameters(&self, request: &Request, seed: u64) -> Parameters {
        Parameters {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone().filter(|text| !text.is_empty()),
            steps: request.steps,
            sampler: "LCM".to_owned(),
            guidance: request.guidance,
            seed,
            width: request.width,
            height: request.height,
            model: self.config.model.clone(),
            strength: request.initial.as_ref().map(|initial| initial.strength),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
