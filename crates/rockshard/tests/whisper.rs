//! A Whisper encoder with patterns chosen through the facade: against ONNX Runtime on the original file (recorded by
//! `tools/record_whisper.py`), layer by layer against the reference, and what the manifest says of the passes.

use rockshard::{
    ConvertError, ConvertRequest, CoreId, DeviceName, Error, Manifest, Mode, ModelInputs, Optimise,
    Pack, Placement, Rk3588, RunOptions, Sandwich, Shards, Tensor, TensorMap, Tile,
};
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};

/// Of the hidden states every so manieth is recorded.
const EVERY: usize = 50;
/// Relative L2 that two engines in float32 may differ by, and one of them in float16.
const BOUNDS: [f64; 2] = [1e-5, 1e-2];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/whisper").join(name)
}

fn request(folder: &Path) -> ConvertRequest {
    let mut request = ConvertRequest::new(data("encoder_model.onnx"), folder.join("pack"));
    request.fixed.dims.insert("batch".into(), 1);
    request
}

fn convert(request: ConvertRequest) -> Result<Manifest, Error> {
    rockshard::convert(request, &mut |_| Continue(()))
}

/// The spectrogram that was recorded with.
fn spectrogram() -> TensorMap {
    let value = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
    let tensor = Tensor::from_f32([1, 80, 3000], (0..80 * 3000).map(value).collect());
    [("input_features".to_owned(), tensor)].into()
}

fn distance(found: &Tensor, wanted: &[f32]) -> f64 {
    let width = found.shape()[2];
    let found = found.to_f32().unwrap();
    let kept = found.chunks(width).step_by(EVERY).flatten();
    assert_eq!(kept.clone().count(), wanted.len());
    let off: f64 = kept.zip(wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = wanted.iter().map(|b| f64::from(*b).powi(2)).sum();
    (off / norm).sqrt()
}

#[test]
fn an_encoder_in_chosen_patterns_computes_what_onnx_runtime_does() {
    let folder = tempfile::tempdir().unwrap();
    let patterns = ConvertRequest {
        sandwich: Sandwich::Factor(4.0),
        tile: Tile::Rows(512),
        shards: Shards::Layer,
        ..request(folder.path())
    };
    let manifest = convert(patterns).unwrap();
    let model = &manifest.models[0];
    let of = |part: &str| model.shards.iter().filter(|s| s.name.contains(part)).count();
    let names: Vec<&str> = model.shards.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((of("self_attn"), model.shards.len()), (2, 6), "stem, layers and norm: {names:?}");
    assert!(model.shards.iter().enumerate().all(|(i, s)| s.core == CoreId::Npu((i % 3) as u8)));
    assert!(model.shards.iter().flat_map(|s| &s.sandwich).all(|region| region.factor == 4.0));
    let attentions: Vec<_> = model.shards.iter().flat_map(|s| &s.attention).collect();
    assert_eq!(attentions.len(), 2);
    for attention in attentions {
        assert_eq!(
            (attention.shape, attention.lowering.as_str()),
            ([2, 1500, 1500, 12], "rows:512")
        );
        assert!(attention.peak_after < attention.peak_before);
    }
    assert!(model.declined.is_empty(), "{:?}", model.declined);

    let recorded = std::fs::read(data("last_hidden_state.npy")).unwrap();
    let recorded = rockshard_tensor::read_npy(&recorded.into()).unwrap();
    let pack = Pack::open(&folder.path().join("pack")).unwrap();
    for (device, bound) in [DeviceName::Cpu, DeviceName::Sim].into_iter().zip(BOUNDS) {
        let cores = rockshard::take_cores(device).unwrap();
        let loaded = cores.load(&pack, Mode::Pipeline, |_| true).unwrap();
        let run = loaded.run(&model.name, vec![spectrogram()], &RunOptions::default()).unwrap();
        let states = &run.outputs.unwrap()[0]["last_hidden_state"];
        let distance = distance(states, &recorded.to_f32().unwrap());
        eprintln!("Whisper's encoder on {device:?}: relative L2 {distance:.2e} from ONNX Runtime");
        assert!(distance <= bound, "{device:?}: {distance:.2e}");
    }

    let inputs: ModelInputs = [(model.name.clone(), spectrogram())].into();
    let devices = rockshard::open_devices(DeviceName::Sim).unwrap();
    let report =
        rockshard::validate(&pack, &devices, &inputs, 0.999, &mut |_| Continue(())).unwrap();
    assert!(report.passed(), "{:?}", report.summary());
}

#[test]
fn the_manifest_says_what_passes_did_and_why_they_did_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let latency = ConvertRequest { optimise: Optimise::Latency, ..request(folder.path()) };
    let model = convert(latency).unwrap().models.remove(0);
    let expected = [
        "fusion: attention 2, ",
        "sandwich: not needed: on noise every value stays within float16",
        "shards: whole: cuts bring nothing for latency",
    ];
    assert_eq!(model.passes.len(), expected.len(), "{:?}", model.passes);
    for (line, start) in model.passes.iter().zip(expected) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn shards_are_on_the_cores_that_the_chip_has() {
    let folder = tempfile::tempdir().unwrap();
    let with = |placement, cores| ConvertRequest {
        placement,
        shards: Shards::Layer,
        chip: Rk3588 { cores, ..Rk3588::default() },
        sandwich: Sandwich::Off,
        ..request(folder.path())
    };
    for placement in [Placement::RoundRobin, Placement::Balanced] {
        let out = folder.path().join(placement.word());
        let manifest = convert(ConvertRequest { out, ..with(placement, 2) }).unwrap();
        let mut cores: Vec<CoreId> = manifest.models[0].shards.iter().map(|s| s.core).collect();
        cores.sort();
        cores.dedup();
        assert_eq!(cores, [CoreId::Npu(0), CoreId::Npu(1)]);
    }
    for cores in [0, 4] {
        let error = convert(with(Placement::RoundRobin, cores)).unwrap_err();
        assert!(matches!(error, Error::Convert(ConvertError::Cores { .. })), "{error}");
        assert_eq!(
            error.to_string(),
            format!("a chip of {cores} cores: packs are for one to three")
        );
    }
}
