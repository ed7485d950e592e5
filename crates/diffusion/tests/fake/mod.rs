//! Networks simple enough to compute by hand.

use rockshard_diffusion::{ModelError, Models, TensorMap};
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};
use std::cell::RefCell;

/// A text encoder that sums ids, a U-Net that mixes its inputs, a decoder that repeats three latent planes eightfold.
#[derive(Default)]
pub struct Fake {
    pub guidance: Option<usize>,
    pub broken: bool,
    /// Latent values along the sides of the decoder's input, where it is not 4.
    pub tile: Option<usize>,
    pub calls: RefCell<Vec<(String, usize)>>,
}

fn spec(name: &str, dtype: DType, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec(), scale: 1.0 }
}

pub fn mean(t: &Tensor) -> f32 {
    let values = t.to_f32().unwrap();
    values.iter().sum::<f32>() / values.len() as f32
}

impl Fake {
    fn tile(&self) -> usize {
        self.tile.unwrap_or(4)
    }

    fn item(&self, model: &str, map: &TensorMap) -> TensorMap {
        let declared = self.inputs(model).unwrap();
        assert_eq!(declared.len(), map.len(), "{model}");
        for s in &declared {
            assert_eq!(
                (map[&s.name].shape(), map[&s.name].dtype()),
                (s.shape.as_slice(), s.dtype),
                "{model} {}",
                s.name
            );
        }
        let (name, tensor) = match model {
            "text_encoder" => {
                let sum: i64 = map["input_ids"].to_i64().unwrap().iter().sum();
                ("last_hidden_state", Tensor::from_f32([1, 77, 2], vec![sum as f32 / 1e5; 154]))
            }
            "unet" => {
                let shift = mean(&map["encoder_hidden_states"])
                    + map["timestep"].to_i64().unwrap()[0] as f32 / 1e4
                    + map.get("timestep_cond").map_or(0.0, mean);
                let factor = if self.broken { f32::INFINITY } else { 0.5 };
                let values =
                    map["sample"].to_f32().unwrap().iter().map(|v| v * factor + shift).collect();
                ("out_sample", Tensor::from_f32([1, 4, 4, 4], values))
            }
            "vae_decoder" => {
                let latent = map["latent_sample"].to_f32().unwrap();
                let (n, side) = (self.tile(), 8 * self.tile());
                let at = |i: usize| {
                    latent[i / (side * side) * n * n
                        + i % (side * side) / side / 8 * n
                        + i % side / 8]
                };
                (
                    "sample",
                    Tensor::from_f32([1, 3, side, side], (0..3 * side * side).map(at).collect()),
                )
            }
            _ => {
                let value = mean(&map["sample"]);
                let moments = (0..128).map(|i| if i < 64 { value } else { f32::MAX }).collect();
                ("latent_parameters", Tensor::from_f32([1, 8, 4, 4], moments))
            }
        };
        TensorMap::from([(name.to_owned(), tensor)])
    }
}

impl Models for Fake {
    fn run(&self, model: &str, items: Vec<TensorMap>) -> Result<Vec<TensorMap>, ModelError> {
        self.calls.borrow_mut().push((model.to_owned(), items.len()));
        Ok(items.iter().map(|map| self.item(model, map)).collect())
    }

    fn inputs(&self, model: &str) -> Option<Vec<TensorSpec>> {
        let f = DType::F32;
        match model {
            "text_encoder" => Some(vec![spec("input_ids", DType::I64, &[1, 77])]),
            "unet" => {
                let mut specs = vec![
                    spec("sample", f, &[1, 4, 4, 4]),
                    spec("timestep", DType::I64, &[1]),
                    spec("encoder_hidden_states", f, &[1, 77, 2]),
                ];
                specs.extend(self.guidance.map(|n| spec("timestep_cond", f, &[1, n])));
                Some(specs)
            }
            "vae_decoder" => {
                Some(vec![spec("latent_sample", f, &[1, 4, self.tile(), self.tile()])])
            }
            "vae_encoder" if self.guidance.is_some() => {
                Some(vec![spec("sample", f, &[1, 3, 32, 32])])
            }
            _ => None,
        }
    }

    fn outputs(&self, model: &str) -> Option<Vec<TensorSpec>> {
        let f = DType::F32;
        Some(match model {
            "text_encoder" => {
                vec![spec("pooler_output", f, &[1, 2]), spec("last_hidden_state", f, &[1, 77, 2])]
            }
            "unet" => vec![spec("out_sample", f, &[1, 4, 4, 4])],
            "vae_decoder" => vec![spec("sample", f, &[1, 3, 8 * self.tile(), 8 * self.tile()])],
            _ => vec![spec("latent_parameters", f, &[1, 8, 4, 4])],
        })
    }

    fn sizes(&self) -> Vec<[u32; 2]> {
        vec![[32, 32], [64, 32]]
    }
}
