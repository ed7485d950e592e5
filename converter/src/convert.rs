use crate::ConvertError;
use crate::calibrate::{Sample, calibrate, unscaled};
use crate::compile::compile_models;
use crate::emit::write_onnx;
use crate::golden::{Recording, record_golden};
use crate::lora::{LoraFile, Loras};
use crate::options::{Optimise, Placement, Sandwich, Shards, Tile};
use crate::pack::PackWriter;
use crate::partition::{Segment, host_nodes, levels, partition};
use crate::passes::{
    Ranges, Scales, apply_scales, choose_scales, planes, shuffled_linears, split, split_heads,
    tile_attention, uniform_scales,
};
use crate::reference::Reference;
use crate::source::{Part, Source};
use crate::toolkit::Toolkit;
use rockshard_cost::{Boundary, Rk3588};
use rockshard_device::Device;
use rockshard_graph::{Graph, NodeId, ValueId};
use rockshard_import::{Options, import_model};
use rockshard_manifest::{
    Conversion, CoreId, Digest, Family, Generator, Manifest, Model, ModelledCost, Role, SCHEMA,
    SandwichRegion, Shard, TensorSpec,
};
use rockshard_tensor::{DType, MappedFile, Tensor};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Samples of noise that `--sandwich auto` calibrates on when none are given.
const NOISE_SAMPLES: usize = 2;

/// What to convert and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// A diffusers-style directory or an ONNX file.
    pub source: PathBuf,
    /// Directory of the pack; must not exist.
    pub out: PathBuf,
    /// Picture sizes `[width, height]`; the model's own when empty.
    pub resolutions: Vec<[u32; 2]>,
    /// Items a network takes at once.
    pub batch: usize,
    /// Scaling of values.
    pub sandwich: Sandwich,
    /// Lowering of attention.
    pub tile: Tile,
    /// Where to cut.
    pub shards: Shards,
    /// Which core each shard is pinned to.
    pub placement: Placement,
    /// What automatic choices aim at.
    pub optimise: Optimise,
    /// Calibration inputs by part name; a part without any is calibrated on seeded normal noise.
    pub calibration: HashMap<String, Vec<Sample>>,
    /// More files for the pack: path in it and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// LoRA files to fuse into the weights.
    pub loras: Vec<LoraFile>,
    /// Reference tensors to record at every boundary.
    pub golden: Option<Recording>,
    /// The vendor's toolkit, to compile the shards with.
    pub toolkit: Option<Toolkit>,
    /// Go on with an interrupted conversion.
    pub resume: bool,
}

/// What the converter is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A part is being read.
    Import(String),
    /// A part's ranges are being recorded.
    Calibrate(String),
    /// A shard was written: part, number done, number in all.
    Shard(String, usize, usize),
    /// A part's golden tensors are being recorded.
    Golden(String),
    /// A shard was compiled: part, number done, number in all.
    Compile(String, usize, usize),
}

