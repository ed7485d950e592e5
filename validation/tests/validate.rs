//! Verdicts over devices that go wrong in known ways.

mod common;

use common::{Fake, Wrong, chain, inputs, layer, spec};
use rockshard_device::Device;
use rockshard_manifest::CoreId;
use rockshard_tensor::{DType, Tensor};
use rockshard_validation::{
    Criteria, Feeding, LayerFiles, Metrics, ModelReport, Recorded, Report, ValidateProgress,
    ValidationError, Verdict, validate_model,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow::{Break, Continue};

fn validate_with(
    layers: &[LayerFiles],
    npu: &Fake,
    reference: &dyn Device,
) -> Result<ModelReport, ValidationError> {
    validate_model(layers, &inputs(), npu, npu, reference, &Criteria::default(), &mut |_| {
        Continue(())
    })
}

fn validate(wrong: &[(&str, Wrong)]) -> ModelReport {
    validate_with(&chain(), &Fake::device(wrong), &Fake::reference()).unwrap()
}

fn words(report: &ModelReport) -> Vec<&str> {
    report.layers.iter().map(|l| l.verdict.word()).collect()
}

fn cosine(report: &ModelReport, index: usize, mode: Feeding) -> f64 {
    report.layers[index].worst(mode).unwrap().1.agreement()
}

#[test]
fn a_faithful_device_passes_and_half_precision_is_enough() {
    let npu = Fake { half: true, ..Fake::device(&[]) };
    let report = validate_with(&chain(), &npu, &Fake::reference()).unwrap();
    assert_eq!(report.verdict, Verdict::Pass);
    assert_eq!(report.first_divergence, None);
    assert_eq!(report.counts(), [3, 0, 0]);
    assert_eq!(report.outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["y3"]);
    assert!(report.outputs[0].after_norm.unwrap() > 0.9999);
    // The first layer's inputs are the same in both modes, later ones' are not: they carry the rounding.
    assert_eq!(npu.layers(), ["one", "two", "two", "three", "three"]);
}

#[test]
fn the_layer_at_fault_is_named_though_all_after_it_fail_too() {
    let report = validate(&[("two", Wrong::Turn(0.3))]);
    assert_eq!(words(&report), ["pass", "fail", "fail"]);
    let first = report.first_divergence.clone().unwrap();
    assert_eq!(
        (first.layer.as_str(), first.index, first.mode, first.value.as_deref()),
        ("two", 1, Feeding::TeacherForced, Some("y2"))
    );
    assert!((first.agreement.unwrap() - 0.3f64.cos()).abs() < 1e-6);
    assert!(
        cosine(&report, 2, Feeding::TeacherForced) > 0.999_999
            && cosine(&report, 2, Feeding::Cumulative) < 0.98
    );
    assert!(report.layers[2].verdict.reason().starts_with("cumulative cosine 0.9"));
    let Verdict::Fail { reason } = &report.verdict else { panic!("{:?}", report.verdict) };
    assert!(reason.starts_with("two: teacher-forced cosine 0.95"), "{reason}");
}

#[test]
fn errors_that_only_add_up_are_a_cumulative_divergence() {
    let turn = Wrong::Turn(0.03);
    let report = validate(&[("one", turn), ("two", turn), ("three", turn)]);
    assert_eq!(words(&report)[0], "pass");
    let first = report.first_divergence.unwrap();
    assert_eq!(first.mode, Feeding::Cumulative);
    assert!(first.index > 0);
}

#[test]
fn the_threshold_decides() {
    let npu = Fake::device(&[("two", Wrong::Turn(0.1))]);
    for (threshold, passes) in [(0.99, true), (0.999, false)] {
        let options = Criteria { threshold, ..Criteria::default() };
        let report = validate_model(
            &chain(),
            &inputs(),
            &npu,
            &npu,
            &Fake::reference(),
            &options,
            &mut |_| Continue(()),
        )
        .unwrap();
        assert_eq!(report.verdict.is_pass(), passes);
    }
    let options = Criteria { threshold: f64::NAN, ..Criteria::default() };
    let error =
        validate_model(&chain(), &inputs(), &npu, &npu, &Fake::reference(), &options, &mut |_| {
            Continue(())
        })
        .unwrap_err();
    assert!(matches!(error, ValidationError::Threshold(_)));
}

#[test]
fn values_that_are_not_finite_fail_and_are_counted() {
    for wrong in [Wrong::Overflow, Wrong::NotANumber] {
        let report = validate(&[("one", wrong)]);
        let Some(Metrics::Real(m)) = report.layers[0].tensors[0].teacher_forced else {
            panic!("real metrics")
        };
        assert_eq!((m.cosine, m.non_finite), (0.0, 1.0 / 16.0));
        assert!(m.max_abs_error < 1e-6 && m.relative_l2 == Some(0.0), "finite elements agree");
        assert_eq!(report.first_divergence.unwrap().layer, "one");
        assert!(!report.layers[2].verdict.is_pass());
    }
    let Some(Metrics::Real(m)) =
        validate(&[("one", Wrong::Zero)]).layers[0].tensors[0].teacher_forced
    else {
        panic!()
    };
    assert_eq!((m.cosine, m.flushed), (0.0, 1.0));
}

#[test]
fn scales_are_applied_between_domains() {
    let real = |name: &str, scale| spec(name, DType::F32, scale);
    let layers = [
        layer("one", CoreId::Npu(0), real("x", 1.0), real("y1", 0.25)),
        layer("two", CoreId::Npu(1), real("y1", 0.5), real("y2", 8.0)),
        layer("three", CoreId::Npu(2), real("y2", 8.0), real("y3", 0.125)),
    ];
    let (npu, reference) = (Fake::device(&[("one", Wrong::Turn(1e-4))]), Fake::reference());
    let report = validate_with(&layers, &npu, &reference).unwrap();
    assert_eq!(report.verdict, Verdict::Pass);
    let y1: Vec<f32> = reference.runs.lock().unwrap()[1].1[0].to_f32().unwrap().into_owned();
    let runs = npu.runs.lock().unwrap();
    let taught: Vec<f32> = runs[1].1[0].to_f32().unwrap().into_owned();
    assert_eq!(taught, y1.iter().map(|v| v * 0.5).collect::<Vec<_>>());
    let own = runs[2].1[0].to_f32().unwrap();
    assert!(own.iter().zip(&taught).all(|(a, b)| (a - b).abs() < 1e-3) && *own != taught[..]);
    let Some(Metrics::Real(m)) = report.layers[2].tensors[0].cumulative else {
        panic!("real metrics")
    };
    assert!(m.relative_l2.unwrap() < 1e-3);
}

#[test]
fn a_layer_without_a_reference_is_unchecked_and_so_is_what_depends_on_it() {
    for wrong in [Wrong::Load, Wrong::Run] {
        let reference =
            Fake { wrong: BTreeMap::from([("two".to_owned(), wrong)]), ..Fake::reference() };
        let model = validate_with(&chain(), &Fake::device(&[]), &reference).unwrap();
        assert_eq!(words(&model), ["pass", "unchecked", "unchecked"]);
        assert!(model.layers[1].verdict.reason().contains("the reference failed"));
        assert!(model.layers[2].verdict.reason().contains("the reference gave no value \"y2\""));
        assert_eq!(model.outputs[0].cumulative, None);
        let report = Report::new(0.999, "fake", "fake", vec![model]);
        assert!(!report.passed() && !report.verdict.is_fail());
        assert!(
            report.summary().iter().any(|l| l.contains("first unchecked layer two")),
            "{:?}",
            report.summary()
        );
    }
    let nothing = Report::new(0.999, "fake", "fake", vec![]);
    assert_eq!(nothing.verdict.word(), "unchecked");
}

#[test]
fn a_layer_the_device_cannot_run_fails_and_the_next_is_judged_alone() {
    for wrong in [Wrong::Load, Wrong::Run] {
        let report = validate(&[("two", wrong)]);
        assert_eq!(words(&report), ["pass", "fail", "unchecked"]);
        let first = report.first_divergence.clone().unwrap();
        assert_eq!((first.layer.as_str(), first.agreement), ("two", None));
        assert!(report.layers[2].tensors[0].teacher_forced.is_some());
        assert!(report.layers[2].verdict.reason().contains("the device gave no value \"y2\""));
    }
    let report = validate(&[("two", Wrong::Shape)]);
    assert_eq!(words(&report), ["pass", "fail", "unchecked"]);
    assert!(
        report.layers[1].verdict.reason().contains("float32[16]"),
        "{}",
        report.layers[1].verdict.reason()
    );
}

#[test]
fn a_device_that_is_not_there_ends_the_validation() {
    let error =
        validate_with(&chain(), &Fake::device(&[("two", Wrong::Unavailable)]), &Fake::reference())
            .unwrap_err();
    assert_eq!(error.to_string(), "shard two on core 1: no driver");
}

#[test]
fn host_layers_run_on_the_host_and_integers_must_be_equal() {
    let (ids, next) = (spec("ids", DType::I64, 1.0), spec("next", DType::I64, 1.0));
    let mut layers = chain();
    layers.insert(0, layer("look-up", CoreId::Host, ids.clone(), next));
    let mut inputs = inputs();
    inputs.insert("ids".into(), Tensor::from_i64([2, 8], (0..16).collect()));
    for (wrong, passes, equal) in
        [(vec![], true, 1.0), (vec![("look-up", Wrong::OffByOne)], false, 15.0 / 16.0)]
    {
        let (npu, host) = (Fake::device(&[]), Fake::device(&wrong));
        let options = Criteria { threshold: 0.5, outputs: vec!["next".into(), "y3".into()] };
        let report = validate_model(
            &layers,
            &inputs,
            &npu,
            &host,
            &Fake::reference(),
            &options,
            &mut |_| Continue(()),
        )
        .unwrap();
        assert_eq!(host.layers(), ["look-up"]);
        assert_eq!(npu.layers(), ["one", "two", "three"], "equal values are run once");
        assert_eq!(
            (report.verdict.is_pass(), report.outputs[0].cumulative.unwrap().agreement()),
            (passes, equal)
        );
        assert_eq!((report.outputs[0].after_norm, report.outputs.len()), (None, 2));
        assert_eq!(report.first_divergence.is_none(), passes);
    }
}

#[test]
fn recorded_values_stand_in_for_a_reference() {
    let reference = Fake::reference();
    validate_with(&chain(), &Fake::device(&[]), &reference).unwrap();
    let inputs_of: BTreeMap<String, Tensor> =
        reference.runs.lock().unwrap().iter().map(|(n, i)| (n.clone(), i[0].clone())).collect();
    let values = BTreeMap::from([
        ("y1".to_owned(), inputs_of["two"].clone()),
        ("y2".to_owned(), inputs_of["three"].clone()),
    ]);
    let golden = Recorded::new(move |name| values.get(name).cloned());
    let report =
        validate_with(&chain(), &Fake::device(&[("two", Wrong::Turn(0.3))]), &golden).unwrap();
    assert_eq!(words(&report), ["pass", "fail", "unchecked"]);
    assert!(report.layers[2].verdict.reason().contains("\"y3\" was not recorded"));
}

#[test]
fn layers_and_inputs_must_fit_together() {
    let npu = Fake::device(&[]);
    let go =
        |layers: &[LayerFiles], inputs: &BTreeMap<String, Tensor>| {
            validate_model(layers, inputs, &npu, &npu, &npu, &Criteria::default(), &mut |_| {
                Continue(())
            })
            .unwrap_err()
        };
    assert!(matches!(go(&[], &inputs()), ValidationError::Empty));
    assert!(matches!(go(&chain(), &BTreeMap::new()), ValidationError::MissingValue { .. }));
    assert!(matches!(go(&chain()[1..], &inputs()), ValidationError::MissingValue { .. }));
    let short = BTreeMap::from([("x".to_owned(), Tensor::scalar(1.0))]);
    assert_eq!(
        go(&chain(), &short).to_string(),
        "input \"x\" of layer \"one\" is float32[], expected float32[2, 8]"
    );
    let mut mixed = chain();
    mixed[2].model = "other".into();
    assert!(matches!(go(&mixed, &inputs()), ValidationError::MixedModels { .. }));
    let options = Criteria { outputs: vec!["y4".into()], ..Criteria::default() };
    let error =
        validate_model(&chain(), &inputs(), &npu, &npu, &npu, &options, &mut |_| Continue(()))
            .unwrap_err();
    assert!(matches!(error, ValidationError::MissingOutput(name) if name == "y4"));
    assert!(npu.layers().is_empty(), "nothing ran");
}

#[test]
fn progress_names_each_layer_before_and_after() {
    let npu = Fake::device(&[]);
    let mut seen = Vec::new();
    let mut note = |p: ValidateProgress<'_>| {
        seen.push(match p {
            ValidateProgress::Started { model, layer, index, total } => {
                format!("{model} {layer} {index}/{total}")
            }
            ValidateProgress::Finished { layer, .. } => {
                format!("{} {}", layer.name, layer.verdict.word())
            }
        });
        Continue(())
    };
    validate_model(
        &chain()[..1],
        &inputs(),
        &npu,
        &npu,
        &Fake::reference(),
        &Criteria::default(),
        &mut note,
    )
    .unwrap();
    assert_eq!(seen, ["toy one 0/1", "one pass"]);
    let stopped = validate_model(
        &chain(),
        &inputs(),
        &npu,
        &npu,
        &Fake::reference(),
        &Criteria::default(),
        &mut |_| Break(()),
    );
    assert!(matches!(stopped, Err(ValidationError::Stopped)));
}
