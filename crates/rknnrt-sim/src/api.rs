//! The functions of the C API. Each checks its pointers, turns what they point to into slices, and gives a code. Here are contexts and runs;
//! `query` has questions, `memories` memory, and `call` what all of them are made with.
//!
//! What every function's caller promises, as for the vendor's library: a pointer is null or points to as much memory as its type or
//! the size beside it says, valid until the call returns. Handles may be any number.
#![allow(unsafe_code, non_camel_case_types)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod call;
mod memories;
mod query;

pub use memories::{
    rknn_create_mem, rknn_create_mem_from_fd, rknn_create_mem2, rknn_destroy_mem, rknn_mem_sync,
    rknn_set_internal_mem, rknn_set_io_mem,
};
pub use query::rknn_query;

use crate::Refusal;
use crate::context::{Bound, Context};
use crate::layout::{CHANNELS, Layout, Order};
use crate::memory;
use crate::model::Model;
use call::{code, given, many, null, one, register, step, unregister, with};
use rockshard_rknn_abi::{
    self as abi, Code, InitExtend, Input, Output, OutputExtend, RunExtend, flag,
};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

/// Flags that would change what later calls mean.
const UNSUPPORTED: u32 = flag::ASYNC
    | flag::MEM_ALLOC_OUTSIDE
    | flag::SHARE_WEIGHT_MEM
    | flag::FENCE_IN_OUTSIDE
    | flag::FENCE_OUT_OUTSIDE
    | flag::COLLECT_MODEL_INFO_ONLY;

/// Marks this library as the simulated one; see [`abi::SIMULATED`].
#[unsafe(no_mangle)]
pub extern "C" fn rockshard_rknnrt_sim() {}

/// Load a model: `model` is a path when `size` is 0, else the model.
///
/// # Safety
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_init(
    context: *mut abi::Context,
    model: *mut c_void,
    size: u32,
    flags: u32,
    _extend: *mut InitExtend,
) -> c_int {
    code("rknn_init", || {
        // SAFETY: the C caller promises valid pointers.
        let handle = unsafe { one(context, "context") }?;
        if flags & UNSUPPORTED != 0 {
            return Err(Refusal::new(
                Code::Param,
                format!("flags {:#x} are not simulated", flags & UNSUPPORTED),
            ));
        }
        if model.is_null() {
            return Err(null("model"));
        }
        let model = if size == 0 {
            // SAFETY: with size 0 the C caller promises text that ends with a zero.
            let path = unsafe { CStr::from_ptr(model.cast::<c_char>()) };
            let path = path
                .to_str()
                .map_err(|_| Refusal::new(Code::Param, "the model's path is not UTF-8"))?;
            Model::open(Path::new(path))?
        } else {
            // SAFETY: the C caller promises `size` bytes.
            Model::decode(unsafe { given(model.cast::<u8>(), size, "model") }?)?
        };
        *handle =
            register(Context::new(Arc::new(model), flags & flag::INTERNAL_ALLOC_OUTSIDE != 0)?);
        Ok(())
    })
}

/// Another context of the same model.
///
/// # Safety
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_dup_context(
    context: *mut abi::Context,
    made: *mut abi::Context,
) -> c_int {
    code("rknn_dup_context", || {
        // SAFETY: the C caller promises valid pointers; the handle is copied before the other is written.
        let (from, to) = unsafe { (*one(context, "context_in")?, one(made, "context_out")?) };
        *to = register(with(from, |context| context.twin())?);
        Ok(())
    })
}

/// Forget a context. Its memories stay until `rknn_destroy_mem`.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_destroy(context: abi::Context) -> c_int {
    code("rknn_destroy", || unregister(context))
}

/// Give inputs; they stay until they are given again.
///
/// # Safety
/// As the module says, for the array and for each `buf`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_inputs_set(
    context: abi::Context,
    count: u32,
    inputs: *mut Input,
) -> c_int {
    code("rknn_inputs_set", || {
        step(context, |context| {
            // SAFETY: the C caller promises `count` inputs.
            let inputs = unsafe { given(inputs, count, "inputs") }?;
            for input in inputs {
                let spec = context.input(input.index)?.clone();
                let layout = if input.pass_through != 0 {
                    Some(Layout::native(&spec, CHANNELS))
                } else {
                    Layout::of(input.dtype, input.fmt, &spec.shape, CHANNELS)
                        .filter(|l| !matches!(l.order, Order::Groups(_)))
                };
                let layout = layout.ok_or_else(|| {
                    let detail = format!(
                        "input {:?}: type {}, format {} are not simulated",
                        spec.name, input.dtype, input.fmt
                    );
                    Refusal::new(Code::Input, detail)
                })?;
                // SAFETY: the C caller promises `size` bytes.
                let buffer =
                    unsafe { given(input.buf.cast::<u8>(), input.size, "an input's buf") }?;
                context.set(input.index as usize, layout.read(buffer, &spec)?);
            }
            Ok(())
        })
    })
}

