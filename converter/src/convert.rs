//! The conversion from end to end. A part goes through named steps, each a function: import, passes, cut, scales, emit, price.

use crate::calibrate::{Sample, unscaled};
use crate::compile::compile_models;
use crate::family::{CompanionFile, Part, Piece, Source};
use crate::golden::record_golden;
use crate::language::{convert_language, record_logits};
use crate::lora::Loras;
use crate::measure::Engines;
use crate::options::{Placement, Shards, Tile};
use crate::original::check_read;
use crate::part::{
    Checked, Imported, check_weights, import, in_part, label, store_computed, stored,
};
use crate::partition::{Segment, partition, why_whole};
use crate::passes::{PartContext, rewrite_part};
use crate::recipe::recipe;
use crate::reference::Reference;
use crate::request::Teller;
use crate::shards::{Cut, emit_shards, price_together};
use crate::{ConvertError, ConvertProgress, ConvertRequest, PackWriter, scaling, trial};
use rockshard_cost::Rk3588;
use rockshard_graph::{Graph, ValueId};
use rockshard_manifest::{
    Companion, Conversion, Generator, ImportCheck, LanguageConversion, Manifest, Model, SCHEMA,
};
use rockshard_tensor::{MappedFile, Tensor};
use rockshard_vlm::DECODER_FILE;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Convert a model to a pack. `progress` is told of every stage and stops the conversion by breaking.
///
/// # Errors
/// See [`ConvertError`]; nothing is left at the target then. What was done until [`ConvertError::Stopped`] is kept beside it, for
/// [`ConvertRequest::resume`].
pub fn convert(
    request: &ConvertRequest,
    engines: Engines,
    progress: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
) -> Result<Manifest, ConvertError> {
    check_options(request)?;
    let mut source = Source::open(&request.source, &request.resolutions, request.batch)?;
    source.fix(&request.fixed)?;
    if request.precompute_kv {
        source.precompute_keys_values(&request.source)?;
    }
    let mut loras = Loras::open(&request.loras)?;
    if !request.loras.is_empty() {
        loras.check(
            source
                .parts
                .iter()
                .map(|p| Ok((lora_part(request, p), import(p, Some(engines.reference))?.graph))),
        )?;
    }
    crate::sizes::check(request, &source, engines.reference)?;
    let mut writer = PackWriter::start(&request.out, &recipe(request, &source)?, request.resume)?;
    let mut teller = Teller(progress);
    let models = convert_parts(request, &source, &mut loras, engines, &mut writer, &mut teller);
    if matches!(models, Err(ConvertError::Stopped)) {
        writer.keep_remains();
    }
    let models = models?;
    let language = add_language(request, &mut source, &mut writer, &mut teller)?;
    let companions = add_companions(request, &source, &mut writer)?;
    writer.finish(Manifest {
        schema: SCHEMA,
        generator: Generator {
            name: "rockshard".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        target: "rk3588".into(),
        family: source.family,
        conversion: Conversion {
            sandwich: request.sandwich.to_string(),
            tile: request.tile.to_string(),
            shards: request.shards.to_string(),
            placement: request.placement,
            optimise: request.optimise,
            loras: loras.finish(),
            language,
        },
        models,
        companions,
        files: Default::default(),
    })
}

/// Dividing every operator decides where the cuts are, and packs name the cores of an RK3588.
fn check_options(request: &ConvertRequest) -> Result<(), ConvertError> {
    let cores = request.chip.cores;
    if !(1..=Rk3588::default().cores).contains(&cores) {
        return Err(ConvertError::Cores { cores });
    }
    let other = match (request.shards, request.tile) {
        (Shards::Auto, Tile::Heads) => format!("tile {}", Tile::Heads),
        (Shards::Auto, _) => return Ok(()),
        (shards, _) => format!("shards {shards}"),
    };
    if request.placement == Placement::Split {
        Err(ConvertError::SplitWith { other })
    } else {
        Ok(())
    }
}

/// What a LoRA file may call a part; a file that stands alone takes what fits it.
fn lora_part<'a>(request: &ConvertRequest, part: &'a Part) -> Option<&'a str> {
    request.source.is_dir().then_some(part.in_source())
}

