//! The report as JSON, text and a page.

mod common;

use common::{Fake, Wrong, chain, inputs, layer, spec};
use rockshard_manifest::{AttentionTiling, CoreId, SandwichRegion};
use rockshard_tensor::{DType, Tensor};
use rockshard_validation::{
    Criteria, LayerFiles, NextStep, Remedy, Report, ReportError, ReportExtras, render_html,
    validate_model, write_report,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow::Continue;

fn report(layers: &[LayerFiles], wrong: &[(&str, Wrong)], half: bool) -> Report {
    let steady = layers.len() > 10;
    let (npu, reference) =
        (Fake { half, steady, ..Fake::device(wrong) }, Fake { steady, ..Fake::reference() });
    let model = validate_model(
        layers,
        &inputs(),
        &npu,
        &npu,
        &reference,
        &Criteria::default(),
        &mut |_| Continue(()),
    )
    .unwrap();
    Report::new(0.999, "sim", "cpu", vec![model])
}

#[test]
fn json_keeps_its_form() {
    let (x, y) = (spec("x", DType::F32, 1.0), spec("y", DType::F32, 0.5));
    let layers = [layer("only", CoreId::Npu(0), x, y)];
    let inputs = BTreeMap::from([(
        "x".to_owned(),
        Tensor::from_f32([2, 8], (0..16).map(|v| v as f32).collect()),
    )]);
    let npu = Fake::device(&[("only", Wrong::Overflow)]);
    let model = validate_model(
        &layers,
        &inputs,
        &npu,
        &npu,
        &Fake::reference(),
        &Criteria::default(),
        &mut |_| Continue(()),
    )
    .unwrap();
    let report = Report::new(0.999, "sim", "cpu", vec![model]);
    let json = report.to_json();
    assert_eq!(json, include_str!("report.json"));
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn summary_names_the_worst_layer_and_the_first_divergence() {
    let lines = report(&chain(), &[("two", Wrong::Turn(0.3))], false).summary();
    assert_eq!(lines[0], "FAIL: sim against cpu, threshold 0.999");
    assert_eq!(lines[1], "toy: 3 layers, 1 pass, 2 fail, 0 unchecked");
    assert!(
        lines[2].starts_with("toy: worst layer two (teacher-forced cosine 0.955336 of \"y2\")"),
        "{}",
        lines[2]
    );
    assert!(
        lines[3].starts_with("toy: first divergence in two (teacher-forced agreement 0.955336"),
        "{}",
        lines[3]
    );
    assert_eq!(lines[4], "toy: import unchecked, the original file was not compared");
    assert!(lines[5].starts_with("toy: output \"y3\" cosine 0."), "{}", lines[5]);
}

#[test]
fn the_page_has_every_layer_and_stands_alone() {
    let report = report(&chain(), &[("two", Wrong::Turn(0.3))], true);
    let extras = ReportExtras {
        timeline_svg: Some("<?xml version=\"1.0\"?><svg id=\"cores\"></svg>".into()),
        pictures: vec![("a <cat>".into(), b"\x89PNG".to_vec())],
        next_steps: Vec::new(),
    };
    let page = render_html(&report, &extras).unwrap();
    for text in [
        "one",
        "two",
        "three",
        "y1",
        "y2",
        "y3",
        "first divergence",
        "core 2",
        "Add ×2, Mul",
        "<title>Validation: fail",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains("<svg id=\"cores\">") && !page.contains("<?xml"));
    assert!(page.contains("data:image/png;base64,iVBORw==\" alt=\"a &lt;cat&gt;\""));
    for external in ["http:", "https:", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(external), "{external}");
    }
    assert!(matches!(
        render_html(&report, &ReportExtras { timeline_svg: Some("soon".into()), ..extras }),
        Err(ReportError::Timeline)
    ));
}

/// A layer that fails leads to what to do about it, and back; steps about other models stay away.
#[test]
fn what_fails_has_its_next_step() {
    let report = report(&chain(), &[("two", Wrong::Turn(0.3))], false);
    let step = |model: &str, layers: &[&str], likely: &str| NextStep {
        model: model.into(),
        layers: layers.iter().map(|l| (*l).to_owned()).collect(),
        likely: likely.into(),
        remedies: vec![
            Remedy { what: "look <inside>".into(), command: Some("look --inside 'a b'".into()) },
            Remedy { what: "ask".into(), command: None },
        ],
    };
    let next_steps = vec![
        step("toy", &["two", "three"], "its own fault"),
        step("toy", &["gone"], "of another size"),
        step("other", &[], "of another model"),
    ];
    let page =
        render_html(&report, &ReportExtras { next_steps, ..ReportExtras::default() }).unwrap();
    for text in [
        "What to do",
        "id=\"model-0-step-1\"",
        "<a href=\"#model-0-layer-2\">2</a>",
        "id=\"model-0-layer-2\"",
        "its own fault: <a href=\"#model-0-step-1\">",
        "look &lt;inside&gt;",
        "<code>look --inside &#x27;a b&#x27;</code>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("#model-0-step-1").count(), 2);
    assert!(!page.contains("of another"));
}

/// Charts take the width of the page: they have none of their own, and what is in them is placed by shares of it.
#[test]
fn charts_are_as_wide_as_the_page() {
    let page = render_html(&report(&chain(), &[], true), &ReportExtras::default()).unwrap();
    let charts: Vec<&str> = page.split("<svg class=\"chart\"").skip(1).collect();
    assert!(!charts.is_empty());
    for chart in charts {
        let (tag, rest) = chart.split_once('>').unwrap();
        assert!(!tag.contains("width=") && !tag.contains("viewBox") && tag.contains("aria-label"));
        let body = rest.split("</figure>").next().unwrap();
        assert!(body.contains("x2=\"100%\""), "{body}");
    }
}

#[test]
fn names_are_escaped() {
    let hostile = "<script>alert('x')</script>\"&";
    let layers =
        [layer(hostile, CoreId::Host, spec("x", DType::F32, 1.0), spec(hostile, DType::F32, 1.0))];
    let page =
        render_html(&report(&layers, &[(hostile, Wrong::Zero)], false), &ReportExtras::default())
            .unwrap();
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;"));
}

/// A page with something of everything shows all of it; it is left in the test folder of the target directory, to look at.
#[test]
fn a_large_report_shows_everything() {
    let names = [
        "time-embedding",
        "down_blocks.0.resnets.0",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1",
        "mid_block",
        "up_blocks.0",
    ];
    let mut layers: Vec<LayerFiles> = (0..36)
        .map(|i| {
            let name = format!("unet-{i:02}-{}", names[i % names.len()]);
            let value = |n: usize| {
                if n == 0 { "x".to_owned() } else { format!("/unet/block.{n}/Add_output_0") }
            };
            let (input, output) = (
                spec(&value(i), DType::F32, 1.0),
                spec(&value(i + 1), DType::F32, if i % 7 == 3 { 0.0009765625 } else { 1.0 }),
            );
            let core = if i == 0 { CoreId::Host } else { CoreId::Npu((i % 3) as u8) };
            layer(&name, core, input, output)
        })
        .collect();
    for (i, layer) in layers.iter_mut().enumerate() {
        let shard = &mut layer.shard;
        for (operator, count) in
            [("exSoftmax13", 2), ("ConvAdd", 3), ("exMatMul", 4)].into_iter().skip(i % 3)
        {
            shard.operators.insert(operator.into(), count);
        }
        if i % 7 == 3 {
            shard.sandwich.push(SandwichRegion {
                nodes: ["a".into(), "b".into()],
                factor: 0.000_976_562_5,
                worst_value: format!("/unet/block.{i}/Mul_output_0"),
                worst_magnitude: 81_234.0,
                lost_before: 0.0031,
                lost_after: 0.0,
            });
            shard.attention.push(AttentionTiling {
                value: format!("attn.{i}"),
                shape: [8, 2304, 2304, 40],
                lowering: "rows:256".into(),
                peak_before: 84_934_656,
                peak_after: 9_437_184,
            });
        }
    }
    let name = |i: usize| layers[i].shard.name.clone();
    let (early, late, huge, broken) = (name(9), name(22), name(24), name(32));
    let wrong = [
        (early.as_str(), Wrong::Turn(0.01)),
        (late.as_str(), Wrong::Turn(0.06)),
        (huge.as_str(), Wrong::Overflow),
        (broken.as_str(), Wrong::Run),
    ];
    let mut report = report(&layers, &wrong, true);
    let mut small = report.models[0].clone();
    small.model = "text_encoder".into();
    small.layers.truncate(3);
    small.first_divergence = None;
    small.verdict = rockshard_validation::Verdict::Pass;
    report.models.insert(0, small);
    let page = render_html(&report, &ReportExtras::default()).unwrap();
    for layer in report.models.iter().flat_map(|m| &m.layers) {
        assert!(page.contains(&layer.name), "{}", layer.name);
    }
    for text in ["text_encoder", "rows:256", "<svg"] {
        assert!(page.contains(text), "{text}");
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("report.html");
    write_report(&report, &ReportExtras::default(), &path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page);
    assert_eq!(std::fs::read_to_string(path.with_extension("json")).unwrap(), report.to_json());
}
