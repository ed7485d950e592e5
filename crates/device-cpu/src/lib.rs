//! The reference device: shards on the processor, in float32, through [rten](https://docs.rs/rten).
//!
//! It shares no kernel with the simulator, so that the two can be compared. It emulates nothing of the NPU: float16 weights and
//! inputs are widened to float32 (exactly), everything is computed in float32, and a Cast to float16 rounds nothing.
//!
//! What a graph must be for it to load: an `.onnx` file; external data in the same directory, in files ending in `.data*` or
//! `.onnx_data*`, each tensor with explicit offset and length; float32, float16, float64, int64, int32, int8, uint8 or bool
//! initializers; `kernel_shape`, or else `strides` and `dilations`, on every convolution. rten computes integers and bools as
//! int32: int64 inputs are range-checked, int64 initializers saturate (ONNX uses the extremes of int64 only to mean "to the end").

mod convert;
mod evaluate;
mod session;

use rockshard_device::{Device, DeviceError, DeviceErrorKind, OnnxModel, Session, ShardFile};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use rten::ThreadPool;
use std::sync::Arc;

/// Number of cores the device offers, as many as the RK3588 has, so that a pack runs unchanged.
const CORES: u8 = 3;

/// The processor as a device. All cores are the same thread pool.
#[derive(Clone, Default)]
pub struct CpuDevice {
    threads: Option<Arc<ThreadPool>>,
}

impl CpuDevice {
    /// A device on rten's shared thread pool: `RTEN_NUM_THREADS` threads, or one for each physical core.
    pub fn new() -> Self {
        Self::default()
    }

    /// A device on a thread pool of its own with this many threads (at least one).
    pub fn with_threads(threads: usize) -> Self {
        CpuDevice { threads: Some(Arc::new(ThreadPool::with_num_threads(threads.max(1)))) }
    }
}

impl Device for CpuDevice {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn cores(&self) -> u8 {
        CORES
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        match core {
            CoreId::Npu(n) if n >= CORES => {
                let detail = format!("the cpu device has cores 0 to {} and host", CORES - 1);
                Err(DeviceError::new(DeviceErrorKind::Unavailable, &shard.name, core, detail))
            }
            CoreId::Npu(_) | CoreId::Host => {
                Ok(Box::new(session::CpuSession::open(shard, core, self.threads.clone())?))
            }
        }
    }

    fn evaluate(
        &self,
        model: OnnxModel<'_>,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, String> {
        evaluate::evaluate(model, inputs, outputs, self.threads.clone())
    }
}
