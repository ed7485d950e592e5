//! `--sandwich auto`: factors are chosen by the calibrated ranges, tried on the simulator, and kept only where they do no harm.

use crate::ConvertError;
use crate::calibrate::{Sample, calibrate, unscaled};
use crate::family::Part;
use crate::measure::{Bench, Engines, Measured};
use crate::options::Sandwich;
use crate::passes::{Ranges, Scales, choose_scales, moderate_scales, uniform_scales};
use crate::reference::{BUDGET, Reference, pieces};
use crate::request::Calibrating;
use crate::trial::{Weights, stays_within};
use crate::{ConvertRequest, noise};
use rockshard_graph::{Binary, Graph, Op, ValueId};
use rockshard_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Samples of noise that an automatic sandwich calibrates on when none are given, and those that tell whether it has to.
const NOISE_SAMPLES: usize = 2;
const TRIAL_SAMPLES: usize = 1;
/// Share of a value's elements that a warning is worth.
const WORTH_SAYING: f32 = 0.01;
/// float16's largest number.
const LARGEST: f32 = 65504.0;
/// Values that are named in a warning.
const NAMED: usize = 3;

/// The factors of a part's values, and what they were chosen by.
#[derive(Default)]
pub(crate) struct Scaling {
    pub scales: Scales,
    pub ranges: Ranges,
    /// Shares of elements lost without and with scaling, by the value that decided a class.
    pub lost: HashMap<String, [f32; 2]>,
    /// Why nothing has to be scaled, where that is known.
    pub unneeded: Option<String>,
    /// What could not be helped, a line each.
    pub declined: Vec<String>,
}

/// What a part is scaled with.
pub(crate) struct Context<'a> {
    pub request: &'a ConvertRequest,
    pub part: &'a Part,
    pub engines: Engines<'a>,
    /// Weights that float16 cannot hold, with their largest magnitude.
    pub large: &'a HashMap<ValueId, f32>,
    /// The weights as the part's file, with what was fused into it, names them.
    pub weights: &'a Weights,
    pub scratch: &'a Path,
    pub release: &'a dyn Fn(),
    /// Hears what is run, and of each piece before it runs.
    pub tell: &'a dyn Fn(Calibrating, usize, usize) -> Result<(), ConvertError>,
}

impl Context<'_> {
    /// Decide the factors.
    ///
    /// # Errors
    /// Samples that were given do not fit, the reference fails on them, or scratch files cannot be written.
    pub fn scaling(&self, graph: &Graph) -> Result<Scaling, ConvertError> {
        let mut scaling = match self.request.sandwich {
            Sandwich::Off => Scaling::default(),
            Sandwich::Factor(factor) => {
                Scaling { scales: uniform_scales(graph, factor), ..Scaling::default() }
            }
            Sandwich::Auto => self.automatic(graph)?,
        };
        scaling.declined.extend(self.too_large(graph, &scaling.scales));
        Ok(scaling)
    }

    /// Weights that are beyond float16 as they are stored, which the NPU cannot run.
    fn too_large(&self, graph: &Graph, scales: &Scales) -> Vec<String> {
        let scale = |v: ValueId| scales.of(&graph.value(v).name);
        let mut lines = Vec::new();
        for node in graph.nodes() {
            for (weight, most) in node.inputs.iter().filter_map(|v| Some((v, self.large.get(v)?))) {
                let flowing = node.inputs.iter().filter(|v| graph.constant(**v).is_none());
                let given: f32 = flowing.map(|&v| scale(v)).product();
                let factor = match node.op {
                    Op::Binary(Binary::Add | Binary::Sub) => scale(node.output),
                    _ => scale(node.output) / given,
                };
                if most * factor > LARGEST {
                    lines.push(format!(
                        "sandwich: node {:?} ({}): its weight {:?} reaches {most:.1e}, which float16 cannot hold: the NPU cannot run it",
                        node.name,
                        node.op.name(),
                        graph.value(*weight).name
                    ));
                }
            }
        }
        lines
    }

    fn automatic(&self, graph: &Graph) -> Result<Scaling, ConvertError> {
        let given = self.request.calibration.get(&self.part.name);
        if given.is_none() && self.large.is_empty() && self.needs_none()? {
            let why = "sandwich: not needed: on noise every value stays within float16".into();
            return Ok(Scaling { unneeded: Some(why), ..Scaling::default() });
        }
        let samples = match given {
            Some(samples) => samples.clone(),
            None => noise::samples(graph, &unscaled(graph, &graph.inputs), NOISE_SAMPLES),
        };
        let mut truth: HashMap<String, Vec<Tensor>> = HashMap::new();
        let ranges = match self.calibrated(graph, &samples, &mut truth) {
            Ok(ranges) => ranges,
            // Noise is not what every model takes.
            Err(ConvertError::Reference(error)) if given.is_none() => {
                let why = format!(
                    "sandwich: not calibrated, as noise is no input for this model: {error}"
                );
                return Ok(Scaling { declined: vec![why], ..Scaling::default() });
            }
            Err(error) => return Err(error),
        };
        let mut scales = choose_scales(graph, &ranges, self.large);
        for piece in pieces(graph, graph.node_ids(), BUDGET) {
            let made: Vec<_> = piece.iter().map(|&n| graph.node(n).output).collect();
            moderate_scales(&graph.subgraph("piece", &piece, &made), &mut scales);
        }
        let bench = Bench {
            engines: self.engines,
            graph,
            part: &self.part.name,
            samples: &samples,
            truth: &truth,
            ranges: &ranges,
            scratch: self.scratch,
            release: self.release,
            pieces: &|done, total| (self.tell)(Calibrating::Simulator, done, total),
        };
        let mut scaling = chosen(&bench, scales)?;
        scaling.declined.extend(beyond_float16(graph, &scaling.scales, &ranges));
        scaling.ranges = ranges;
        Ok(scaling)
    }

    /// Whether it is known that every value can be stored as it is.
    fn needs_none(&self) -> Result<bool, ConvertError> {
        if !self.large.is_empty() {
            return Ok(false);
        }
        let &Context { part, weights, engines, release, tell, .. } = self;
        let nodes = &|done, total| tell(Calibrating::SmallPicture, done, total);
        let reference = engines.reference;
        let within = stays_within(part, weights, reference, TRIAL_SAMPLES, release, nodes)?;
        tracing::info!(part = part.name, within, "values within float16 on a small picture");
        Ok(within == Some(true))
    }

    fn calibrated(
        &self,
        graph: &Graph,
        samples: &[Sample],
        truth: &mut HashMap<String, Vec<Tensor>>,
    ) -> Result<Ranges, ConvertError> {
        let reference = Reference {
            device: self.engines.reference,
            npu: &self.request.chip,
            scratch: self.scratch,
            release: self.release,
            pieces: &|done, total| (self.tell)(Calibrating::Reference, done, total),
        };
        calibrate(graph, &self.part.name, samples, &reference, truth)
    }
}

