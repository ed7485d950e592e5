//! A stream as a driver: what a frame needs, from its picture to the drawn one. It has no thread of its own; frames enter one after the
//! other, and are drawn by as many callers at once as there are.

use super::filter::{Similarity, SimilarityFilter};
use super::prepared::Prepared;
use super::steering::Steering;
use super::{Chain, Settings, StreamConfig};
use crate::noise::{START, standard_normal};
use crate::{Conditioner, Error, LcmSampler, Networks, Picture, PictureCodec, Row, Rows};
use std::sync::{Arc, Mutex, PoisonError};

/// What a stream's frames are drawn with. Streams of a model share what was encoded.
#[derive(Clone)]
pub struct StreamParts {
    /// Prompts.
    pub conditioner: Conditioner,
    /// The U-Net.
    pub rows: Rows,
    /// Pictures from and to latents.
    pub pictures: PictureCodec,
    /// Levels.
    pub sampler: LcmSampler,
}

impl StreamParts {
    /// The same over another way to the same networks.
    pub fn over(&self, networks: &Arc<dyn Networks>) -> Self {
        StreamParts {
            conditioner: self.conditioner.over(networks.clone()),
            rows: self.rows.over(networks.clone()),
            pictures: self.pictures.over(networks.clone()),
            sampler: self.sampler.clone(),
        }
    }
}

/// What a frame is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameSource {
    /// A picture, which is resized to the stream's size.
    Picture(Picture),
    /// Noise: a picture is made of the prompt alone.
    Noise,
}

/// A frame that has entered and is to be drawn.
#[derive(Clone, Debug)]
pub struct Entered {
    number: u64,
    source: FrameSource,
}

/// Frames that are drawn together, with the settings of the moment at which they entered.
pub struct Group {
    frames: Vec<Entered>,
    prepared: Arc<Prepared>,
}

/// The frames of one stream.
pub struct Frames {
    parts: StreamParts,
    config: StreamConfig,
    steering: Steering,
    filter: Mutex<Option<SimilarityFilter>>,
    entered: Mutex<u64>,
}

impl Frames {
    /// Prepare a stream.
    ///
    /// # Errors
    /// Settings that the model cannot do, or a prompt that cannot be encoded.
    pub fn prepare(
        parts: StreamParts,
        config: StreamConfig,
        settings: Settings,
    ) -> Result<Self, Error> {
        config.check()?;
        let of = (&parts.conditioner, &parts.rows, &parts.sampler);
        let steering = Steering::new(Prepared::new(settings, &config, of, None)?);
        let (filter, entered) = (Mutex::default(), Mutex::default());
        Ok(Frames { parts, config, steering, filter, entered })
    }

    /// How it works.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// Width and height of its pictures.
    pub fn size(&self) -> [u32; 2] {
        self.parts.pictures.size()
    }

    /// The settings that were asked for last.
    pub fn settings(&self) -> Settings {
        self.steering.latest().settings.clone()
    }

    /// Ids that the prompts asked for last have lost, because the text encoder has no room for them.
    pub fn dropped_tokens(&self) -> usize {
        self.steering.latest().dropped_tokens
    }

    /// Rows that the U-Net does for a frame.
    pub fn rows_of_a_frame(&self) -> usize {
        self.steering.latest().rows_of_a_frame(&self.config)
    }

    /// Draw with other settings from the next frame on that enters, or go there within `frames` frames: prompts and noise are
    /// interpolated. Gives the number of the generation. Frames go on while a prompt is encoded.
    ///
    /// # Errors
    /// As [`Frames::prepare`]; the stream goes on as before then.
    pub fn update(&self, settings: Settings, frames: usize) -> Result<u64, Error> {
        let StreamParts { conditioner, rows, sampler, .. } = &self.parts;
        let before = self.steering.latest();
        let of = (conditioner, rows, sampler);
        let prepared = Prepared::new(settings, &self.config, of, Some(&before))?;
        self.steering.go(prepared, frames)
    }