/// Convert a model to a pack.
///
/// # Errors
/// See [`ConvertError`]; nothing is left at the target then.
pub fn convert(
    request: &Request,
    reference: &dyn Device,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, ConvertError> {
    check_options(request)?;
    let source = Source::open(&request.source, &request.resolutions, request.batch)?;
    let mut loras = Loras::open(&request.loras)?;
    if !request.loras.is_empty() {
        loras.check(source.parts.iter().map(|p| Ok((lora_part(request, p), import(p)?.1))))?;
    }
    let mut writer = PackWriter::start(&request.out, &recipe(request, &source)?, request.resume)?;
    let npu = Rk3588::default();
    let mut models = Vec::new();
    for part in &source.parts {
        progress(Progress::Import(part.name.clone()));
        let mut model =
            convert_part(request, part, &npu, &mut loras, reference, &mut writer, progress)?;
        if let Some(recording) = request.golden {
            progress(Progress::Golden(part.name.clone()));
            let mut samples = samples(request, part, &model.inputs, recording.steps);
            samples.truncate(recording.steps);
            record_golden(
                &mut model,
                &label(part),
                &samples,
                recording.dtype,
                reference,
                &mut writer,
            )?;
        }
        models.push(model);
    }
    if let Some(toolkit) = &request.toolkit {
        compile_models(toolkit, &mut models, &mut writer, progress)?;
    }
    if let Some(folder) = &source.tokenizer {
        let mut paths = entries(folder)?;
        paths.sort();
        for path in paths.iter().filter(|p| p.is_file()) {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            writer.add_bytes(
                &format!("tokenizer/{name}"),
                &std::fs::read(path).map_err(ConvertError::io(path))?,
            )?;
        }
    }
    for (name, contents) in &request.files {
        writer.add_bytes(name, contents)?;
    }
    writer.finish(Manifest {
        schema: SCHEMA,
        generator: Generator {
            name: "rockshard".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        target: "rk3588".into(),
        family: if source.diffusers { Family::TextToImage } else { Family::Network },
        conversion: Conversion {
            sandwich: request.sandwich.to_string(),
            tile: request.tile.to_string(),
            shards: request.shards.to_string(),
            placement: request.placement,
            optimise: request.optimise,
            loras: loras.finish(),
        },
        models,
        companions: Default::default(),
        files: Default::default(),
    })
}

/// Dividing every operator decides where the cuts are.
fn check_options(request: &Request) -> Result<(), ConvertError> {
    let other = match (request.shards, request.tile) {
        (Shards::Auto, Tile::Heads) => format!("--tile {}", Tile::Heads),
        (Shards::Auto, _) => return Ok(()),
        (shards, _) => format!("--shards {shards}"),
    };
    if request.placement == Placement::Split {
        Err(ConvertError::SplitWith { other })
    } else {
        Ok(())
    }
}

/// A part's name, with its resolution.
fn label(part: &Part) -> String {
    let resolution = part.resolution.map(|[w, h]| format!("-{w}x{h}")).unwrap_or_default();
    format!("{}{resolution}", part.name)
}

/// What a LoRA file may call a part; a file that stands alone takes what fits it.
fn lora_part<'a>(request: &Request, part: &'a Part) -> Option<&'a str> {
    request.source.is_dir().then_some(part.name.as_str())
}

/// The samples given for a part, or `count` of seeded noise.
fn samples(request: &Request, part: &Part, inputs: &[TensorSpec], count: usize) -> Vec<Sample> {
    request
        .calibration
        .get(&part.name)
        .cloned()
        .unwrap_or_else(|| crate::noise::samples(inputs, count))
}

/// What is in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    Ok(std::fs::read_dir(folder)
        .map_err(ConvertError::io(folder))?
        .filter_map(|e| Some(e.ok()?.path()))
        .collect())
}

/// Stands for everything the pack's contents depend on.
fn recipe(request: &Request, source: &Source) -> Result<Digest, ConvertError> {
    let mut text = format!(
        "{} {SCHEMA} {:?}",
        env!("CARGO_PKG_VERSION"),
        (request.sandwich, request.tile, request.shards, request.placement, request.optimise)
    );
    let mut files: Vec<PathBuf> = Vec::new();
    for part in &source.parts {
        text += &format!("{:?}{:?}", part.name, part.shapes);
        // The parent of a bare file name is the empty path.
        let folder = part.path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
        files.extend(entries(folder)?);
    }
    if let Some(folder) = &source.tokenizer {
        files.extend(entries(folder)?);
    }
    if let Some(toolkit) = &request.toolkit {
        text += &format!("{} {}", Toolkit::version(&toolkit.python)?, toolkit.verify);
    }
    text += &format!("{:?}", request.golden);
    for lora in &request.loras {
        files.push(lora.path.clone());
        text += &format!("{}", lora.scale);
    }
    for (name, contents) in &request.files {
        text += &format!("{name}{}", Digest::of(contents));
    }
    files.sort();
    files.dedup();
    for file in files.iter().filter(|f| f.is_file()) {
        let meta = file.metadata().map_err(ConvertError::io(file))?;
        text += &format!("{file:?} {} {:?}", meta.len(), meta.modified().ok());
    }
    let mut calibration: Vec<_> = request.calibration.iter().collect();
    calibration.sort_by_key(|(name, _)| name.as_str());
    for (name, samples) in calibration {
        let digests =
            samples.iter().flat_map(|s| s.values()).map(|t| Digest::of(t.bytes()).to_string());
        text += &format!("{name}{}", digests.collect::<String>());
    }
    Ok(Digest::of(text.as_bytes()))
}