/// Of the factors, those scaled down alone, and none: what the simulator measures as nearest to the reference.
fn chosen(bench: &Bench, mut scales: Scales) -> Result<Scaling, ConvertError> {
    let mut declined = std::mem::take(&mut scales.declined);
    if scales.is_identity() {
        let why =
            "sandwich: not needed: on the calibration inputs every value stays within float16";
        let unneeded = declined.is_empty().then(|| why.to_owned());
        return Ok(Scaling { unneeded, declined, ..Scaling::default() });
    }
    let watched: HashSet<String> = scales.classes().keys().map(|&w| w.to_owned()).collect();
    // What cannot run at all is as far off as can be.
    let helpless = || Measured { error: f64::INFINITY, ..Measured::default() };
    let off = bench.measure(&Scales::default(), &watched)?.unwrap_or_else(helpless);
    let mut best: Option<(Scales, Measured)> = None;
    let down = scales.only(&|_, factor| factor < 1.0);
    let differs = down.classes().len() < scales.classes().len() && !down.is_identity();
    let tried = [Some(scales), differs.then_some(down)];
    for scales in tried.into_iter().flatten() {
        if let Some(measured) = bench.measure(&scales, &watched)?
            && best.as_ref().is_none_or(|(_, b)| measured.error < b.error)
        {
            let helped = measured.error <= off.error;
            best = Some((scales, measured));
            if helped {
                break;
            }
        }
    }
    let Some((scales, auto)) = best else {
        declined.push(
            "sandwich: not scaled, as the simulator cannot run the model to measure it".into(),
        );
        return Ok(Scaling { declined, ..Scaling::default() });
    };
    if auto.error > off.error {
        declined.push(format!(
            "sandwich: not scaled, as it measured no better: outputs off by {:.1e} with it, {:.1e} without",
            auto.error, off.error
        ));
        return Ok(Scaling { declined, ..Scaling::default() });
    }
    let mut lost = HashMap::new();
    for worst in scales.classes().keys().map(|&w| w.to_owned()) {
        let of = |m: &Measured| m.lost.get(&worst).copied().unwrap_or(0.0);
        let shares = [of(&off), of(&auto)];
        if shares[1] > WORTH_SAYING {
            declined.push(format!(
                "sandwich: {worst}: times {}, {:.1} % of its elements are still lost to float16 ({:.1} % without)",
                scales.of(&worst),
                shares[1] * 100.0,
                shares[0] * 100.0
            ));
        }
        lost.insert(worst, shares);
    }
    Ok(Scaling { scales, lost, declined, ..Scaling::default() })
}

/// Values that overflow float16 on the calibration inputs as they are stored.
fn beyond_float16(graph: &Graph, scales: &Scales, ranges: &Ranges) -> Vec<String> {
    let over = |node: &&rockshard_graph::Node| {
        let name = &graph.value(node.output).name;
        ranges.get(name).is_some_and(|r| r.max * scales.of(name) > LARGEST)
    };
    let mut nodes = graph.nodes().iter().filter(over);
    let mut lines: Vec<String> = nodes
        .by_ref()
        .take(NAMED)
        .map(|node| {
            let name = &graph.value(node.output).name;
            format!(
                "sandwich: {}: node {:?} ({}) overflows float16: up to {:.1e} stored times {}",
                name,
                node.name,
                node.op.name(),
                ranges[name].max,
                scales.of(name)
            )
        })
        .collect();
    match nodes.count() {
        0 => {}
        more => lines.push(format!("sandwich: {more} more values overflow float16")),
    }
    lines
}
