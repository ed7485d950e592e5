//! A device that computes nothing but tells everything apart: its outputs are a mix of names and inputs, so that the runtime's tests need
//! no graphs and see every mistake in wiring.

use rockshard_device::{
    Completion, Device, DeviceError, DeviceErrorKind, Kept, Session, ShardFile, Value,
    check_inputs, check_values,
};
use rockshard_manifest::CoreId;
use rockshard_tensor::{DType, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A device without a graph: each output element is a hash-like mix of the shard's name and all inputs, so that any mistake in
/// wiring, order or placement changes the result. [`FaultyDevice`](crate::FaultyDevice) makes it fail.
#[derive(Clone)]
pub struct MockDevice {
    cores: u8,
    runs: Arc<AtomicU64>,
    kept: Arc<AtomicU64>,
}

impl MockDevice {
    /// A mock with this many cores.
    pub fn new(cores: u8) -> Self {
        MockDevice { cores, runs: Arc::default(), kept: Arc::default() }
    }

    /// Runs completed so far.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// Tensors that are kept now.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::SeqCst)
    }
}

/// A tensor that a mock keeps.
struct MockKept {
    tensor: Tensor,
    count: Arc<AtomicU64>,
}

impl MockKept {
    fn new(tensor: Tensor, count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        MockKept { tensor, count: count.clone() }
    }
}

impl Drop for MockKept {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Kept for MockKept {
    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn stored(&self) -> (DType, &[u8]) {
        (self.tensor.dtype(), self.tensor.bytes())
    }

    fn read(&self) -> Tensor {
        self.tensor.clone()
    }
}

struct MockSession {
    device: MockDevice,
    shard: ShardFile,
    core: CoreId,
}

impl Device for MockDevice {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn cores(&self) -> u8 {
        self.cores
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        if matches!(core, CoreId::Npu(n) if n >= self.cores) {
            let detail = format!("the mock has {} cores, numbered from 0", self.cores);
            return Err(DeviceError::new(DeviceErrorKind::Unavailable, &shard.name, core, detail));
        }
        Ok(Box::new(MockSession { device: self.clone(), shard: shard.clone(), core }))
    }
}

impl Session for MockSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        check_inputs(&self.shard, self.core, inputs)?;
        let mix =
            |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let mut state = self.shard.name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        for input in inputs {
            // float16 widens exactly, so that the type of real numbers makes no difference.
            let input = input.to_float(DType::F32).unwrap_or_else(|_| input.clone());
            state = input.bytes().iter().copied().fold(state, mix);
        }
        let outputs = self.shard.outputs.iter().map(|spec| {
            let count = spec.shape.iter().product::<usize>();
            let values = (0..count as u64)
                .map(|i| ((state.wrapping_add(i) >> 11) % 4096) as f32 / 2048.0 - 1.0)
                .collect();
            Tensor::from_f32(spec.shape.clone(), values)
        });
        let outputs = outputs.collect();
        self.device.runs.fetch_add(1, Ordering::SeqCst);
        Ok(Completion {
            outputs,
            modelled: Some(Duration::from_micros(100)),
            streaming: Duration::ZERO,
        })
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        check_values(&self.shard, self.core, inputs)?;
        let inputs: Vec<Tensor> = inputs.iter().map(Value::tensor).collect();
        let Completion { outputs, modelled, streaming } = self.run(&inputs)?;
        let kept = |tensor| Value::Kept(Arc::new(MockKept::new(tensor, &self.device.kept)));
        let outputs = outputs
            .into_iter()
            .zip(keep)
            .map(|(tensor, &keep)| if keep { kept(tensor) } else { Value::Host(tensor) });
        Ok(Completion { outputs: outputs.collect(), modelled, streaming })
    }
}
