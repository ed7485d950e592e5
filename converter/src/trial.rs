//! Whether a part's values need scaling at all, from a small picture.
//!
//! The part's graph, at a small size where it has one that can be chosen, runs on the kernels in float32, straight from the mapped weights, all
//! samples of a node before the next node. Its ranges only say whether every value stays well within float16; factors are chosen by ranges at
//! the size that is converted.

use crate::ConvertError;
use crate::calibrate::{check_sample, unscaled};
use crate::family::Part;
use crate::noise;
use crate::part::{Imported, import, in_part};
use crate::passes::{Ranges, choose_scales, legal_masks};
use crate::request::Pieces;
use crate::sizes::resized;
use rockshard_device::Device;
use rockshard_graph::{Graph, ValueId};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::Tensor;
use std::collections::HashMap;

/// Width and height of the picture.
const SIDE: u32 = 128;
/// How much larger than on the small picture a value may be.
const MARGIN: f32 = 2.0;
/// Bytes of weights that are read before their pages are given back.
const READ: usize = 64 << 20;

/// The weights of a graph, by name.
pub(crate) type Weights = HashMap<String, Tensor>;

/// The weights of a graph, by name.
pub(crate) fn weights(graph: &Graph) -> Weights {
    let constants = graph.values().iter().filter_map(|v| Some((v, v.constant.as_ref()?)));
    constants.map(|(value, tensor)| (value.name.clone(), tensor.clone())).collect()
}

/// Whether all values of a part stay within float16 as they are, on `count` samples of noise. `None` where that cannot be told: the part has
/// operators that only the host's engine runs, or noise is no input for it. `nodes` hears of each node before it runs.
///
/// # Errors
/// The part cannot be read again.
pub(crate) fn stays_within(
    part: &Part,
    weights: &Weights,
    reference: &dyn Device,
    count: usize,
    release: &dyn Fn(),
    nodes: Pieces,
) -> Result<Option<bool>, ConvertError> {
    let small = part.resolution.filter(|sides| sides.iter().all(|&side| side > SIDE));
    let resized = small.map(|_| import(&resized(part, [SIDE; 2]), Some(reference)));
    // A size that a network cannot have, or that its weights fix.
    let Imported { model, mut graph, .. } = match resized {
        Some(Ok(small)) => small,
        _ => import(part, Some(reference))?,
    };
    let constants: Vec<ValueId> = graph.nodes().iter().flat_map(|n| n.inputs.clone()).collect();
    for id in constants {
        let value = graph.value_mut(id);
        if let (Some(own), Some(given)) = (&value.constant, weights.get(&value.name))
            && own.shape() == given.shape()
        {
            value.constant = Some(given.clone());
        }
    }
    legal_masks(&mut graph)?;
    rockshard_import::fuse(&mut graph, None).map_err(in_part(part))?;
    let release = || {
        release();
        model.release_pages();
    };
    let Some(mut ranges) = ranges(&graph, part, count, &release, nodes)? else { return Ok(None) };
    ranges.values_mut().for_each(|range| range.max *= MARGIN);
    let scales = choose_scales(&graph, &ranges, &HashMap::new());
    Ok(Some(scales.is_identity() && scales.declined.is_empty()))
}

/// The ranges of all real values; `None` where an operator does not run.
fn ranges(
    graph: &Graph,
    part: &Part,
    count: usize,
    release: &dyn Fn(),
    nodes: Pieces,
) -> Result<Option<Ranges>, ConvertError> {
    let inputs = unscaled(graph, &graph.inputs);
    let samples = noise::samples(graph, &inputs, count);
    let mut ranges = Ranges::new();
    let mut states: Vec<HashMap<ValueId, Tensor>> = Vec::new();
    for sample in &samples {
        check_sample(&part.name, &inputs, sample)?;
        let named = |&v: &ValueId| (v, sample[&graph.value(v).name].clone());
        states.push(graph.inputs.iter().map(named).collect());
    }
    let record = |ranges: &mut Ranges, id: ValueId, tensor: &Tensor| {
        if let Ok(values) = tensor.to_f32() {
            ranges.entry(graph.value(id).name.clone()).or_default().add(&values);
        }
    };
    for (id, tensor) in states.iter().flatten() {
        record(&mut ranges, *id, tensor);
    }
    let numbered = graph.nodes().iter().enumerate();
    let last: HashMap<ValueId, usize> =
        numbered.flat_map(|(at, n)| n.inputs.iter().map(move |&v| (v, at))).collect();
    let mut read = 0;
    for (at, node) in graph.nodes().iter().enumerate() {
        nodes(at, graph.nodes().len())?;
        for state in &mut states {
            let find = |v: &ValueId| graph.constant(*v).or_else(|| state.get(v));
            let Some(given) = node.inputs.iter().map(find).collect::<Option<Vec<_>>>() else {
                return Ok(None);
            };
            let Ok(made) = evaluate(&node.op, &given, Precision::F32) else { return Ok(None) };
            record(&mut ranges, node.output, &made);
            state.retain(|v, _| last.get(v).is_some_and(|&last| last > at));
            state.insert(node.output, made);
        }
        let weights = node.inputs.iter().filter_map(|&v| graph.constant(v));
        read += weights.map(|t| t.bytes().len()).sum::<usize>();
        if read > READ {
            release();
            read = 0;
        }
    }
    release();
    Ok(Some(ranges))
}
