//! Layers and devices that need no files: every layer computes `2 x + 1` of its first input.

#![allow(dead_code)]

use rockshard_device::{
    Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile, check_inputs,
};
use rockshard_manifest::{CoreId, ModelledCost, Shard, TensorSpec};
use rockshard_tensor::{DType, Tensor};
use rockshard_validation::LayerFiles;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a device does wrong with a layer.
#[derive(Clone, Copy)]
pub enum Wrong {
    /// Turns each pair of values by this angle.
    Turn(f64),
    /// Makes the first value infinite.
    Overflow,
    /// Makes the first value not a number.
    NotANumber,
    /// Gives zeros.
    Zero,
    /// Adds one to the first value.
    OffByOne,
    /// Cannot load the layer.
    Load,
    /// Fails while it runs.
    Run,
    /// Is not there.
    Unavailable,
    /// Gives another shape.
    Shape,
}

/// Layer and inputs of a run.
pub type Run = (String, Vec<Tensor>);

/// A device that stores tensors as their specs say (`scaled`), or a reference that does not.
#[derive(Clone, Default)]
pub struct Fake {
    pub scaled: bool,
    pub half: bool,
    pub wrong: BTreeMap<String, Wrong>,
    /// Layer and inputs of every run.
    pub runs: Arc<Mutex<Vec<Run>>>,
    /// Compute `1 - x` instead, which does not grow along a long chain.
    pub steady: bool,
    /// Open sessions of all devices that share the counter.
    pub open: Arc<AtomicUsize>,
}

impl Fake {
    pub fn device(wrong: &[(&str, Wrong)]) -> Self {
        Fake {
            scaled: true,
            wrong: wrong.iter().map(|(n, w)| ((*n).to_owned(), *w)).collect(),
            ..Fake::default()
        }
    }

    pub fn reference() -> Self {
        Fake::default()
    }

    /// Names of the layers run so far.
    pub fn layers(&self) -> Vec<String> {
        self.runs.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }
}

struct FakeSession {
    device: Fake,
    shard: ShardFile,
    core: CoreId,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.device.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Device for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        match self.wrong.get(&shard.name) {
            Some(Wrong::Load) => {
                return Err(DeviceError::new(
                    DeviceErrorKind::Load,
                    &shard.name,
                    core,
                    "no such operator",
                ));
            }
            Some(Wrong::Unavailable) => {
                return Err(DeviceError::new(
                    DeviceErrorKind::Unavailable,
                    &shard.name,
                    core,
                    "no driver",
                ));
            }
            _ => {}
        }
        assert_eq!(self.open.fetch_add(1, Ordering::SeqCst), 0, "one session at a time");
        Ok(Box::new(FakeSession { device: self.clone(), shard: shard.clone(), core }))
    }
}

impl Session for FakeSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        check_inputs(&self.shard, self.core, inputs)?;
        self.device.runs.lock().unwrap().push((self.shard.name.clone(), inputs.to_vec()));
        let wrong = self.device.wrong.get(&self.shard.name);
        if let Some(Wrong::Run) = wrong {
            return Err(DeviceError::new(
                DeviceErrorKind::Run,
                &self.shard.name,
                self.core,
                "timed out",
            ));
        }
        let factor = |spec: &TensorSpec| if self.device.scaled { spec.scale } else { 1.0 };
        let output = |spec: &TensorSpec| {
            if !spec.dtype.is_float() {
                let mut values: Vec<i64> =
                    inputs[0].to_i64().unwrap().iter().map(|v| 2 * v + 1).collect();
                values[0] += i64::from(matches!(wrong, Some(Wrong::OffByOne)));
                return Tensor::from_i64(spec.shape.clone(), values);
            }
            let source = inputs[0].to_f32().unwrap();
            let gain = if self.device.steady { -1.0 } else { 2.0 };
            let mut values: Vec<f32> =
                source.iter().map(|v| gain * v / factor(&self.shard.inputs[0]) + 1.0).collect();
            match wrong {
                Some(Wrong::Turn(angle)) => values.chunks_exact_mut(2).for_each(|pair| {
                    let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                    let [x, y] = [pair[0], pair[1]];
                    pair.copy_from_slice(&[cos * x - sin * y, sin * x + cos * y]);
                }),
                Some(Wrong::Overflow) => values[0] = f32::INFINITY,
                Some(Wrong::NotANumber) => values[0] = f32::NAN,
                Some(Wrong::Zero) => values.fill(0.0),
                Some(Wrong::OffByOne) => values[0] += 1.0,
                _ => {}
            }
            values.iter_mut().for_each(|v| *v *= factor(spec));
            let shape = if let Some(Wrong::Shape) = wrong {
                vec![values.len()]
            } else {
                spec.shape.clone()
            };
            let tensor = Tensor::from_f32(shape, values);
            if self.device.half { tensor.to_float(DType::F16).unwrap() } else { tensor }
        };
        let outputs = self.shard.outputs.iter().map(output).collect();
        Ok(Completion { outputs, modelled: None, streaming: std::time::Duration::ZERO })
    }
}

pub fn spec(name: &str, dtype: DType, scale: f32) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: vec![2, 8], scale }
}

pub fn layer(name: &str, core: CoreId, input: TensorSpec, output: TensorSpec) -> LayerFiles {
    let (inputs, outputs) = (vec![input], vec![output]);
    let shard = Shard {
        name: name.into(),
        file: format!("shards/{name}.onnx"),
        reference: format!("reference/{name}.onnx"),
        core,
        stage: 0,
        inputs: inputs.clone(),
        outputs: outputs.clone(),
        operators: BTreeMap::from([("Mul".to_owned(), 1), ("Add".to_owned(), 2)]),
        weight_bytes: 0,
        modelled: ModelledCost::default(),
        sandwich: Vec::new(),
        attention: Vec::new(),
        golden: None,
        compiled: None,
    };
    let file = ShardFile { name: name.into(), path: shard.file.clone().into(), inputs, outputs };
    LayerFiles { model: "toy".into(), shard, reference: file.clone(), device: file }
}

/// `x -> one -> y1 -> two -> y2 -> three -> y3`, unscaled.
pub fn chain() -> Vec<LayerFiles> {
    let real = |name: &str| spec(name, DType::F32, 1.0);
    vec![
        layer("one", CoreId::Npu(0), real("x"), real("y1")),
        layer("two", CoreId::Npu(1), real("y1"), real("y2")),
        layer("three", CoreId::Npu(2), real("y2"), real("y3")),
    ]
}

pub fn inputs() -> BTreeMap<String, Tensor> {
    rockshard_validation::random_inputs(&[spec("x", DType::F32, 1.0)], 1)
}
