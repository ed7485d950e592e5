//! Between pictures and latents: the VAE.
//!
//! Latents are the U-Net's here: the VAE's scaling factor is applied on the way in and out, so that no driver has to know it. A decoder
//! for a smaller latent decodes in tiles that are blended.

use crate::call::{Pending, elements, first_input, first_output, interface, spec, start_values};
use crate::tiles::Tiles;
use crate::{Error, Networks, Picture, PipelineConfig, TensorMap};
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::Tensor;
use std::sync::Arc;

/// The VAE of a model, or the tiny autoencoder that stands in for it.
#[derive(Clone)]
pub struct PictureCodec {
    networks: Arc<dyn Networks>,
    /// Channels, height and width.
    latent: [usize; 3],
    /// Pixels a latent value covers in each direction.
    scale: u32,
    scaling_factor: f32,
    encoder: Role,
    decoder: Decoder,
}

/// What the decoder takes and gives.
#[derive(Clone)]
struct Decoder {
    role: Role,
    input: TensorSpec,
    output: TensorSpec,
    /// How latents are cut for it; `None` where it takes them whole.
    tiles: Option<Arc<Tiles>>,
}

impl PictureCodec {
    /// Read the declarations of the VAE; `latent` is the U-Net's, [`Rows::latent_shape`](crate::Rows::latent_shape). Where there is no VAE,
    /// a tiny autoencoder is taken; it has the U-Net's latents, without a factor.
    ///
    /// # Errors
    /// The decoder is missing or does not take such latents.
    pub fn new(
        networks: Arc<dyn Networks>,
        latent: [usize; 3],
        config: &PipelineConfig,
    ) -> Result<Self, Error> {
        let has = |role| networks.spec(role).is_some();
        let (encoder, decoder, scaling_factor) = if !has(Role::VaeDecoder) && has(Role::TinyDecoder)
        {
            (Role::TinyEncoder, Role::TinyDecoder, 1.0)
        } else {
            (Role::VaeEncoder, Role::VaeDecoder, config.scaling_factor)
        };
        let scale = config.vae_scale;
        let decoder = Decoder::new(&*networks, decoder, latent, scale as usize)?;
        Ok(PictureCodec { networks, latent, scale, scaling_factor, encoder, decoder })
    }

    /// The same over another way to the same networks.
    pub fn over(&self, networks: Arc<dyn Networks>) -> Self {
        PictureCodec { networks, ..self.clone() }
    }

    /// Width and height in pixels of every picture.
    pub fn size(&self) -> [u32; 2] {
        let [_, height, width] = self.latent;
        [width, height].map(|n| (n as u32).saturating_mul(self.scale))
    }

    /// Pixels that a side is a multiple of.
    pub fn multiple(&self) -> u32 {
        self.scale
    }

    /// Whether pictures have this size.
    ///
    /// # Errors
    /// They have not; the error says what is possible.
    pub fn check_size(&self, width: u32, height: u32) -> Result<(), Error> {
        let multiple = self.scale;
        if [width, height].iter().any(|&n| n == 0 || n % multiple != 0) {
            return Err(Error::Multiple { width, height, multiple });
        }
        let size = self.size();
        if [width, height] == size {
            return Ok(());
        }
        let mut available = self.networks.sizes();
        if !available.contains(&size) {
            available.insert(0, size);
        }
        Err(Error::Size { width, height, available })
    }

    /// Whether there is an encoder.
    ///
    /// # Errors
    /// There is none.
    pub fn check_encoder(&self) -> Result<(), Error> {
        spec(&*self.networks, self.encoder).map(drop)
    }

    /// The latent of a picture, which is resized to [`PictureCodec::size`]: the mean where the encoder gives mean and log-variance.
    ///
    /// # Errors
    /// As [`PictureCodec::submit_encode`], and the encoder fails or gives values that are not finite.
    pub fn encode(&self, picture: &Picture) -> Result<Vec<f32>, Error> {
        self.submit_encode(picture)?.wait()
    }

