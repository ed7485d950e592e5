//! From segments of a graph to shards: rewritten, checked against the chip's limits, written, pinned to a core, and priced.

use crate::emit::write_rounded;
use crate::family::Part;
use crate::part::label;
use crate::partition::Segment;
use crate::passes::{Rewritten, rewrite_shard};
use crate::request::Teller;
use crate::rounding::{Rounding, rounded};
use crate::scaling::Scaling;
use crate::{ConvertError, ConvertProgress, ConvertRequest, PackWriter};
use rockshard_cost::Boundary;
use rockshard_graph::{Graph, NodeId, ValueId};
use rockshard_manifest::{
    CoreId, Model, ModelledCost, Placement, SandwichRegion, Shard, TensorSpec,
};
use rockshard_tensor::DType;
use std::collections::{HashMap, HashSet};

/// A part's graph, cut, with what was decided about its values.
pub(crate) struct Cut<'a> {
    pub request: &'a ConvertRequest,
    pub part: &'a Part,
    pub graph: &'a Graph,
    pub segments: &'a [Segment],
    pub scaling: &'a Scaling,
    /// Weights that float16 holds.
    pub rounding: &'a Rounding,
    /// Gives back the memory that reading weights took.
    pub release: &'a dyn Fn(),
}

/// Write the shards of a part; gives them with what crosses each boundary.
pub(crate) fn emit_shards(
    cut: &Cut,
    writer: &mut PackWriter,
    teller: &mut Teller,
) -> Result<(Vec<Shard>, Vec<Boundary>), ConvertError> {
    let &Cut { request, part, graph, segments, scaling, rounding, release } = cut;
    let scales = &scaling.scales;
    let npu = &request.chip;
    let mut shards: Vec<Shard> = Vec::new();
    let mut boundaries: Vec<Boundary> = Vec::new();
    let mut load = vec![0.0; usize::from(npu.cores)];
    let mut stage_of: HashMap<String, u32> = HashMap::new();
    let outside = Outside::of(graph, segments);
    for (i, segment) in segments.iter().enumerate() {
        let name = format!("{}-{i:02}-{}", label(part), segment.name);
        let original = graph.subgraph(&name, &segment.nodes, &outside.outputs[i]);
        let Rewritten { graph: device, attention } = if segment.host {
            Rewritten::unchanged(original.clone())
        } else {
            rewrite_shard(original.clone(), scales, request.tile, npu)?
        };
        if !segment.host
            && let Some(source) = npu.limits(&device).into_iter().next()
        {
            return Err(ConvertError::Limit { shard: name, source });
        }
        let (file, reference) = (format!("shards/{name}.onnx"), format!("reference/{name}.onnx"));
        let whole = HashSet::new();
        let narrow = match segment.host || request.wide_weights {
            true => whole.clone(),
            false => rounded(&device, rounding),
        };
        writer.add(&file, |path| write_rounded(&device, &narrow, path, release))?;
        writer.add(&reference, |path| write_rounded(&original, &whole, path, release))?;
        let cost = npu.graph(&device);
        boundaries.push(npu.boundary(&device));
        let micros = if segment.host { 0.0 } else { cost.micros };
        let number = shards.iter().filter(|s| s.core != CoreId::Host).count();
        let core = match segment.core {
            _ if segment.host => CoreId::Host,
            Some(core) => CoreId::Npu(core),
            None => pin(request.placement, number, &mut load, micros),
        };
        let spec = |graph: &Graph, id: ValueId| {
            let value = graph.value(id);
            // The host computes on unscaled values.
            let scale = if segment.host || value.dtype != DType::F32 {
                1.0
            } else {
                scales.of(&value.name)
            };
            TensorSpec {
                name: value.name.clone(),
                dtype: value.dtype,
                shape: value.shape.clone(),
                scale,
            }
        };
        let inputs: Vec<TensorSpec> = device.inputs.iter().map(|&v| spec(&device, v)).collect();
        let outputs: Vec<TensorSpec> = device.outputs.iter().map(|&v| spec(&device, v)).collect();
        let stage = inputs.iter().filter_map(|t| stage_of.get(&t.name)).max().map_or(0, |s| s + 1);
        stage_of.extend(outputs.iter().map(|t| (t.name.clone(), stage)));
        shards.push(Shard {
            name,
            file,
            reference,
            core,
            stage,
            inputs,
            outputs,
            operators: device.operators(),
            weight_bytes: device.weight_bytes(),
            modelled: ModelledCost { micros, internal_bytes: cost.internal_bytes },
            sandwich: if segment.host { Vec::new() } else { regions(graph, segment, scaling) },
            attention,
            golden: None,
            compiled: None,
        });
        teller.tell(ConvertProgress::Shard(part.name.clone(), i + 1, segments.len()))?;
    }
    Ok((shards, boundaries))
}

