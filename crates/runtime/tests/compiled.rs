//! Which of a shard's files a device is given.

mod common;

use common::{load, run};
use rockshard_device::{Completion, Device, DeviceError, Session, ShardFile, Takes, Version};
use rockshard_device_kit::MockDevice;
use rockshard_device_kit::packs::{model, pack_with, shard};
use rockshard_manifest::{Compiled, CoreId, Model, Placement, Shard, TensorSpec};
use rockshard_pack::{Devices, Mode, Pack, Variant};
use rockshard_runtime::Outcome;
use rockshard_tensor::{DType, Tensor};
use std::sync::Arc;
use tempfile::TempDir;

/// The mock as a board: it opens what ends in `.rknn`.
struct Board(MockDevice, Option<Version>);

impl Device for Board {
    fn name(&self) -> &'static str {
        "board"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn takes(&self) -> Takes {
        Takes::Compiled { runtime: self.1 }
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        assert!(shard.path.extension().is_some_and(|e| e == "rknn"), "{shard:?}");
        Ok(Box::new(BoardSession(self.0.open(shard, core)?)))
    }
}

/// Nothing is modelled on a board.
struct BoardSession(Box<dyn Session>);

impl Session for BoardSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        Ok(Completion { modelled: None, ..self.0.run(inputs)? })
    }
}

/// A pack of one shard, which a toolkit of a version compiled.
fn pack(toolkit: Option<&str>) -> (TempDir, Pack) {
    let spec = |name: &str, scale| TensorSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![1, 8],
        scale,
    };
    let compiled = |toolkit: &str| Compiled {
        file: "shard.rknn".into(),
        toolkit: toolkit.into(),
        internal_bytes: 0,
        weight_bytes: 0,
        layers: vec![],
        warnings: vec![],
        verified: None,
    };
    let one = Shard {
        file: "shard.onnx".into(),
        reference: "reference.onnx".into(),
        outputs: vec![spec("y", 0.25)],
        compiled: toolkit.map(compiled),
        ..shard("only".into(), CoreId::Npu(0), vec![spec("x", 0.5)], "y")
    };
    let (inputs, outputs) = (vec![spec("x", 1.0)], vec![spec("y", 1.0)]);
    let model = Model { inputs, outputs, ..model("m", vec![one], "y") };
    let files = ["shard.onnx", "reference.onnx", "shard.rknn"];
    pack_with(vec![model], Placement::Replicate, &files)
}

/// The file's name, or why there is none.
fn given(pack: &Pack, variant: Variant) -> Result<String, String> {
    let shard = pack
        .shard_file(&pack.manifest().models[0].shards[0], variant)
        .map_err(|e| e.to_string())?;
    let scale = if variant == Variant::Reference { 1.0 } else { 0.5 };
    assert_eq!(shard.inputs[0].scale, scale, "{variant:?}");
    Ok(shard.path.file_name().unwrap().to_string_lossy().into_owned())
}

fn board(runtime: &str) -> Variant {
    Variant::of(&Board(MockDevice::new(3), Version::parse(runtime)))
}

#[test]
fn each_device_gets_the_file_that_it_takes() {
    let (_folder, pack) = pack(Some("2.3.2"));
    assert_eq!(given(&pack, Variant::of(&MockDevice::new(1))).as_deref(), Ok("shard.onnx"));
    assert_eq!(given(&pack, Variant::Reference).as_deref(), Ok("reference.onnx"));
    for runtime in ["2.3.2 (429f97ae6b@2025-04-09)", "2.3.3", "2.10.0", "3.0.0", "unknown"] {
        assert_eq!(given(&pack, board(runtime)).as_deref(), Ok("shard.rknn"), "{runtime}");
    }
}

#[test]
fn a_shard_that_a_board_cannot_load_is_refused_before_it_is_opened() {
    let newer = "shard only was compiled by rknn-toolkit2 2.5.0, and librknnrt is of version 2.3.2";
    let table = [
        (None, "2.3.2", "shard only is not compiled, and this device runs compiled shards only"),
        (Some("2.5.0"), "2.3.2", newer),
        (Some("2.3.10"), "2.3.2", "rknn-toolkit2 2.3.10, and librknnrt is of version 2.3.2"),
        (Some("3.0.0"), "2.9.9", "which can crash on it"),
    ];
    for (toolkit, runtime, text) in table {
        let (folder, pack) = pack(toolkit);
        let error = given(&pack, board(runtime)).unwrap_err();
        assert!(
            error.contains(text) && error.starts_with(&folder.path().display().to_string()),
            "{error}"
        );
    }
}

#[test]
fn the_host_gets_its_graph() {
    let (_folder, pack) = pack(None);
    let mut shard = pack.manifest().models[0].shards[0].clone();
    shard.core = CoreId::Host;
    let file = pack.shard_file(&shard, board("2.3.2")).unwrap();
    assert!(file.path.ends_with("shard.onnx"));
}

#[test]
fn a_compiled_file_that_was_altered_is_refused() {
    let (folder, pack) = pack(Some("2.3.2"));
    std::fs::write(folder.path().join("shard.rknn"), "shard.rknm").unwrap();
    let error = given(&pack, board("2.3.2")).unwrap_err();
    assert!(error.contains("shard.rknn: its SHA-256 is not the manifest's"), "{error}");
}

#[test]
fn a_board_is_given_the_same_scaled_values_as_the_simulator() {
    let (_folder, pack) = pack(Some("2.3.2"));
    let outputs = |npu: Arc<dyn Device>| {
        let devices =
            Devices { variant: Variant::of(&*npu), npu, host: Arc::new(MockDevice::new(3)) };
        let loaded = load(&pack, &devices, 3, Mode::Replicate).unwrap();
        let item = [("x".to_owned(), Tensor::from_f32([1, 8], vec![3.0; 8]))].into();
        let Outcome { outputs, trace } = run(&loaded, vec![item]);
        (outputs.unwrap(), trace)
    };
    let board = Board(MockDevice::new(3), Version::parse("2.3.2"));
    let [(found, measured), (wanted, modelled)] =
        [Arc::new(board) as Arc<dyn Device>, Arc::new(MockDevice::new(3))].map(outputs);
    assert_eq!(found, wanted);
    let svg = measured.timeline_svg();
    assert!(
        !measured.is_modelled()
            && svg.contains("ms measured")
            && svg.contains("only item 0")
            && !svg.contains("odelled"),
        "{svg}"
    );
    assert!(modelled.is_modelled() && modelled.timeline_svg().contains("ms modelled"));
}
