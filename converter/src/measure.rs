//! What scaling does, measured: a graph runs on the simulator as it would be stored, on the calibration inputs, and its results are
//! compared with the reference's.
//!
//! As the reference's, the run is in pieces of bounded memory. The host's pieces run on the reference, on unscaled values.

use crate::ConvertError;
use crate::calibrate::{Sample, unscaled};
use crate::emit::write_onnx;
use crate::partition::{host_nodes, turns};
use crate::passes::{Range, Ranges, Scales, apply_scales};
use crate::reference::{BUDGET, last_uses, pieces};
use crate::request::Pieces;
use rockshard_device::{Device, ShardFile};
use rockshard_graph::{Graph, NodeId, ValueId};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What converting computes with besides itself.
#[derive(Clone, Copy)]
pub struct Engines<'a> {
    /// The float32 reference; it runs the host's work too.
    pub reference: &'a dyn Device,
    /// What stands for the NPU's float16.
    pub simulator: &'a dyn Device,
}

/// What the simulator made of a graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// The largest distance of an output from the reference's, relative in L2; infinite where one is not finite that should be.
    pub error: f64,
    /// For the values that were watched, the share of elements that float16 overflowed, flushed or made subnormal.
    pub lost: HashMap<String, f32>,
}

/// A part's graph and what it is measured with.
pub(crate) struct Bench<'a> {
    pub engines: Engines<'a>,
    pub graph: &'a Graph,
    pub part: &'a str,
    pub samples: &'a [Sample],
    /// The reference's outputs for each sample, by name.
    pub truth: &'a HashMap<String, Vec<Tensor>>,
    pub ranges: &'a Ranges,
    pub scratch: &'a Path,
    pub release: &'a dyn Fn(),
    /// Hears of each piece before it runs.
    pub pieces: Pieces<'a>,
}

