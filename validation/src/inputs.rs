//! Seeded noise of the kind that a model takes.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// Largest integer given to an integer input, small enough to be an index into any real look-up table.
const LARGEST_INTEGER: i64 = 7;

/// Inputs for a model of which nothing is known but its boundary: standard normal values for real inputs, integers from 0 to 7
/// for integer ones, coin tosses for bools. The values are unscaled, and the same for equal `specs` and `seed` on any machine.
pub fn random_inputs(specs: &[TensorSpec], seed: u64) -> BTreeMap<String, Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    specs.iter().map(|spec| (spec.name.clone(), random_tensor(spec, &mut rng))).collect()
}

fn random_tensor(spec: &TensorSpec, rng: &mut ChaCha8Rng) -> Tensor {
    let (shape, count) = (spec.shape.clone(), spec.shape.iter().product::<usize>());
    let integers = |rng: &mut ChaCha8Rng| {
        (0..count).map(|_| rng.random_range(0..=LARGEST_INTEGER)).collect::<Vec<_>>()
    };
    match spec.dtype {
        DType::F32 | DType::F16 => {
            let real =
                Tensor::from_f32(shape, (0..count).map(|_| rng.sample(StandardNormal)).collect());
            real.to_float(spec.dtype).unwrap_or(real)
        }
        DType::I64 => Tensor::from_i64(shape, integers(rng)),
        DType::I32 => {
            Tensor::from_i32(shape, integers(rng).into_iter().map(|v| v as i32).collect())
        }
        DType::Bool => Tensor::from_bool(shape, (0..count).map(|_| rng.random()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DType, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: shape.to_vec(), scale: 1.0 }
    }

    #[test]
    fn seeded_and_of_the_declared_kind() {
        let specs = [
            spec("x", DType::F32, &[100, 100]),
            spec("ids", DType::I64, &[64]),
            spec("mask", DType::Bool, &[8]),
        ];
        let inputs = random_inputs(&specs, 3);
        assert!(inputs == random_inputs(&specs, 3));
        assert!(inputs["x"] != random_inputs(&specs, 4)["x"]);
        let x = inputs["x"].to_f32().unwrap();
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let variance = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(inputs["ids"].to_i64().unwrap().iter().all(|v| (0..=LARGEST_INTEGER).contains(v)));
        assert_eq!(inputs["mask"].shape(), [8]);
    }
}
