//! Remedies for layers that differ from the reference: what is likely wrong with each, and what to type.

use crate::text::fold;
use rockshard::{
    Feeding, LanguageConversion, LayerReport, Metrics, ModelReport, NextStep, Pack, Remedy, Report,
    TensorReport, Verdict,
};

/// The threshold where none is asked for: what rounding to float16 leaves of a right layer.
const USUAL_THRESHOLD: f64 = 0.999;
/// Share of values that is more than a few that happen to be small.
const MANY: f64 = 0.01;
/// Cosine below which a layer computes something else, rather than the same less exactly.
const ANOTHER: f64 = 0.9;

/// What a layer suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The device did not run it.
    NotRun,
    /// Values are infinite, or not a number.
    Overflow,
    /// Many values are too small for float16.
    Underflow,
    /// It is right by itself, and was given what earlier layers made wrong.
    Inherited,
    /// It differs by no more than is usual.
    Rounding,
    /// It differs by more than rounding explains at once.
    Inexact,
    /// It computes something else.
    Another,
}

/// What to do about all that fails.
pub fn next_steps(pack: &Pack, path: &str, report: &Report) -> Vec<NextStep> {
    let mut steps = Vec::new();
    for model in &report.models {
        if let Verdict::Fail { reason } = &model.import {
            steps.push(misread(&model.model, reason, path));
        }
        let mut causes: Vec<(Cause, Vec<String>)> = Vec::new();
        for layer in model.layers.iter().filter(|l| l.verdict.is_fail()) {
            let cause = cause(layer, report.threshold);
            match causes.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, layers)) => layers.push(layer.name.clone()),
                None => causes.push((cause, vec![layer.name.clone()])),
            }
        }
        steps.extend(causes.into_iter().map(|(cause, layers)| {
            let (likely, remedies) = remedies(cause, pack, path, model, report.threshold);
            NextStep { model: model.model.clone(), layers, likely, remedies }
        }));
    }
    if report.language.as_ref().is_some_and(|l| l.verdict.is_fail()) {
        steps.push(language(pack, path));
    }
    steps
}

/// The steps as lines of text: of which layers, what is likely, and what to do. Steps that are the same for several models are one.
pub fn lines(steps: &[NextStep]) -> Vec<String> {
    let same = |a: &NextStep, b: &NextStep| a.likely == b.likely && a.remedies == b.remedies;
    let mut lines = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if steps[..at].iter().any(|earlier| same(earlier, step)) {
            continue;
        }
        let about: Vec<String> =
            steps[at..].iter().filter(|other| same(other, step)).map(about).collect();
        lines.push(fold(&format!("{}: {}", about.join(", "), step.likely)));
        for remedy in &step.remedies {
            lines.push(fold(&format!("  try next: {}", remedy.what)));
            lines.extend(remedy.command.iter().map(|command| format!("    {command}")));
        }
    }
    lines
}

/// The first of a step's layers, and how many more there are.
fn about(step: &NextStep) -> String {
    match &step.layers[..] {
        [] => step.model.clone(),
        [layer] => layer.clone(),
        [first, rest @ ..] => format!("{first} and {} more of {}", rest.len(), step.model),
    }
}

fn cause(layer: &LayerReport, threshold: f64) -> Cause {
    let (alone, all) = (layer.worst(Feeding::TeacherForced), layer.worst(Feeding::Cumulative));
    let Some((_, own)) = alone.or(all) else { return Cause::NotRun };
    let worst = all.map_or(own.agreement(), |(_, all)| all.agreement().min(own.agreement()));
    let real = || {
        let of = |t: &TensorReport| match t.teacher_forced {
            Some(Metrics::Real(m)) => Some(m),
            _ => None,
        };
        layer.tensors.iter().filter_map(of)
    };
    if real().any(|m| m.non_finite > 0.0) {
        Cause::Overflow
    } else if worst >= USUAL_THRESHOLD {
        Cause::Rounding
    } else if own.passes(threshold) {
        Cause::Inherited
    } else if real().any(|m| m.flushed + m.subnormal >= MANY) {
        Cause::Underflow
    } else if own.agreement() < ANOTHER {
        Cause::Another
    } else {
        Cause::Inexact
    }
}

fn do_this(what: &str, command: String) -> Remedy {
    Remedy { what: what.into(), command: Some(command) }
}

