//! What crosses the C boundary of librknnrt 2.3.2, on 64-bit machines: the structs, the numbers and the error codes of its public API
//! documents. There is no code that calls anything here: `device-rknn` calls the library, `rknnrt-sim` is one.
//!
//! Enumerations of the API are plain numbers in the structs, because the other side may write any value.

mod code;
mod structs;

pub use code::Code;
pub use structs::{
    CustomString, InOutNum, InitExtend, Input, MemSize, Output, OutputExtend, PerfRun, RunExtend,
    SdkVersion, TensorAttr, TensorMem, text, text_of,
};

/// Name of a function that only `rknnrt-sim` has, so that a caller knows that it is no board's runtime.
pub const SIMULATED: &str = "rockshard_rknnrt_sim";

/// A handle of a loaded model.
pub type Context = u64;

/// Extents that a [`TensorAttr`] has room for.
pub const MAX_DIMS: usize = 16;
/// Bytes that a name in a [`TensorAttr`] has room for, the final zero included.
pub const MAX_NAME: usize = 256;

/// Commands of `rknn_query`.
pub mod query {
    /// Gives [`crate::InOutNum`].
    pub const IN_OUT_NUM: u32 = 0;
    /// Gives [`crate::TensorAttr`] of the input whose index is in the struct.
    pub const INPUT_ATTR: u32 = 1;
    /// Gives [`crate::TensorAttr`] of an output.
    pub const OUTPUT_ATTR: u32 = 2;
    /// Gives [`crate::PerfRun`].
    pub const PERF_RUN: u32 = 4;
    /// Gives [`crate::SdkVersion`].
    pub const SDK_VERSION: u32 = 5;
    /// Gives [`crate::MemSize`].
    pub const MEM_SIZE: u32 = 6;
    /// Gives [`crate::CustomString`].
    pub const CUSTOM_STRING: u32 = 7;
    /// Gives [`crate::TensorAttr`] of an input as the NPU stores it.
    pub const NATIVE_INPUT_ATTR: u32 = 8;
    /// Gives [`crate::TensorAttr`] of an output as the NPU stores it.
    pub const NATIVE_OUTPUT_ATTR: u32 = 9;
    /// Gives [`crate::TensorAttr`] of an input with the channels last.
    pub const NATIVE_NHWC_INPUT_ATTR: u32 = 10;
    /// Gives [`crate::TensorAttr`] of an output with the channels last.
    pub const NATIVE_NHWC_OUTPUT_ATTR: u32 = 11;
}

/// Element types.
pub mod dtype {
    /// IEEE 754 binary32.
    pub const FLOAT32: u32 = 0;
    /// IEEE 754 binary16.
    pub const FLOAT16: u32 = 1;
    /// Signed 32-bit integer.
    pub const INT32: u32 = 6;
    /// Signed 64-bit integer.
    pub const INT64: u32 = 8;
    /// One byte a value.
    pub const BOOL: u32 = 9;
}

/// Orders of a tensor's elements.
pub mod format {
    /// Batch, channels, height, width.
    pub const NCHW: u32 = 0;
    /// Batch, height, width, channels.
    pub const NHWC: u32 = 1;
    /// Channels in groups, innermost: the NPU's own.
    pub const NC1HWC2: u32 = 2;
    /// Row-major, for tensors that have not four axes.
    pub const UNDEFINED: u32 = 3;
}

/// Cores that a context may run on.
pub mod core_mask {
    /// The driver picks.
    pub const AUTO: u32 = 0;
    /// What the driver accepts besides: one core, the first two, all three.
    pub const CORES: [u32; 5] = [1, 2, 4, 3, 7];
    /// All cores, however many; the runtime's, not the driver's.
    pub const ALL: u32 = 0xffff;
}

/// Flags of `rknn_init` that change what the calls mean; the others only tune.
pub mod flag {
    /// `rknn_run` returns at once, and outputs are the previous run's.
    pub const ASYNC: u32 = 0x4;
    /// The caller allocates all memory.
    pub const MEM_ALLOC_OUTSIDE: u32 = 0x10;
    /// Weights are those of another context.
    pub const SHARE_WEIGHT_MEM: u32 = 0x20;
    /// A run waits for a fence.
    pub const FENCE_IN_OUTSIDE: u32 = 0x40;
    /// A run gives a fence.
    pub const FENCE_OUT_OUTSIDE: u32 = 0x80;
    /// The model is only described, never run.
    pub const COLLECT_MODEL_INFO_ONLY: u32 = 0x100;
    /// The caller allocates the memory of activations.
    pub const INTERNAL_ALLOC_OUTSIDE: u32 = 0x200;
}

/// Flags of `rknn_create_mem2`.
pub mod alloc {
    /// The processor's caches hold it; the runtime flushes them around a run.
    pub const CACHEABLE: u64 = 0x1;
    /// Of no context: the handle may be 0, and contexts import it with `rknn_create_mem_from_fd`.
    pub const NO_CONTEXT: u64 = 0x2_0000;
}

/// Directions of `rknn_mem_sync`.
pub mod sync {
    /// The processor wrote, the NPU will read.
    pub const TO_DEVICE: u32 = 1;
    /// The NPU wrote, the processor will read.
    pub const FROM_DEVICE: u32 = 2;
    /// Both.
    pub const BIDIRECTIONAL: u32 = 3;
}