impl Bench<'_> {
    /// Run with values stored at the scales. `None` where the simulator cannot run the graph in pieces.
    ///
    /// # Errors
    /// The reference fails, or a scratch file cannot be written.
    pub fn measure(
        &self,
        scales: &Scales,
        watched: &HashSet<String>,
    ) -> Result<Option<Measured>, ConvertError> {
        let graph = self.graph;
        let turns = turns(graph, &host_nodes(graph));
        let mut list: Vec<(bool, Vec<NodeId>)> = Vec::new();
        for turn in turns {
            list.extend(
                pieces(graph, turn.nodes.into_iter(), BUDGET).into_iter().map(|p| (turn.host, p)),
            );
        }
        let only: Vec<Vec<NodeId>> = list.iter().map(|(_, nodes)| nodes.clone()).collect();
        let last = last_uses(graph, &only);
        let mut measured = Measured::default();
        let mut counts: HashMap<String, [u64; 2]> = HashMap::new();
        let start = |s: &Sample| {
            let stored = |&v: &ValueId| {
                let name = &graph.value(v).name;
                (v, rescaled(&s[name], scales.of(name)))
            };
            graph.inputs.iter().map(stored).collect()
        };
        let mut states: Vec<HashMap<ValueId, Tensor>> = self.samples.iter().map(start).collect();
        for (i, (host, nodes)) in list.iter().enumerate() {
            (self.pieces)(i, list.len())?;
            let later = |v: &ValueId| last.get(v).is_some_and(|&last| last > i);
            let wanted = |v: &ValueId| {
                later(v) || graph.outputs.contains(v) || watched.contains(&graph.value(*v).name)
            };
            let made: Vec<ValueId> =
                nodes.iter().map(|&n| graph.node(n).output).filter(wanted).collect();
            let Some(piece) =
                self.open(&format!("{}-f16-{i:03}", self.part), nodes, &made, *host, scales)?
            else {
                return Ok(None);
            };
            let (mut session, inputs) = piece;
            for (sample, state) in states.iter_mut().enumerate() {
                let scale = |v: &ValueId| scales.of(&graph.value(*v).name);
                let given = inputs.iter().map(|v| match host {
                    true => rescaled(&state[v], scale(v).recip()),
                    false => state[v].clone(),
                });
                let given: Vec<Tensor> = given.collect();
                state.retain(|v, _| later(v));
                let Ok(results) = session.run(&given) else { return Ok(None) };
                for (value, tensor) in made.iter().zip(results.outputs) {
                    let name = &graph.value(*value).name;
                    let stored = if *host { rescaled(&tensor, scale(value)) } else { tensor };
                    if watched.contains(name) {
                        let count = counts.entry(name.clone()).or_default();
                        count[0] += outside(&stored);
                        count[1] += stored.len() as u64;
                    }
                    if graph.outputs.contains(value)
                        && let Some(truth) = self.truth.get(name).and_then(|t| t.get(sample))
                    {
                        let distance = distance(&stored, scale(value), truth);
                        measured.error = measured.error.max(distance);
                    }
                    if later(value) {
                        state.insert(*value, stored);
                    }
                }
            }
        }
        // Zeros that the reference has too are not lost.
        let share = |name: &String, [outside, all]: [u64; 2]| {
            let zeros = self.ranges.get(name).map_or(0, Range::zeros);
            outside.saturating_sub(zeros) as f32 / all.max(1) as f32
        };
        measured.lost = counts.iter().map(|(n, c)| (n.clone(), share(n, *c))).collect();
        Ok(Some(measured))
    }

    /// A piece on its device, and the values it reads; `None` where the simulator refuses it.
    #[allow(clippy::type_complexity)]
    fn open(
        &self,
        name: &str,
        nodes: &[NodeId],
        made: &[ValueId],
        host: bool,
        scales: &Scales,
    ) -> Result<Option<(Box<dyn rockshard_device::Session>, Vec<ValueId>)>, ConvertError> {
        let graph = self.graph;
        let piece = graph.subgraph(name, nodes, made);
        let inputs: Vec<ValueId> =
            piece.inputs.iter().filter_map(|&v| graph.find(&piece.value(v).name)).collect();
        let stored = if host { piece } else { apply_scales(&piece, scales)? };
        let path = self.scratch.join(format!("{name}.onnx"));
        write_onnx(&stored, &path).map_err(ConvertError::io(&path))?;
        (self.release)();
        let spec = |mut list: Vec<TensorSpec>| {
            for spec in list.iter_mut().filter(|_| !host) {
                spec.scale = scales.of(&spec.name);
            }
            list
        };
        let shard = ShardFile {
            name: name.to_owned(),
            path: path.clone(),
            inputs: spec(unscaled(graph, &inputs)),
            outputs: spec(unscaled(graph, made)),
        };
        let session = match host {
            true => Some(self.engines.reference.open(&shard, CoreId::Host)?),
            false => self.engines.simulator.open(&shard, CoreId::Npu(0)).ok(),
        };
        for file in [path.clone(), path.with_extension("onnx_data")] {
            let _ = std::fs::remove_file(file);
        }
        Ok(session.map(|session| (session, inputs)))
    }
}

/// A real tensor times a factor; others as they are.
fn rescaled(tensor: &Tensor, factor: f32) -> Tensor {
    match tensor.to_f32() {
        Ok(values) if factor != 1.0 => {
            Tensor::from_f32(tensor.shape(), values.iter().map(|v| v * factor).collect())
        }
        _ => tensor.clone(),
    }
}

/// Elements that are not finite, or below float16's normal range.
fn outside(tensor: &Tensor) -> u64 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    let lost = |v: &&f32| !v.is_finite() || v.abs() < SMALLEST_NORMAL;
    tensor.to_f32().map_or(0, |values| values.iter().filter(lost).count() as u64)
}

/// Relative L2 distance of a stored tensor from the truth.
fn distance(stored: &Tensor, scale: f32, truth: &Tensor) -> f64 {
    if truth.dtype() != DType::F32 {
        return f64::from(u8::from(stored.to_i64().ok() != truth.to_i64().ok()));
    }
    let (Ok(a), Ok(b)) = (stored.to_f32(), truth.to_f32()) else { return f64::INFINITY };
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (a, b) in a.iter().zip(b.iter()) {
        if !b.is_finite() {
            continue;
        }
        let (a, b) = (f64::from(a / scale), f64::from(*b));
        if !a.is_finite() {
            return f64::INFINITY;
        }
        difference += (a - b).powi(2);
        size += b * b;
    }
    if difference == 0.0 { 0.0 } else { (difference / size.max(f64::MIN_POSITIVE)).sqrt() }
}
