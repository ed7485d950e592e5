//! The report's words and numbers as the template prints them.

use super::chart::{ErrorChart, ShareChart, error_chart, share_chart};
use super::{NextStep, Remedy};
use crate::{
    LanguageReport, LayerReport, LogitsAgreement, Metrics, ModelReport, Report, TensorReport,
    Verdict, Words,
};
use serde::Serialize;
use std::cmp::Ordering;

#[derive(Serialize)]
pub(crate) struct Page {
    device: String,
    reference: String,
    threshold: String,
    state: &'static str,
    reason: String,
    /// Layers that pass, fail and are unchecked.
    counts: [usize; 3],
    models: Vec<ModelPage>,
    language: Option<LanguagePage>,
}

#[derive(Serialize)]
struct LanguagePage {
    state: &'static str,
    steps: Vec<Step>,
    /// What was compared, and the numbers.
    rows: Vec<LogitsRow>,
    words: Option<Words>,
}

#[derive(Serialize)]
struct LogitsRow {
    what: String,
    cosine: String,
    fails: bool,
    difference: String,
    same: String,
}

#[derive(Serialize)]
struct ModelPage {
    name: String,
    anchor: String,
    state: &'static str,
    counts: [usize; 3],
    worst: Option<String>,
    divergence: Option<String>,
    steps: Vec<Step>,
    import: &'static str,
    import_reason: String,
    outputs: Vec<Output>,
    errors: ErrorChart,
    shares: Option<ShareChart>,
    layers: Vec<Row>,
}

/// What to do about some layers, which are named by number.
#[derive(Serialize)]
struct Step {
    likely: String,
    remedies: Vec<Remedy>,
    layers: Vec<usize>,
}

#[derive(Serialize)]
struct Output {
    name: String,
    layer: String,
    agreement: String,
    after_norm: String,
}

#[derive(Serialize)]
struct Row {
    number: usize,
    name: String,
    core: String,
    operators: String,
    sandwich: Vec<String>,
    tiling: Vec<String>,
    state: &'static str,
    reason: String,
    /// What is likely wrong, and which of the model's steps is about it.
    likely: String,
    step: Option<usize>,
    first: bool,
    tensors: Vec<Tensor>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    shape: String,
    scale: String,
    range: String,
    teacher_forced: Cells,
    cumulative: Cells,
}

/// The numbers of one comparison; `-` where there is none.
#[derive(Serialize)]
struct Cells {
    agreement: String,
    fails: bool,
    max_abs_error: String,
    relative_l2: String,
    overflow: String,
    subnormal: String,
    flushed: String,
}

pub(crate) fn page(report: &Report, next: &[NextStep]) -> Page {
    let mut counts = [0; 3];
    for model in &report.models {
        model.counts().into_iter().zip(&mut counts).for_each(|(n, sum)| *sum += n);
    }
    let model = |(i, m)| model_page(i, m, report.threshold, next);
    let language = |l| language_page(l, report.threshold, next);
    Page {
        device: report.device.clone(),
        reference: report.reference.clone(),
        threshold: report.threshold.to_string(),
        state: report.verdict.word(),
        reason: report.verdict.reason().to_owned(),
        counts,
        models: report.models.iter().enumerate().map(model).collect(),
        language: report.language.as_ref().map(language),
    }
}

fn language_page(language: &LanguageReport, threshold: f64, next: &[NextStep]) -> LanguagePage {
    let row = |what: String, found: &LogitsAgreement| LogitsRow {
        what,
        cosine: agreement(found.cosine),
        // What is no number fails.
        fails: !matches!(
            found.cosine.partial_cmp(&threshold),
            Some(Ordering::Greater | Ordering::Equal)
        ),
        difference: number(found.difference),
        same: format!("{} of {}", found.same, found.tokens),
    };
    let recorded = language.logits.iter();
    let mut rows: Vec<_> =
        recorded.map(|r| row(format!("logits recorded by {}", r.engine), &r.agreement)).collect();
    let words = language.words.iter();
    rows.extend(words.map(|w| row("logits behind the words below".into(), &w.agreement)));
    LanguagePage {
        state: language.verdict.word(),
        steps: steps("language", &[], next),
        rows,
        words: language.words.clone(),
    }
}

/// The steps that are about a model, or about some of its layers.
fn steps(model: &str, layers: &[LayerReport], next: &[NextStep]) -> Vec<Step> {
    let number = |name: &String| Some(layers.iter().position(|l| l.name == *name)? + 1);
    let own = next.iter().filter(|step| step.model == model).filter_map(|step| {
        let numbers: Vec<usize> = step.layers.iter().filter_map(number).collect();
        // A model of several resolutions has layers elsewhere, too.
        let elsewhere = numbers.is_empty() && !step.layers.is_empty();
        let (likely, remedies) = (step.likely.clone(), step.remedies.clone());
        (!elsewhere).then_some(Step { likely, remedies, layers: numbers })
    });
    own.collect()
}

