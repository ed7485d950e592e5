//! Default calibration inputs: seeded noise.

use crate::calibrate::Sample;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rockshard_graph::Graph;
use rockshard_tensor::{DType, Tensor};

const SAMPLES: u64 = 2;

/// Two samples: standard normal values for real inputs, small counting numbers for integer ones.
pub(crate) fn samples(graph: &Graph) -> Vec<Sample> {
    let sample = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tensor = |id| {
            let value = graph.value(id);
            let count = value.count();
            let tensor = match value.dtype {
                DType::F32 | DType::F16 => {
                    Tensor::from_f32(value.shape.clone(), (0..count).map(|_| StandardNormal.sample(&mut rng)).collect())
                }
                DType::I64 => Tensor::from_i64(value.shape.clone(), (0..count as i64).map(|i| (i + seed as i64) % 100).collect()),
                DType::I32 => Tensor::from_i32(value.shape.clone(), (0..count as i32).map(|i| (i + seed as i32) % 100).collect()),
                DType::Bool => Tensor::from_bool(value.shape.clone(), vec![true; count]),
            };
            (value.name.clone(), tensor)
        };
        graph.inputs.iter().map(|&id| tensor(id)).collect()
    };
    (0..SAMPLES).map(sample).collect()
}
