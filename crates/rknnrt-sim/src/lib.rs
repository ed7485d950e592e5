//! `librknnrt.so` without a board: the C API of librknnrt 2.3.2 over the simulated RK3588, for 64-bit machines.
//!
//! A model is a shard as `rockshard convert` writes it: an `.onnx` file, with its external data beside it, or one without external
//! data in memory. Anything else, a compiled `.rknn` too, is refused with `RKNN_ERR_MODEL_INVALID`. Why a call is refused is
//! printed on standard error, as the vendor's runtime does.
//!
//! What is as in the vendor's runtime: tensors of four axes have attributes with the channels last as inputs and in ONNX's order as
//! outputs; elements are float16 inside; a context holds the inputs and outputs of one run; duplicated contexts share their weights;
//! memory is of a context or of none, and others import it by its descriptor; inputs and outputs that lie in memory in the NPU's
//! layout are not converted, and cost no time; and what [`rockshard_device_sim::Driver`] keeps of the driver: core masks, queues, resets
//! and the address space of a process.
//!
//! What is not: `rknn_outputs_get` must ask for all outputs (the vendor's runtime reads past a shorter array); times are modelled,
//! for one core, whatever the mask; quantised types, dynamic shapes and flags that change what calls mean are refused, but for the one
//! that has activations outside; native NHWC tensors have no padding. A handle that was destroyed, memory that this library did not
//! give out, and threads that use one context without taking turns (`turns`) are errors. `system` says how the environment describes
//! another chip.
//!
//! `api` is the boundary and holds all unsafe code but that of `memory`; the other modules see slices and tensors.

mod api;
mod context;
mod layout;
mod memory;
mod model;
mod system;
mod turns;

pub use api::{
    rknn_create_mem, rknn_create_mem_from_fd, rknn_create_mem2, rknn_destroy, rknn_destroy_mem,
    rknn_dup_context, rknn_init, rknn_inputs_set, rknn_mem_sync, rknn_outputs_get,
    rknn_outputs_release, rknn_query, rknn_run, rknn_set_batch_core_num, rknn_set_core_mask,
    rknn_set_internal_mem, rknn_set_io_mem, rockshard_rknnrt_sim,
};

use rockshard_rknn_abi::Code;

/// Why a call is refused: what the caller gets, and what is printed.
#[derive(Debug)]
struct Refusal {
    code: Code,
    detail: String,
}

impl Refusal {
    fn new(code: Code, detail: impl std::fmt::Display) -> Self {
        Refusal { code, detail: detail.to_string() }
    }
}