/// The samples given for a part, or `count` of seeded noise.
fn samples(request: &ConvertRequest, part: &Part, graph: &Graph, count: usize) -> Vec<Sample> {
    let given = request.calibration.get(&part.name).cloned();
    let inputs = unscaled(graph, &graph.inputs);
    given.unwrap_or_else(|| crate::noise::samples(graph, &inputs, count))
}

/// All parts as models, with what was asked for besides: golden tensors, compiled shards.
fn convert_parts(
    request: &ConvertRequest,
    source: &Source,
    loras: &mut Loras,
    engines: Engines,
    writer: &mut PackWriter,
    teller: &mut Teller,
) -> Result<Vec<Model>, ConvertError> {
    let mut models = Vec::new();
    for part in &source.parts {
        teller.tell(ConvertProgress::Import(part.name.clone()))?;
        let (mut model, read) = convert_part(request, part, loras, engines, writer, teller)?;
        if let Some(recording) = request.golden {
            let mut samples = samples(request, part, &read.graph, recording.steps);
            samples.truncate(recording.steps);
            let (label, dtype) = (label(part), recording.dtype);
            record_golden(&mut model, &label, &samples, dtype, engines.reference, writer, teller)?;
        }
        if request.check {
            model.import = Some(checked(request, part, &read, engines, writer, teller)?);
        }
        models.push(model);
    }
    if let Some(toolkit) = &request.toolkit {
        compile_models(toolkit, &mut models, writer, teller)?;
    }
    Ok(models)
}

/// The original file, repaired where it was, against the imported graph, on one sample.
fn checked(
    request: &ConvertRequest,
    part: &Part,
    read: &Imported,
    engines: Engines,
    writer: &PackWriter,
    teller: &mut Teller,
) -> Result<ImportCheck, ConvertError> {
    let graph = &read.graph;
    if part.piece != Piece::Whole {
        let reason = "it is a piece of its file; a pack with the whole U-Net can be checked".into();
        return Ok(ImportCheck::Unchecked { reason });
    }
    let mut samples = samples(request, part, graph, 1);
    samples.truncate(1);
    let Some(sample) = samples.first() else {
        return Ok(ImportCheck::Unchecked { reason: "there are no inputs to run it on".into() });
    };
    let teller = RefCell::new(teller);
    let check = |done, total| ConvertProgress::Check(part.name.clone(), done, total);
    let reference = Reference {
        device: engines.reference,
        npu: &request.chip,
        scratch: &writer.scratch(),
        release: &|| (),
        pieces: &|done, total| teller.borrow_mut().tell(check(done, total)),
    };
    let named = |v: &ValueId| graph.value(*v).name.clone();
    let outputs: BTreeSet<String> = graph.outputs.iter().map(named).collect();
    let mut found: BTreeMap<String, Tensor> = BTreeMap::new();
    let ran = reference.run(graph, &part.name, &samples, &mut |name, tensor| {
        if outputs.contains(name) {
            found.insert(name.to_owned(), tensor.clone());
        }
    });
    match ran {
        Ok(()) => Ok(check_read(engines.reference, read, sample, &found)),
        Err(ConvertError::Reference(e)) => Ok(ImportCheck::Unchecked { reason: e.to_string() }),
        Err(other) => Err(other),
    }
}

/// The language model, packed; its exported files stay among the companions only where it cannot be.
fn add_language(
    request: &ConvertRequest,
    source: &mut Source,
    writer: &mut PackWriter,
    teller: &mut Teller,
) -> Result<Option<LanguageConversion>, ConvertError> {
    let Some(language) = source.language.take() else { return Ok(None) };
    teller.tell(ConvertProgress::Language)?;
    if request.golden.is_some() {
        record_logits(&language, &request.source, writer)?;
    }
    let companion = Companion::LanguageModel;
    let mut add = |name: &str, path: PathBuf| {
        let name = format!("{companion}/{name}");
        source.companions.push(CompanionFile { companion, name, path });
    };
    let written = writer.scratch().join(DECODER_FILE);
    let bits = request.language_weights;
    let outcome = convert_language(&language.export, &language.config, bits, &written)?;
    match outcome {
        LanguageConversion::Decoder { .. } => add(DECODER_FILE, written),
        LanguageConversion::Exported { .. } => {
            for path in language.export.files() {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                add(name, path.clone());
            }
        }
    }
    Ok(Some(outcome))
}