    /// Skip pictures that are like the last one that was drawn, or none.
    pub fn set_similarity(&self, similarity: Option<Similarity>) {
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        *filter = similarity.map(|s| match filter.take() {
            Some(mut filter) => {
                filter.set(s);
                filter
            }
            None => SimilarityFilter::new(s, self.settings().seed),
        });
    }

    /// Let a frame enter; `None` where the similarity filter skips it. Frames enter one after the other.
    ///
    /// # Errors
    /// A picture that has not the bytes its size takes.
    pub fn enter(&self, source: FrameSource) -> Result<Option<Entered>, Error> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match source {
            FrameSource::Picture(picture) => {
                picture.check()?;
                let [width, height] = self.size();
                let picture = picture.resized(width, height);
                let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
                if filter.as_mut().is_some_and(|f| f.skips(&picture)) {
                    return Ok(None);
                }
                FrameSource::Picture(picture)
            }
            FrameSource::Noise => FrameSource::Noise,
        };
        let number = *entered;
        *entered += 1;
        Ok(Some(Entered { number, source }))
    }

    /// Frames to be drawn together, with the settings of now.
    ///
    /// # Errors
    /// Prompts that cannot be interpolated.
    pub fn group(&self, frames: Vec<Entered>) -> Result<Group, Error> {
        let prepared = self.steering.take(frames.len())?;
        Ok(Group { frames, prepared })
    }

    /// Draw frames: encode, go through the levels, decode.
    ///
    /// # Errors
    /// A network fails or gives values that are not finite.
    pub fn draw(&self, group: Group) -> Result<Vec<Picture>, Error> {
        let mut chain = self.encode(&group)?;
        let prepared = &*group.prepared;
        loop {
            let level = prepared.levels[chain.step()];
            let rows: Vec<Row> = chain
                .rows()
                .iter()
                .map(|row| {
                    let away = prepared.away.as_ref().filter(|_| row.away);
                    Row {
                        latent: row.latent.to_vec(),
                        timestep: row.timestep as f64,
                        prompt: away.unwrap_or(&prepared.prompt).clone(),
                        guidance: prepared.guidance.clone(),
                    }
                })
                .collect();
            let outputs = self.parts.rows.predict(rows)?;
            let noise = |(row, output): (super::ChainRow<'_>, Vec<f32>)| {
                self.parts.sampler.noise_in(&level, output, row.latent)
            };
            let predictions = chain.rows().into_iter().zip(outputs).map(noise).collect();
            if chain.advance(predictions) {
                return self.parts.pictures.decode(chain.latents());
            }
        }
    }

    /// The frames as they enter the first level.
    fn encode(&self, group: &Group) -> Result<Chain, Error> {
        let Prepared { settings, levels, noise: shared, .. } = &*group.prepared;
        let values = self.parts.rows.latent_shape().iter().product();
        let latents = group.frames.iter().map(|frame| match &frame.source {
            FrameSource::Picture(p) => self.parts.pictures.submit_encode(p).map(Some),
            FrameSource::Noise => Ok(None),
        });
        let latents = latents.collect::<Result<Vec<_>, _>>()?;
        let mut chain = Chain::new(levels.clone(), settings.steer(&self.config));
        for (frame, latent) in group.frames.iter().zip(latents) {
            // Item 0 is the noise that frames share.
            let item = (frame.number % u64::from(u32::MAX)) as u32 + 1;
            let fresh = |step| standard_normal(settings.seed, item, step, values);
            let noise = if self.config.use_denoising_batch {
                shared.clone()
            } else {
                Arc::new((1..=levels.len() as u32).map(fresh).collect())
            };
            match latent {
                Some(latent) => chain.enter_latent(&latent.wait()?, noise),
                None => chain.enter_noise(fresh(START), noise),
            }
        }
        Ok(chain)
    }
}

impl Group {
    /// How often settings had changed when its frames entered.
    pub fn generation(&self) -> u64 {
        self.prepared.generation
    }
}