fn convert_part(
    request: &Request,
    part: &Part,
    npu: &Rk3588,
    loras: &mut Loras,
    reference: &dyn Device,
    writer: &mut PackWriter,
    progress: &mut dyn FnMut(Progress),
) -> Result<Model, ConvertError> {
    let (model, mut graph) = import(part)?;
    let fused = loras.fuse(&mut graph, lora_part(request, part), &writer.scratch())?;
    let mut declined = rockshard_import::fuse(&mut graph, None).map_err(in_part(part))?.declined;
    shuffled_linears(&mut graph)?;
    let mut moved = Vec::new();
    if matches!(request.placement, Placement::Split | Placement::Replicate) {
        graph = planes(&graph, npu, &mut |weight| stored(&weight, &writer.scratch(), &mut moved))?;
    }
    let release = || {
        model.release_pages();
        fused.iter().chain(&moved).for_each(MappedFile::release_pages);
    };
    release();
    if request.tile == Tile::Heads {
        declined.extend(split_heads(&mut graph, usize::from(npu.cores))?);
    }
    let segments = if request.placement == Placement::Split {
        let divided = split(&graph, &host_nodes(&graph, &part.name)?, npu.cores)?;
        let segments = levels(&divided);
        declined.extend(divided.declined);
        graph = divided.graph;
        segments
    } else {
        partition(&graph, &part.name, request.shards, request.optimise, npu)?
    };
    let (scales, ranges) = match request.sandwich {
        Sandwich::Off => (Scales::default(), Ranges::new()),
        Sandwich::Factor(factor) => (uniform_scales(&graph, factor), Ranges::new()),
        Sandwich::Auto => {
            progress(Progress::Calibrate(part.name.clone()));
            let samples = samples(request, part, &unscaled(&graph, &graph.inputs), NOISE_SAMPLES);
            let reference =
                Reference { device: reference, npu, scratch: &writer.scratch(), release: &release };
            let ranges = calibrate(&graph, &part.name, &samples, &reference)?;
            (choose_scales(&graph, &ranges), ranges)
        }
    };
    declined.extend(scales.declined.iter().cloned());
    tracing::info!(
        part = part.name,
        shards = segments.len(),
        scaled = !scales.is_identity(),
        "cut"
    );
    let mut shards: Vec<Shard> = Vec::new();
    let mut boundaries: Vec<Boundary> = Vec::new();
    let mut load = [0.0f64; 3];
    let mut stage_of: HashMap<String, u32> = HashMap::new();
    let outside = Outside::of(&graph, &segments);
    for (i, segment) in segments.iter().enumerate() {
        let name = format!("{}-{i:02}-{}", label(part), segment.name);
        let original = graph.subgraph(&name, &segment.nodes, &outside.outputs[i]);
        check_weights(&original, part)?;
        let mut device =
            if segment.host { original.clone() } else { apply_scales(&original, &scales)? };
        let attention =
            if segment.host { Vec::new() } else { tile_attention(&mut device, request.tile, npu)? };
        if !segment.host
            && let Some(source) = npu.limits(&device).into_iter().next()
        {
            return Err(ConvertError::Limit { shard: name, source });
        }
        let (file, reference) = (format!("shards/{name}.onnx"), format!("reference/{name}.onnx"));
        writer.add(&file, |path| write_onnx(&device, path))?;
        writer.add(&reference, |path| write_onnx(&original, path))?;
        release();
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
            sandwich: if segment.host {
                Vec::new()
            } else {
                regions(&graph, segment, &scales, &ranges)
            },
            attention,
            golden: None,
            compiled: None,
        });
        progress(Progress::Shard(part.name.clone(), i + 1, segments.len()));
    }
    let mut model = Model {
        name: part.name.clone(),
        role: part.name.parse().unwrap_or(Role::Network),
        resolution: part.resolution,
        inputs: unscaled(&graph, &graph.inputs),
        outputs: unscaled(&graph, &graph.outputs),
        shards,
        declined,
        golden: None,
    };
    price_together(&mut model, &boundaries);
    Ok(model)
}