/// Files of the source and of the caller that go along, by what they are for.
fn add_companions(
    request: &ConvertRequest,
    source: &Source,
    writer: &mut PackWriter,
) -> Result<BTreeMap<Companion, Vec<String>>, ConvertError> {
    let mut added: BTreeMap<Companion, Vec<String>> = BTreeMap::new();
    for file in &source.companions {
        writer.add(&file.name, |to| std::fs::copy(&file.path, to).map(drop))?;
        added.entry(file.companion).or_default().push(file.name.clone());
    }
    for (companion, name, contents) in &request.companions {
        writer.add_bytes(name, contents)?;
        added.entry(*companion).or_default().push(name.clone());
    }
    Ok(added)
}

/// One network, from its file to shards in the pack; with what was read, rewritten.
fn convert_part(
    request: &ConvertRequest,
    part: &Part,
    loras: &mut Loras,
    engines: Engines,
    writer: &mut PackWriter,
    teller: &mut Teller,
) -> Result<(Model, Imported), ConvertError> {
    let read = import(part, Some(engines.reference))?;
    let notes = read.lines(part);
    let Imported { model: file, mut graph, notes: noted } = read;
    let fused = loras.fuse(&mut graph, lora_part(request, part), &writer.scratch())?;
    let scratch = writer.scratch();
    let mut moved = Vec::new();
    store_computed(&mut graph, &file, &scratch, &mut moved)?;
    let weights = trial::weights(&graph);
    let mut context = PartContext {
        part: &part.name,
        chip: &request.chip,
        placement: request.placement,
        tile: request.tile,
        store: &mut |weight| stored(&weight, &scratch, &mut moved),
        import_failed: &in_part(part),
        segments: None,
        unchanged_us: None,
    };
    let (graph, log) = rewrite_part(graph, &mut context)?;
    let unchanged_us = context.unchanged_us;
    let divided = context.segments.take();
    let automatic = request.shards == Shards::Auto && divided.is_none();
    let segments = cut(request, part, &graph, divided)?;
    let release = || {
        file.release_pages();
        fused.iter().chain(&moved).for_each(MappedFile::release_pages);
    };
    let Checked { rounding, large } = check_weights(&graph, part, &file, &release)?;
    let shared = RefCell::new(&mut *teller);
    let calibrate =
        |on, done, total| ConvertProgress::Calibrate(part.name.clone(), on, done, total);
    let context = scaling::Context {
        request,
        part,
        engines,
        large: &large,
        weights: &weights,
        scratch: &scratch,
        release: &release,
        tell: &|on, done, total| shared.borrow_mut().tell(calibrate(on, done, total)),
    };
    let scaling = context.scaling(&graph)?;
    let (mut passes, mut declined) = (log.edits, log.declined);
    passes.extend(scaling.unneeded.iter().cloned());
    if automatic && segments.iter().filter(|s| !s.host).count() == 1 {
        passes.extend(why_whole(&graph, request.optimise, &request.chip));
    }
    declined.extend(scaling.declined.iter().cloned());
    let scaled = !scaling.scales.is_identity();
    tracing::info!(part = part.name, shards = segments.len(), scaled, "cut");
    let cut = Cut {
        request,
        part,
        graph: &graph,
        segments: &segments,
        scaling: &scaling,
        rounding: &rounding,
        release: &release,
    };
    let (shards, boundaries) = emit_shards(&cut, writer, teller)?;
    let mut model = Model {
        name: part.name.clone(),
        role: part.role,
        resolution: part.resolution,
        inputs: unscaled(&graph, &graph.inputs),
        outputs: unscaled(&graph, &graph.outputs),
        shards,
        notes,
        passes,
        declined,
        golden: None,
        import: None,
        unchanged_us,
    };
    price_together(&mut model, &boundaries);
    Ok((model, Imported { model: file, graph, notes: noted }))
}

/// Where the graph is cut, unless a pass has divided it.
fn cut(
    request: &ConvertRequest,
    part: &Part,
    graph: &Graph,
    divided: Option<Vec<Segment>>,
) -> Result<Vec<Segment>, ConvertError> {
    match divided {
        Some(segments) => Ok(segments),
        None => partition(graph, &part.name, request.shards, request.optimise, &request.chip),
    }
}
