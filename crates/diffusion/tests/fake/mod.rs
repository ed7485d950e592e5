//! Networks simple enough to compute by hand.

use rockshard_diffusion::{NetworkError, NetworkSpec, Networks, PendingRun, TensorMap, finished};
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::{DType, Tensor};
use std::sync::Mutex;

/// A text encoder that sums ids, a U-Net that mixes its inputs, a decoder that repeats three latent planes eightfold.
#[derive(Default)]
#[allow(dead_code)]
pub struct Fake {
    /// Whether there is an encoder although guidance is no input.
    pub encoder: bool,
    pub guidance: Option<usize>,
    pub broken: bool,
    /// Latent values along the sides of the decoder's input, where it is not 4.
    pub tile: Option<usize>,
    pub calls: Mutex<Vec<(Role, usize)>>,
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

    /// The networks that ran, with their items, since this was asked last.
    pub fn take_calls(&self) -> Vec<(Role, usize)> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn item(&self, role: Role, map: &TensorMap) -> TensorMap {
        let declared = self.inputs(role).unwrap();
        assert_eq!(declared.len(), map.len(), "{role}");
        for s in &declared {
            assert_eq!(
                (map[&s.name].shape(), map[&s.name].dtype()),
                (s.shape.as_slice(), s.dtype),
                "{role} {}",
                s.name
            );
        }
        let (name, tensor) = match role {
            Role::TextEncoder => {
                let sum: i64 = map["input_ids"].to_i64().unwrap().iter().sum();
                ("last_hidden_state", Tensor::from_f32([1, 77, 2], vec![sum as f32 / 1e5; 154]))
            }
            Role::Unet => {
                let shift = mean(&map["encoder_hidden_states"])
                    + map["timestep"].to_i64().unwrap()[0] as f32 / 1e4
                    + map.get("timestep_cond").map_or(0.0, mean);
                let factor = if self.broken { f32::INFINITY } else { 0.5 };
                let values =
                    map["sample"].to_f32().unwrap().iter().map(|v| v * factor + shift).collect();
                ("out_sample", Tensor::from_f32([1, 4, 4, 4], values))
            }
            Role::VaeDecoder => {
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

impl Fake {
    fn inputs(&self, role: Role) -> Option<Vec<TensorSpec>> {
        let f = DType::F32;
        match role {
            Role::TextEncoder => Some(vec![spec("input_ids", DType::I64, &[1, 77])]),
            Role::Unet => {
                let mut specs = vec![
                    spec("sample", f, &[1, 4, 4, 4]),
                    spec("timestep", DType::I64, &[1]),
                    spec("encoder_hidden_states", f, &[1, 77, 2]),
                ];
                specs.extend(self.guidance.map(|n| spec("timestep_cond", f, &[1, n])));
                Some(specs)
            }
            Role::VaeDecoder => {
                Some(vec![spec("latent_sample", f, &[1, 4, self.tile(), self.tile()])])
            }
            Role::VaeEncoder if self.encoder || self.guidance.is_some() => {
                Some(vec![spec("sample", f, &[1, 3, 32, 32])])
            }
            _ => None,
        }
    }

    fn outputs(&self, role: Role) -> Option<Vec<TensorSpec>> {
        let f = DType::F32;
        Some(match role {
            Role::TextEncoder => {
                vec![spec("pooler_output", f, &[1, 2]), spec("last_hidden_state", f, &[1, 77, 2])]
            }
            Role::Unet => vec![spec("out_sample", f, &[1, 4, 4, 4])],
            Role::VaeDecoder => vec![spec("sample", f, &[1, 3, 8 * self.tile(), 8 * self.tile()])],
            _ => vec![spec("latent_parameters", f, &[1, 8, 4, 4])],
        })
    }
}

impl Networks for Fake {
    fn spec(&self, role: Role) -> Option<NetworkSpec> {
        let (inputs, outputs) = self.inputs(role).zip(self.outputs(role))?;
        Some(NetworkSpec { inputs, outputs })
    }

    fn submit(
        &self,
        role: Role,
        items: Vec<TensorMap>,
    ) -> Result<Box<dyn PendingRun>, NetworkError> {
        self.calls.lock().unwrap().push((role, items.len()));
        Ok(finished(items.iter().map(|map| self.item(role, map)).collect()))
    }

    fn sizes(&self) -> Vec<[u32; 2]> {
        vec![[32, 32], [64, 32]]
    }
}