/// Run once, and return when it is done.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_run(context: abi::Context, _extend: *mut RunExtend) -> c_int {
    code("rknn_run", || {
        step(context, |context| {
            for ((bound, spec), input) in context
                .bound_inputs
                .iter()
                .zip(&context.model.shard.inputs)
                .zip(&mut context.inputs)
            {
                if let Some(Bound { memory, layout, .. }) = bound {
                    *input = Some(layout.read(&memory.read(layout.bytes(&spec.shape))?, spec)?);
                }
            }
            context.run()?;
            for (bound, tensor) in
                context.bound_outputs.iter().zip(context.outputs.iter().flatten())
            {
                if let Some(Bound { memory, layout, .. }) = bound {
                    let mut contents = vec![0; layout.bytes(tensor.shape())];
                    layout.write(tensor, &mut contents)?;
                    memory.write(&contents)?;
                }
            }
            Ok(())
        })
    })
}

/// Get all outputs of the last run, in ONNX's order.
///
/// # Safety
/// As the module says, for the array and for each `buf` that is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_outputs_get(
    context: abi::Context,
    count: u32,
    outputs: *mut Output,
    _extend: *mut OutputExtend,
) -> c_int {
    code("rknn_outputs_get", || {
        step(context, |context| {
            let all = context.model.shard.outputs.len();
            if (count as usize) < all {
                let detail = format!(
                    "{count} outputs asked for, the model has {all}: the runtime writes to all of them"
                );
                return Err(Refusal::new(Code::Param, detail));
            }
            context.get()?;
            // SAFETY: the C caller promises `count` outputs.
            let outputs = unsafe { many(outputs, count, "outputs") }?;
            for (at, output) in outputs[..all].iter_mut().enumerate() {
                let index = if output.is_prealloc != 0 { output.index } else { at as u32 };
                let (tensor, layout) = context.result(index, output.want_float != 0)?;
                let bytes = layout.bytes(tensor.shape());
                let mut contents = vec![0; bytes];
                layout.write(tensor, &mut contents)?;
                if output.is_prealloc == 0 {
                    output.buf = memory::output(&contents)?;
                    (output.index, output.size) = (index, bytes as u32);
                } else if (output.size as usize) < bytes {
                    let detail =
                        format!("output {index} takes {bytes} bytes, its buf has {}", output.size);
                    return Err(Refusal::new(Code::Output, detail));
                } else {
                    // SAFETY: the C caller promises `size` bytes, and they are enough.
                    unsafe { many(output.buf.cast::<u8>(), bytes as u32, "an output's buf") }?
                        .copy_from_slice(&contents);
                }
            }
            Ok(())
        })
    })
}

/// Free what `rknn_outputs_get` allocated.
///
/// # Safety
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_outputs_release(
    context: abi::Context,
    count: u32,
    outputs: *mut Output,
) -> c_int {
    code("rknn_outputs_release", || {
        with(context, |_| Ok(()))?;
        // SAFETY: the C caller promises `count` outputs.
        for output in unsafe { many(outputs, count, "outputs") }? {
            if output.is_prealloc == 0 && memory::release(output.buf) {
                output.buf = null_mut();
                output.size = 0;
            }
        }
        Ok(())
    })
}

/// Choose the cores.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_set_core_mask(context: abi::Context, mask: u32) -> c_int {
    code("rknn_set_core_mask", || with(context, |context| context.set_mask(mask)))
}

/// For models that were built with a batch, which shards are not.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_set_batch_core_num(context: abi::Context, _cores: c_int) -> c_int {
    let refuse = |_: &mut Context| {
        Err(Refusal::new(Code::Param, "the model was not built with rknn_batch_size"))
    };
    code("rknn_set_batch_core_num", || with(context, refuse))
}
