//! Default calibration inputs: seeded noise.

use crate::calibrate::Sample;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rockshard_graph::{Graph, Op, ValueId};
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};

/// Input of diffusion networks that tells how much noise there is, from 999 (noise only) down.
const TIMESTEP: &str = "timestep";
const LAST_TIMESTEP: usize = 999;
/// Inputs whose names have this word say what counts: all of it.
const MASK: &str = "mask";
/// Whole numbers stay below this.
const MOST: usize = 100;

/// Samples for a model's inputs: standard normal values for real inputs, small counting numbers for integer ones, timesteps spread over
/// the schedule as a sampler does. Counting begins at 1, for divisors, and ends below the length of an axis that an input's entries choose from.
pub(crate) fn samples(graph: &Graph, inputs: &[TensorSpec], count: usize) -> Vec<Sample> {
    let bounds: Vec<usize> = graph.inputs.iter().map(|&v| bound(graph, v)).collect();
    let sample = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        let timestep = LAST_TIMESTEP - LAST_TIMESTEP * index / count;
        let mut tensor = |(spec, &bound): (&TensorSpec, &usize)| {
            let elements: usize = spec.shape.iter().product();
            let whole = |i: usize| match spec.name.as_str() {
                TIMESTEP => timestep,
                name if name.contains(MASK) => 1,
                _ if bound < 2 => 0,
                _ => 1 + (i + index) % (bound - 1),
            };
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
        inputs.iter().zip(&bounds).map(&mut tensor).collect()
    };
    (0..count).map(sample).collect()
}

/// How many different whole numbers an input may hold: the shortest axis that it indexes, as it is or moved about.
fn bound(graph: &Graph, input: ValueId) -> usize {
    let mut bound = MOST;
    let mut same = vec![input];
    for node in graph.nodes() {
        let moves = matches!(
            node.op,
            Op::Reshape { .. }
                | Op::Cast(_)
                | Op::Slice { .. }
                | Op::Transpose { .. }
                | Op::Expand { .. }
        );
        if moves && same.contains(&node.inputs[0]) {
            same.push(node.output);
        }
        if let Op::Gather { axis } = node.op
            && same.contains(&node.inputs[1])
        {
            bound = bound.min(graph.value(node.inputs[0]).shape[axis]);
        }
    }
    bound
}