/// Take from the time of each shard what it costs alone to convert values that stay on the device in the pack.
fn price_together(model: &mut Model, boundaries: &[Boundary]) {
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

fn in_part(part: &Part) -> impl Fn(rockshard_import::ImportError) -> ConvertError {
    let (part, path) = (part.name.clone(), part.path.clone());
    move |source| ConvertError::Import { part: part.clone(), path: path.clone(), source }
}

/// The part's graph, and the model whose files hold its weights.
fn import(part: &Part) -> Result<(rockshard_onnx::Model, Graph), ConvertError> {
    let wrap = in_part(part);
    let model = rockshard_onnx::load(&part.path).map_err(|e| wrap(e.into()))?;
    let options = Options {
        shapes: part.shapes.iter().cloned().collect(),
        outputs: part.outputs.clone(),
        ..Options::default()
    };
    let graph = import_model(&model, &options).map_err(wrap)?;
    Ok((model, graph))
}

/// Keep a weight in a file of its own in `scratch` instead of in memory.
fn stored(
    weight: &Tensor,
    scratch: &Path,
    files: &mut Vec<MappedFile>,
) -> Result<Tensor, ConvertError> {
    let path = scratch.join(format!("weight-{}", files.len()));
    std::fs::write(&path, weight.bytes()).map_err(ConvertError::io(&path))?;
    let file = MappedFile::open(&path).map_err(ConvertError::io(&path))?;
    let tensor = Tensor::new(weight.dtype(), weight.shape().to_vec(), file.bytes().clone());
    files.push(file);
    tensor.map_err(ConvertError::tensor("weight"))
}

fn check_weights(graph: &Graph, part: &Part) -> Result<(), ConvertError> {
    let mut seen = BTreeSet::new();
    for node in graph.nodes() {
        for &id in node.inputs.iter().filter(|&&id| seen.insert(id)) {
            let nan = graph
                .constant(id)
                .and_then(|t| t.to_f32().ok())
                .is_some_and(|v| v.iter().any(|v| v.is_nan()));
            if nan {
                let weight = graph.value(id).name.clone();
                return Err(ConvertError::NanWeight {
                    part: part.name.clone(),
                    weight,
                    node: node.name.clone(),
                });
            }
        }
    }
    Ok(())
}

fn pin(placement: Placement, index: usize, load: &mut [f64; 3], micros: f64) -> CoreId {
    let core = match placement {
        Placement::RoundRobin => index % 3,
        Placement::Balanced => (0..3).min_by(|&a, &b| load[a].total_cmp(&load[b])).unwrap_or(0),
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
fn regions(
    graph: &Graph,
    segment: &Segment,
    scales: &Scales,
    ranges: &Ranges,
) -> Vec<SandwichRegion> {
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
        let range = ranges.get(&worst);
        found.push(SandwichRegion {
            nodes: [node.name.clone(), node.name.clone()],
            factor,
            worst_magnitude: range.map_or(0.0, |r| r.max),
            lost_before: range.map_or(0.0, |r| r.lost(1.0)),
            lost_after: range.map_or(0.0, |r| r.lost(factor)),
            worst_value: worst,
        });
    }
    found
}