/// What is likely, and what to do about it.
fn remedies(
    cause: Cause,
    pack: &Pack,
    path: &str,
    model: &ModelReport,
    threshold: f64,
) -> (String, Vec<Remedy>) {
    let (typed, new) = (super::word(path), super::beside(path, "new"));
    let convert = |options: &str| format!("rockshard convert MODEL --out {new} {options}");
    let why = || {
        do_this(
            "see what the passes did to its layers, and why",
            format!("rockshard inspect {typed} --why"),
        )
    };
    let name = super::word(&model.model);
    match cause {
        Cause::NotRun => (
            "the device did not run it: too large for it, or an operator that it has not".into(),
            vec![
                do_this(
                    "convert again into smaller shards and tiles",
                    convert("--shards block --tile rows:256"),
                ),
                do_this("see what this machine has", format!("rockshard doctor --pack {typed}")),
            ],
        ),
        Cause::Overflow => (
            "values leave float16's range".into(),
            vec![scaling(pack, model, convert), why()],
        ),
        Cause::Underflow => (
            "many values are too small for float16".into(),
            vec![scaling(pack, model, convert), why()],
        ),
        Cause::Inherited => (
            "right by itself; errors of earlier layers add up".into(),
            vec![
                Remedy {
                    what: "see to layers that fail by themselves first, then to the largest errors before this one"
                        .into(),
                    command: None,
                },
                why(),
            ],
        ),
        Cause::Rounding => (
            format!(
                "float16's rounding: it is within {USUAL_THRESHOLD}, which is usual, and {threshold} was asked for"
            ),
            vec![usual(&typed)],
        ),
        Cause::Inexact => (
            "long sums or large differences lose digits in float16".into(),
            vec![
                do_this("convert again without tiles, which sum in other orders", convert("--tile off")),
                scaling(pack, model, convert),
            ],
        ),
        Cause::Another => (
            "it computes something else, and so may be a defect of a rewrite".into(),
            vec![
                do_this(
                    "convert without rewrites, and compare",
                    convert("--sandwich off --tile off --shards block"),
                ),
                do_this(
                    "run the rewritten shards in float32; what is still wrong there is the rewrite's",
                    format!("rockshard run {typed} --model {name} --device cpu --rewritten --input INPUT=FILE.npy --out rewritten"),
                ),
            ],
        ),
    }
}

fn usual(pack: &str) -> Remedy {
    do_this("judge by the usual threshold", format!("rockshard validate {pack} --threshold 0.999"))
}

/// Scale by real inputs, or at all.
fn scaling(pack: &Pack, model: &ModelReport, convert: impl Fn(&str) -> String) -> Remedy {
    let manifest = pack.manifest();
    let found = manifest.models.iter().find(|m| m.name == model.model);
    let declined = found.and_then(|m| m.declined.iter().find_map(|l| l.strip_prefix("sandwich: ")));
    let input = found.and_then(|m| m.inputs.first()).map_or("INPUT", |i| i.name.as_str());
    let calibrated = format!("--calibrate {}.{}=FILE.npy", model.model, super::word(input));
    match (manifest.conversion.sandwich.as_str(), declined) {
        ("auto", Some(line)) => do_this(
            &format!("give real inputs, or leave the node to the host ({line})"),
            convert(&calibrated),
        ),
        ("auto", None) => {
            do_this("convert again, calibrated on inputs that fail here", convert(&calibrated))
        }
        _ => do_this(
            "convert again with values scaled to fit float16",
            convert(&format!("--sandwich auto {calibrated}")),
        ),
    }
}

fn misread(model: &str, reason: &str, path: &str) -> NextStep {
    NextStep {
        model: model.into(),
        layers: Vec::new(),
        likely: format!("the model was read wrong: {reason}"),
        remedies: vec![do_this(
            "narrow it down to a node, by its output, and report it",
            format!(
                "rockshard convert MODEL --out {} --check --output VALUE",
                super::beside(path, "check")
            ),
        )],
    }
}

fn language(pack: &Pack, path: &str) -> NextStep {
    let bits = match pack.manifest().conversion.language {
        Some(LanguageConversion::Decoder { bits, .. }) => bits,
        _ => 32,
    };
    let new = super::beside(path, "new");
    let (likely, remedy) = if bits < 32 {
        (
            format!("{bits} bits are too few for the language model's weights"),
            do_this(
                "convert again with the weights as they came",
                format!("rockshard convert MODEL --out {new} --golden --lm-weights 32"),
            ),
        )
    } else {
        (
            "the features that the language model was given differ, or its recorded logits are of another model".into(),
            do_this(
                "record its logits again",
                format!("rockshard convert MODEL --out {new} --golden"),
            ),
        )
    };
    NextStep { model: "language".into(), layers: Vec::new(), likely, remedies: vec![remedy] }
}
