//! Default calibration inputs: seeded noise.

use crate::calibrate::Sample;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};

/// Input of diffusion networks that tells how much noise there is, from 999 (noise only) down.
const TIMESTEP: &str = "timestep";
const LAST_TIMESTEP: usize = 999;

/// Samples for a model's inputs: standard normal values for real inputs, small counting numbers for integer ones, timesteps spread over
/// the schedule as a sampler does.
pub(crate) fn samples(inputs: &[TensorSpec], count: usize) -> Vec<Sample> {
    let sample = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        let timestep = LAST_TIMESTEP - LAST_TIMESTEP * index / count;
        let mut tensor = |spec: &TensorSpec| {
            let elements: usize = spec.shape.iter().product();
            let whole = |i: usize| if spec.name == TIMESTEP { timestep } else { (i + index) % 100 };
            let tensor = match spec.dtype {
                DType::F32 | DType::F16 if spec.name == TIMESTEP => {
                    Tensor::from_f32(spec.shape.clone(), vec![timestep as f32; elements])
                }
                DType::F32 | DType::F16 => Tensor::from_f32(
                    spec.shape.clone(),
                    (0..elements).map(|_| StandardNormal.sample(&mut rng)).collect(),
                ),
                DType::I64 => Tensor::from_i64(
                    spec.shape.clone(),
                    (0..elements).map(|i| whole(i) as i64).collect(),
                ),
                DType::I32 => Tensor::from_i32(
                    spec.shape.clone(),
                    (0..elements).map(|i| whole(i) as i32).collect(),
                ),
                DType::Bool => Tensor::from_bool(spec.shape.clone(), vec![true; elements]),
            };
            (spec.name.clone(), tensor)
        };
        inputs.iter().map(&mut tensor).collect()
    };
    (0..count).map(sample).collect()
}
