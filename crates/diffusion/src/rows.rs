//! What the U-Net predicts, a row at a time.
//!
//! A row is one item of the U-Net: a latent with a timestep, hidden states and guidance of its own. A driver that draws pictures gives all
//! rows one timestep; a stream gives each the timestep its frame has come to.

use crate::call::{elements, first_output, input, interface, numbers, spec, start_values};
use crate::{Error, Networks, Pending, PipelineConfig, TensorMap, guidance_embedding};
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::Tensor;
use std::sync::Arc;

const ROLE: Role = Role::Unet;
/// The input of U-Nets that take the guidance scale, and what a U-Net is given besides the prompt.
const GUIDANCE: &str = "timestep_cond";
const GIVEN: [&str; 3] = ["sample", "timestep", GUIDANCE];

/// One item of the U-Net.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The noisy latent: as many values as [`Rows::latent_shape`] has.
    pub latent: Vec<f32>,
    /// The level of its noise, in the steps of training; rounded where the U-Net takes whole numbers.
    pub timestep: f64,
    /// The inputs that the prompt decides ([`Conditioning::prompt`](crate::Conditioning::prompt)).
    pub prompt: TensorMap,
    /// The guidance scale as [`Rows::embed_guidance`] gives it, for a U-Net that takes one.
    pub guidance: Option<Tensor>,
}

/// The U-Net of a model.
#[derive(Clone)]
pub struct Rows {
    networks: Arc<dyn Networks>,
    latent: [usize; 4],
    timestep: TensorSpec,
    guidance_size: Option<usize>,
    output: String,
}

impl Rows {
    /// Read the declarations of the U-Net.
    ///
    /// # Errors
    /// The U-Net is missing, is not one of a latent diffusion model, or does not fit the configuration.
    pub fn new(networks: Arc<dyn Networks>, config: &PipelineConfig) -> Result<Self, Error> {
        let spec = spec(&*networks, ROLE)?;
        let sample = input(&spec, ROLE, "sample")?;
        let latent: [usize; 4] = sample.shape.try_into().map_err(|shape| {
            interface(ROLE, format!("input sample has shape {shape:?}, not 4 extents"))
        })?;
        if latent[0] != 1 {
            let detail =
                format!("input sample has batch {}, it must be converted with batch 1", latent[0]);
            return Err(interface(ROLE, detail));
        }
        let timestep = input(&spec, ROLE, "timestep")?;
        if elements(&timestep) != 1 {
            let detail = format!("input timestep has shape {:?}, not one value", timestep.shape);
            return Err(interface(ROLE, detail));
        }
        let prompt: Vec<String> = match networks.spec(Role::KeysValues) {
            None => vec!["encoder_hidden_states".into()],
            Some(made) => made.outputs.into_iter().map(|o| o.name).collect(),
        };
        prompt.iter().try_for_each(|name| input(&spec, ROLE, name).map(drop))?;
        let given = |name: &String| GIVEN.contains(&name.as_str()) || prompt.contains(name);
        if let Some(other) = spec.inputs.iter().map(|i| &i.name).find(|name| !given(name)) {
            let detail = format!(
                "input {other} is not one of Stable Diffusion 1.x or 2.x (SDXL has text_embeds and time_ids)"
            );
            return Err(interface(ROLE, detail));
        }
        let guidance_size = spec.inputs.iter().find(|s| s.name == GUIDANCE).map(elements);
        if let (Some(declared), Some(taken)) = (config.time_cond_proj_dim, guidance_size)
            && declared != taken
        {
            let detail = format!(
                "timestep_cond has {taken} values, but sampler.json has time_cond_proj_dim {declared}"
            );
            return Err(interface(ROLE, detail));
        }
        let output = first_output(&spec, ROLE)?.name;
        Ok(Rows { networks, latent, timestep, guidance_size, output })
    }

    /// The same over another way to the same networks.
    pub fn over(&self, networks: Arc<dyn Networks>) -> Self {
        Rows { networks, ..self.clone() }
    }

    /// Channels, height and width of a latent.
    pub fn latent_shape(&self) -> [usize; 3] {
        let [_, channels, height, width] = self.latent;
        [channels, height, width]
    }

    /// Whether the U-Net takes the guidance scale as an input.
    pub fn takes_guidance(&self) -> bool {
        self.guidance_size.is_some()
    }

    /// A guidance scale as the U-Net takes it; `None` where it takes none.
    ///
    /// # Errors
    /// The U-Net's input is too small for the embedding's formula.
    pub fn embed_guidance(&self, scale: f64) -> Result<Option<Tensor>, Error> {
        let embed = |size| Ok(Tensor::from_f32([1, size], guidance_embedding(scale, size)?));
        self.guidance_size.map(embed).transpose()
    }

    /// What the U-Net predicts for each row, as many values as its latent has.
    ///
    /// # Errors
    /// As [`Rows::submit`], and the U-Net fails or gives values that are not finite.
    pub fn predict(&self, rows: Vec<Row>) -> Result<Vec<Vec<f32>>, Error> {
        self.submit(rows)?.wait()
    }

    /// Start predicting.
    ///
    /// # Errors
    /// A latent of another length, or the U-Net cannot be started.
    pub fn submit(&self, rows: Vec<Row>) -> Result<Pending<Vec<Vec<f32>>>, Error> {
        let expected = self.latent.iter().product();
        let items = rows.into_iter().map(|row| self.item(row, expected));
        let items = items.collect::<Result<_, _>>()?;
        start_values(&*self.networks, ROLE, items, self.output.clone(), expected)
    }

    fn item(&self, row: Row, expected: usize) -> Result<TensorMap, Error> {
        if row.latent.len() != expected {
            return Err(Error::Latent { expected, found: row.latent.len() });
        }
        let mut map = row.prompt;
        map.insert("sample".to_owned(), Tensor::from_f32(self.latent, row.latent));
        map.insert("timestep".to_owned(), numbers(&self.timestep, row.timestep));
        map.extend(row.guidance.map(|embedding| (GUIDANCE.to_owned(), embedding)));
        Ok(map)
    }
}
