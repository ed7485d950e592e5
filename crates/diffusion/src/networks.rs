//! The four networks under the names and shapes that diffusers' ONNX exports give them.

use crate::tiles::Tiles;
use crate::{Error, Models, TensorMap};
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};

const TEXT: &str = "text_encoder";
const UNET: &str = "unet";
const DECODER: &str = "vae_decoder";
const ENCODER: &str = "vae_encoder";

/// The networks of a pack with what their declarations say.
pub(crate) struct Networks<'a> {
    models: &'a dyn Models,
    timestep: TensorSpec,
    latent: [usize; 4],
    guidance_size: Option<usize>,
}

fn interface(model: &'static str, detail: impl Into<String>) -> Error {
    Error::Interface { model, detail: detail.into() }
}

fn inputs(
    models: &dyn Models,
    model: &'static str,
    hint: &'static str,
) -> Result<Vec<TensorSpec>, Error> {
    models.inputs(model).ok_or(Error::MissingModel { model, hint })
}

fn find(specs: &[TensorSpec], model: &'static str, name: &str) -> Result<TensorSpec, Error> {
    let names = || specs.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    specs
        .iter()
        .find(|s| s.name == name)
        .cloned()
        .ok_or_else(|| interface(model, format!("has no input {name:?}, only {}", names())))
}

/// Whole numbers in whichever type a network declares for them.
fn integers(spec: &TensorSpec, values: Vec<i64>) -> Tensor {
    let shape = spec.shape.clone();
    match spec.dtype {
        DType::I32 => Tensor::from_i32(shape, values.iter().map(|&v| v as i32).collect()),
        dtype if dtype.is_float() => {
            Tensor::from_f32(shape, values.iter().map(|&v| v as f32).collect())
        }
        _ => Tensor::from_i64(shape, values),
    }
}

fn elements(spec: &TensorSpec) -> usize {
    spec.shape.iter().product()
}

impl<'a> Networks<'a> {
    /// Read the declarations of the U-Net.
    pub fn new(models: &'a dyn Models) -> Result<Self, Error> {
        let specs = inputs(models, UNET, "it cannot generate pictures")?;
        let sample = find(&specs, UNET, "sample")?;
        let latent: [usize; 4] = sample.shape.clone().try_into().map_err(|shape| {
            interface(UNET, format!("input sample has shape {shape:?}, not 4 extents"))
        })?;
        if latent[0] != 1 {
            return Err(interface(
                UNET,
                format!("input sample has batch {}, it must be converted with batch 1", latent[0]),
            ));
        }
        let timestep = find(&specs, UNET, "timestep")?;
        if elements(&timestep) != 1 {
            return Err(interface(
                UNET,
                format!("input timestep has shape {:?}, not one value", timestep.shape),
            ));
        }
        find(&specs, UNET, "encoder_hidden_states")?;
        let guidance_size = specs.iter().find(|s| s.name == "timestep_cond").map(elements);
        Ok(Networks { models, timestep, latent, guidance_size })
    }

    /// Values of one latent.
    pub fn latent_len(&self) -> usize {
        self.latent.iter().product()
    }

    /// Height and width of a latent.
    pub fn latent_size(&self) -> [usize; 2] {
        [self.latent[2], self.latent[3]]
    }

    /// Size of the guidance embedding the U-Net takes; `None` when it takes none.
    pub fn guidance_size(&self) -> Option<usize> {
        self.guidance_size
    }

    fn run(&self, model: &'static str, items: Vec<TensorMap>) -> Result<Vec<TensorMap>, Error> {
        let count = items.len();
        let results =
            self.models.run(model, items).map_err(|source| Error::Model { model, source })?;
        if results.len() == count {
            Ok(results)
        } else {
            Err(interface(model, format!("gave {} results for {count} items", results.len())))
        }
    }

    fn first_output(&self, model: &'static str) -> Result<TensorSpec, Error> {
        let outputs = self.models.outputs(model).unwrap_or_default();
        outputs.into_iter().next().ok_or_else(|| interface(model, "has no output"))
    }

    /// The real values that each result has under `name`, which must all be finite.
    fn values(
        model: &'static str,
        name: &str,
        results: &[TensorMap],
        expected: usize,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let values = |(item, map): (usize, &TensorMap)| {
            let tensor = map
                .get(name)
                .ok_or_else(|| interface(model, format!("gave no output {name:?}")))?;
            if tensor.len() != expected {
                return Err(interface(
                    model,
                    format!(
                        "output {name:?} has shape {:?}, {expected} values were expected",
                        tensor.shape()
                    ),
                ));
            }
            let values =
                tensor.to_f32().map_err(|source| Error::Tensor { model, source })?.into_owned();
            if values.iter().all(|v| v.is_finite()) {
                Ok(values)
            } else {
                Err(Error::NotFinite { model, item })
            }
        };
        results.iter().enumerate().map(values).collect()
    }