fn model_page(index: usize, model: &ModelReport, threshold: f64, next: &[NextStep]) -> ModelPage {
    let steps = steps(&model.model, &model.layers, next);
    let first = model.first_divergence.as_ref().map(|d| d.index);
    let worst = model.worst().map(|(layer, mode, tensor, m)| {
        format!(
            "{} ({mode} {} {} of {})",
            layer.name,
            m.measure(),
            agreement(m.agreement()),
            tensor.name
        )
    });
    let output = |o: &crate::OutputReport| Output {
        name: o.name.clone(),
        layer: o.layer.clone(),
        agreement: o
            .cumulative
            .as_ref()
            .map_or_else(dash, |m| format!("{} {}", m.measure(), agreement(m.agreement()))),
        after_norm: o.after_norm.map_or_else(dash, agreement),
    };
    ModelPage {
        name: model.model.clone(),
        anchor: format!("model-{index}"),
        state: model.verdict.word(),
        counts: model.counts(),
        worst,
        divergence: model.first_divergence.as_ref().map(|d| d.describe()),
        import: model.import.word(),
        import_reason: model.import.reason().to_owned(),
        outputs: model.outputs.iter().map(output).collect(),
        errors: error_chart(model, threshold),
        shares: share_chart(model),
        layers: model
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| row(i, layer, first == Some(i), threshold, &steps))
            .collect(),
        steps,
    }
}

fn row(index: usize, layer: &LayerReport, first: bool, threshold: f64, steps: &[Step]) -> Row {
    let step = steps.iter().position(|s| s.layers.contains(&(index + 1)));
    let operators: Vec<_> = layer
        .operators
        .iter()
        .map(|(name, n)| if *n == 1 { name.clone() } else { format!("{name} ×{n}") })
        .collect();
    let sandwich = layer.sandwich.iter().map(|s| {
        let (before, after) = (percent(f64::from(s.lost_before)), percent(f64::from(s.lost_after)));
        format!(
            "×{} around {} (worst {}), lost {before} → {after}",
            s.factor,
            s.worst_value,
            number(f64::from(s.worst_magnitude))
        )
    });
    let tiling = layer.attention.iter().map(|a| {
        let [heads, queries, keys, channels] = a.shape;
        format!(
            "{} ({heads}×{queries}×{keys}×{channels}), peak {} → {}",
            a.lowering,
            bytes(a.peak_before),
            bytes(a.peak_after)
        )
    });
    Row {
        number: index + 1,
        name: layer.name.clone(),
        core: layer.core.to_string(),
        operators: operators.join(", "),
        sandwich: sandwich.collect(),
        tiling: tiling.collect(),
        state: layer.verdict.word(),
        reason: match &layer.verdict {
            Verdict::Pass => String::new(),
            other => other.reason().to_owned(),
        },
        likely: step.map(|at| steps[at].likely.clone()).unwrap_or_default(),
        step: step.map(|at| at + 1),
        first,
        tensors: layer.tensors.iter().map(|t| tensor(t, threshold)).collect(),
    }
}

fn tensor(tensor: &TensorReport, threshold: f64) -> Tensor {
    Tensor {
        name: tensor.name.clone(),
        shape: tensor.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×"),
        scale: if tensor.scale == 1.0 { String::new() } else { format!("×{}", tensor.scale) },
        range: tensor.reference_range.map_or_else(dash, |[low, high]| {
            format!("{} … {}", number(f64::from(low)), number(f64::from(high)))
        }),
        teacher_forced: cells(tensor.teacher_forced.as_ref(), threshold),
        cumulative: cells(tensor.cumulative.as_ref(), threshold),
    }
}

fn cells(metrics: Option<&Metrics>, threshold: f64) -> Cells {
    let fails = metrics.is_some_and(|m| !m.passes(threshold));
    match metrics {
        Some(Metrics::Real(m)) => Cells {
            agreement: agreement(m.cosine),
            fails,
            max_abs_error: number(m.max_abs_error),
            relative_l2: m.relative_l2.map_or_else(dash, number),
            overflow: percent(m.non_finite),
            subnormal: percent(m.subnormal),
            flushed: percent(m.flushed),
        },
        Some(Metrics::Integer(m)) => {
            Cells { agreement: format!("{} equal", percent(m.equal)), fails, ..empty() }
        }
        None => empty(),
    }
}

fn empty() -> Cells {
    let [agreement, max_abs_error, relative_l2, overflow, subnormal, flushed] =
        std::array::from_fn(|_| dash());
    Cells { agreement, fails: false, max_abs_error, relative_l2, overflow, subnormal, flushed }
}

fn dash() -> String {
    "–".into()
}

/// A cosine, with the page's minus.
fn agreement(value: f64) -> String {
    crate::report::digits(value).replacen("1-", "1 − ", 1)
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if !(1e-3..1e5).contains(&v) => format!("{value:.2e}"),
        v if v >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

fn percent(share: f64) -> String {
    match share {
        0.0 => "0 %".into(),
        1.0 => "100 %".into(),
        s if s < 1e-4 => format!("{:.0e} %", s * 100.0),
        s => format!("{:.2} %", s * 100.0),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_claim_more_than_they_are() {
        assert_eq!(agreement(1.0), "1.000000");
        assert_eq!(agreement(0.999_999_97), "1 − 3e-8");
        assert_eq!(agreement(0.9985), "0.998500");
        assert_eq!([percent(0.0), percent(0.5), percent(1e-6)], ["0 %", "50.00 %", "1e-4 %"]);
        assert_eq!(
            [number(0.0), number(-2.5), number(1e-7), number(123456.0)],
            ["0", "-2.5000", "1.00e-7", "1.23e5"]
        );
    }
}