/// Take from the time of each shard what it costs alone to convert values that stay on the device in the pack.
pub(crate) fn price_together(model: &mut Model, boundaries: &[Boundary]) {
    let stays = model.stays();
    let saved = |(shard, boundary): (&Shard, &Boundary)| match shard.core {
        CoreId::Host => 0.0,
        CoreId::Npu(_) => {
            boundary.cost().micros
                - boundary.cost_beside(&stays(&shard.inputs), &stays(&shard.outputs)).micros
        }
    };
    let saved: Vec<f64> = model.shards.iter().zip(boundaries).map(saved).collect();
    drop(stays);
    model.shards.iter_mut().zip(saved).for_each(|(shard, micros)| shard.modelled.micros -= micros);
}

/// The core of the shard of this number, among the cores whose load is given.
fn pin(placement: Placement, index: usize, load: &mut [f64], micros: f64) -> CoreId {
    let core = match placement {
        Placement::RoundRobin => index % load.len(),
        Placement::Balanced => {
            (0..load.len()).min_by(|&a, &b| load[a].total_cmp(&load[b])).unwrap_or(0)
        }
        Placement::Replicate | Placement::Split => 0,
    };
    load[core] += micros;
    CoreId::Npu(core as u8)
}

/// For each segment, the values it makes that something outside it needs.
struct Outside {
    outputs: Vec<Vec<ValueId>>,
}

impl Outside {
    fn of(graph: &Graph, segments: &[Segment]) -> Self {
        let mut home: HashMap<NodeId, usize> = HashMap::new();
        for (i, segment) in segments.iter().enumerate() {
            home.extend(segment.nodes.iter().map(|&n| (n, i)));
        }
        let links = graph.links();
        let needed = |i: usize, value: ValueId| {
            links.is_output(value) || links.users(value).iter().any(|u| home.get(u) != Some(&i))
        };
        let made = |s: &Segment| s.nodes.iter().map(|&n| graph.node(n).output).collect::<Vec<_>>();
        let outputs = segments
            .iter()
            .enumerate()
            .map(|(i, s)| made(s).into_iter().filter(|&v| needed(i, v)).collect());
        Outside { outputs: outputs.collect() }
    }
}

/// The scaled classes of values that a segment touches.
fn regions(graph: &Graph, segment: &Segment, scaling: &Scaling) -> Vec<SandwichRegion> {
    let Scaling { scales, ranges, lost, .. } = scaling;
    let mut found: Vec<SandwichRegion> = Vec::new();
    for &id in &segment.nodes {
        let node = graph.node(id);
        let name = &graph.value(node.output).name;
        let factor = scales.of(name);
        if factor == 1.0 {
            continue;
        }
        let worst = scales.worst(name).unwrap_or(name).to_owned();
        if let Some(region) =
            found.iter_mut().find(|r| r.worst_value == worst && r.factor == factor)
        {
            region.nodes[1].clone_from(&node.name);
            continue;
        }
        let [lost_before, lost_after] = lost.get(&worst).copied().unwrap_or_default();
        found.push(SandwichRegion {
            nodes: [node.name.clone(), node.name.clone()],
            factor,
            worst_magnitude: ranges.get(&worst).map_or(0.0, |r| r.max),
            lost_before,
            lost_after,
            worst_value: worst,
        });
    }
    found
}