    /// Start encoding a picture.
    ///
    /// # Errors
    /// The picture has not the bytes its size takes, there is no encoder, it does not give such latents, or it cannot be started.
    pub fn submit_encode(&self, picture: &Picture) -> Result<Pending<Vec<f32>>, Error> {
        let role = self.encoder;
        picture.check()?;
        let spec = spec(&*self.networks, role)?;
        let (input, output) = (first_input(&spec, role)?, first_output(&spec, role)?);
        let (found, latent) = (elements(&output), self.latent.iter().product());
        if found != latent && found != 2 * latent {
            let (name, shape) = (&output.name, &output.shape);
            let detail = format!(
                "output {name:?} has shape {shape:?}, which is not a latent of {:?}",
                self.latent
            );
            return Err(interface(role, detail));
        }
        let [width, height] = self.size();
        let planes = picture.resized(width, height).planes();
        let planes = Tensor::from_f32([1, 3, height as usize, width as usize], planes);
        let items = vec![TensorMap::from([(input.name, planes)])];
        let pending = start_values(&*self.networks, role, items, output.name, found)?;
        let factor = self.scaling_factor;
        Ok(pending.map(move |mut results| {
            let mut values = results.swap_remove(0);
            values.truncate(latent);
            for value in &mut values {
                *value *= factor;
            }
            values
        }))
    }

    /// The pictures of latents.
    ///
    /// # Errors
    /// As [`PictureCodec::submit_decode`], and the decoder fails or gives values that are not finite.
    pub fn decode(&self, latents: Vec<Vec<f32>>) -> Result<Vec<Picture>, Error> {
        self.submit_decode(latents)?.wait()
    }

    /// Start decoding.
    ///
    /// # Errors
    /// A latent of another length, or the decoder cannot be started.
    pub fn submit_decode(&self, latents: Vec<Vec<f32>>) -> Result<Pending<Vec<Picture>>, Error> {
        let expected = self.latent.iter().product();
        let mut items = Vec::new();
        for mut latent in latents {
            if latent.len() != expected {
                return Err(Error::Latent { expected, found: latent.len() });
            }
            for value in &mut latent {
                *value /= self.scaling_factor;
            }
            items.extend(self.decoder.items(latent));
        }
        let planes = self.decoder.start(&*self.networks, items)?;
        let [width, height] = self.size();
        let picture = move |planes: Vec<f32>| Picture::from_planes(width, height, &planes);
        Ok(planes.map(move |planes| planes.into_iter().map(picture).collect()))
    }
}

impl Decoder {
    fn new(
        networks: &dyn Networks,
        role: Role,
        latent: [usize; 3],
        scale: usize,
    ) -> Result<Self, Error> {
        let spec = spec(networks, role)?;
        let (input, output) = (first_input(&spec, role)?, first_output(&spec, role)?);
        let [channels, height, width] = latent;
        let refuse = |detail| Err(interface(role, detail));
        let tile = match input.shape[..] {
            [1, c, h, w]
                if c == channels && (1..=height).contains(&h) && (1..=width).contains(&w) =>
            {
                [h, w]
            }
            ref shape => {
                let own = [1, channels, height, width];
                return refuse(format!("takes {shape:?}, the U-Net gives {own:?}"));
            }
        };
        let [h, w] = tile;
        if output.shape[..] != [1, 3, h * scale, w * scale] {
            let shape = &output.shape;
            return refuse(format!(
                "gives {shape:?} for {h}x{w} latent values, which is not this model's scale of {scale}"
            ));
        }
        let whole = tile == [height, width];
        let tiles = (!whole).then(|| Arc::new(Tiles::new(tile, [height, width], scale)));
        Ok(Decoder { role, input, output, tiles })
    }

    /// What the decoder is given for one of its own latents, unscaled.
    fn items(&self, latent: Vec<f32>) -> Vec<TensorMap> {
        let pieces = match &self.tiles {
            Some(tiles) => tiles.cut(&latent),
            None => vec![latent],
        };
        let item = |piece| {
            let tensor = Tensor::from_f32(self.input.shape.clone(), piece);
            TensorMap::from([(self.input.name.clone(), tensor)])
        };
        pieces.into_iter().map(item).collect()
    }

    /// Start decoding items; what comes is the planes of whole pictures, with values in -1..1.
    fn start(
        &self,
        networks: &dyn Networks,
        items: Vec<TensorMap>,
    ) -> Result<Pending<Vec<Vec<f32>>>, Error> {
        let (name, expected) = (self.output.name.clone(), elements(&self.output));
        let pending = start_values(networks, self.role, items, name, expected)?;
        let Some(tiles) = self.tiles.clone() else { return Ok(pending) };
        Ok(Pending::new(move || {
            let of_picture = |error| match error {
                Error::NotFinite { role, item } => {
                    Error::NotFinite { role, item: item / tiles.count() }
                }
                other => other,
            };
            let decoded = pending.wait().map_err(of_picture)?;
            Ok(decoded.chunks(tiles.count()).map(|pieces| tiles.join(pieces)).collect())
        }))
    }
}