    /// Hidden states of token ids, one item a prompt.
    pub fn encode_text(&self, prompts: Vec<Vec<i64>>) -> Result<Vec<Tensor>, Error> {
        let spec = find(&inputs(self.models, TEXT, "it cannot read prompts")?, TEXT, "input_ids")?;
        if let Some(ids) = prompts.iter().find(|ids| ids.len() != elements(&spec)) {
            return Err(interface(
                TEXT,
                format!(
                    "takes input_ids of shape {:?}, the tokenizer gives {} ids",
                    spec.shape,
                    ids.len()
                ),
            ));
        }
        let outputs = self.models.outputs(TEXT).unwrap_or_default();
        let output = match outputs.into_iter().find(|s| s.name == "last_hidden_state") {
            Some(output) => output,
            None => self.first_output(TEXT)?,
        };
        let items = prompts
            .into_iter()
            .map(|ids| TensorMap::from([(spec.name.clone(), integers(&spec, ids))]))
            .collect();
        let take = |mut map: TensorMap| {
            map.remove(&output.name)
                .ok_or_else(|| interface(TEXT, format!("gave no output {:?}", output.name)))
        };
        self.run(TEXT, items)?.into_iter().map(take).collect()
    }

    /// The U-Net's prediction for each `(latent, hidden states)` at one timestep.
    pub fn predict(
        &self,
        items: &[(&[f32], &Tensor)],
        timestep: i64,
        guidance: Option<&[f32]>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let item = |&(latent, hidden): &(&[f32], &Tensor)| {
            let mut map = TensorMap::from([
                ("sample".to_owned(), Tensor::from_f32(self.latent, latent.to_vec())),
                ("timestep".to_owned(), integers(&self.timestep, vec![timestep])),
                ("encoder_hidden_states".to_owned(), hidden.clone()),
            ]);
            if let Some(embedding) = guidance {
                map.insert(
                    "timestep_cond".to_owned(),
                    Tensor::from_f32([1, embedding.len()], embedding.to_vec()),
                );
            }
            map
        };
        let results = self.run(UNET, items.iter().map(item).collect())?;
        Self::values(UNET, &self.first_output(UNET)?.name, &results, self.latent_len())
    }

    /// Pictures of unscaled latents as planes of values in -1..1, of `pixels` pixels each. A decoder for a smaller latent decodes it in
    /// tiles.
    pub fn decode(&self, latents: Vec<Vec<f32>>, pixels: usize) -> Result<Vec<Vec<f32>>, Error> {
        let specs = inputs(self.models, DECODER, "it cannot draw pictures")?;
        let input = specs.first().ok_or_else(|| interface(DECODER, "has no input"))?;
        let output = self.first_output(DECODER)?;
        let Some(tiles) = self.tiles(input, &output, pixels)? else {
            let items = latents
                .into_iter()
                .map(|latent| {
                    TensorMap::from([(input.name.clone(), Tensor::from_f32(self.latent, latent))])
                })
                .collect();
            let results = self.run(DECODER, items)?;
            return Self::values(DECODER, &output.name, &results, 3 * pixels);
        };
        let cut = latents.iter().flat_map(|latent| tiles.cut(latent));
        let items = cut
            .map(|tile| {
                TensorMap::from([(input.name.clone(), Tensor::from_f32(input.shape.clone(), tile))])
            })
            .collect();
        let results = self.run(DECODER, items)?;
        let decoded =
            Self::values(DECODER, &output.name, &results, elements(&output)).map_err(|error| {
                match error {
                    Error::NotFinite { model, item } => {
                        Error::NotFinite { model, item: item / tiles.count() }
                    }
                    other => other,
                }
            })?;
        Ok(decoded.chunks(tiles.count()).map(|tiles_of_one| tiles.join(tiles_of_one)).collect())
    }

    /// How latents are cut for the decoder; `None` where it takes them whole.
    fn tiles(
        &self,
        input: &TensorSpec,
        output: &TensorSpec,
        pixels: usize,
    ) -> Result<Option<Tiles>, Error> {
        let [_, channels, height, width] = self.latent;
        match (&input.shape[..], &output.shape[..]) {
            (&[1, c, h, w], _) if [c, h, w] == [channels, height, width] => Ok(None),
            (&[1, c, h, w], &[1, 3, y, x])
                if c == channels && (1..=height).contains(&h) && (1..=width).contains(&w) =>
            {
                let scale = y / h;
                if [h * scale, w * scale] != [y, x] || height * width * scale * scale != pixels {
                    return Err(interface(
                        DECODER,
                        format!(
                            "gives {y}x{x} pixels for {h}x{w} latent values, which is not this model's scale"
                        ),
                    ));
                }
                Ok(Some(Tiles::new([h, w], [height, width], scale)))
            }
            (shape, _) => Err(interface(
                DECODER,
                format!("takes {shape:?}, the U-Net gives {:?}", self.latent),
            )),
        }
    }

    /// The unscaled latent of a picture given as three planes: the mean where the encoder gives mean and log-variance.
    pub fn encode(&self, planes: Vec<f32>, width: usize, height: usize) -> Result<Vec<f32>, Error> {
        let specs =
            inputs(self.models, ENCODER, "convert a model that has one to start from a picture")?;
        let input = specs.first().ok_or_else(|| interface(ENCODER, "has no input"))?;
        let output = self.first_output(ENCODER)?;
        let (found, latent) = (elements(&output), self.latent_len());
        if found != latent && found != 2 * latent {
            return Err(interface(
                ENCODER,
                format!(
                    "output {:?} has shape {:?}, which is not a latent of {:?}",
                    output.name, output.shape, self.latent
                ),
            ));
        }
        let item = TensorMap::from([(
            input.name.clone(),
            Tensor::from_f32([1, 3, height, width], planes),
        )]);
        let results = self.run(ENCODER, vec![item])?;
        let mut values = Self::values(ENCODER, &output.name, &results, found)?.swap_remove(0);
        values.truncate(latent);
        Ok(values)
    }
}
