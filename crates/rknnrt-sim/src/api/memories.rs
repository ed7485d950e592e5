//! The functions of the C API for memory that the NPU reaches, and for what it stands for. The memories themselves are in
//! [`memory`](crate::memory).

use super::call::{answer, code, one, with};
use crate::context::Bound;
use crate::layout::{CHANNELS, Layout, stored};
use crate::{Refusal, memory};
use rockshard_rknn_abi::{self as abi, Code, TensorAttr, TensorMem, alloc, sync, text_of};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// Memory that the NPU reaches; null where it cannot be had.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_create_mem(context: abi::Context, size: u32) -> *mut TensorMem {
    answer("rknn_create_mem", || with(context, |_| memory::create(context, size)))
        .unwrap_or(null_mut())
}

/// As `rknn_create_mem`, with flags: of no context with [`alloc::NO_CONTEXT`]. What the others say of caches and SRAM makes no difference here.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_create_mem2(context: abi::Context, size: u64, flags: u64) -> *mut TensorMem {
    let made = || {
        let size = u32::try_from(size)
            .map_err(|_| Refusal::new(Code::Malloc, format!("{size} bytes are over 4 GiB")))?;
        if flags & alloc::NO_CONTEXT != 0 {
            memory::create(0, size)
        } else {
            with(context, |_| memory::create(context, size))
        }
    };
    answer("rknn_create_mem2", made).unwrap_or(null_mut())
}

/// Memory of a context that stands for `size` bytes from `offset` of a buffer, which another context may have made; null where it cannot be had.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_create_mem_from_fd(
    context: abi::Context,
    fd: i32,
    virt_addr: *mut c_void,
    size: u32,
    offset: i32,
) -> *mut TensorMem {
    let import = || with(context, |_| memory::import(context, fd, virt_addr, size, offset));
    answer("rknn_create_mem_from_fd", import).unwrap_or(null_mut())
}

/// Free memory. An input or output that it stood for is an error of the next run.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_destroy_mem(_context: abi::Context, mem: *mut TensorMem) -> c_int {
    code("rknn_destroy_mem", || memory::destroy(mem))
}

/// Let memory stand for the input or output whose name is in `attr`, in the type and format that are there.
///
/// # Safety
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_set_io_mem(
    handle: abi::Context,
    mem: *mut TensorMem,
    attr: *mut TensorAttr,
) -> c_int {
    code("rknn_set_io_mem", || {
        with(handle, |context| {
            // SAFETY: the C caller promises an attribute.
            let attr = unsafe { *one(attr, "attr")? };
            let (memory, bytes) = memory::find(handle, mem)?;
            let name = text_of(&attr.name);
            let shard = &context.model.shard;
            let named = |t: &rockshard_manifest::TensorSpec| t.name == name;
            let input = shard.inputs.iter().position(named);
            let output = shard.outputs.iter().position(named);
            let (spec, channels, place) = match (input, output) {
                (Some(at), _) => (&shard.inputs[at], CHANNELS, &mut context.bound_inputs[at]),
                (None, Some(at)) => (
                    &shard.outputs[at],
                    context.model.output_channels[at],
                    &mut context.bound_outputs[at],
                ),
                (None, None) => {
                    return Err(Refusal::new(
                        Code::Param,
                        format!("{name:?} is no input or output"),
                    ));
                }
            };
            let native = Layout::native(spec, channels);
            let layout = if attr.pass_through != 0 {
                Some(native)
            } else {
                Layout::of(attr.dtype, attr.fmt, &spec.shape, channels)
            };
            let layout = layout.filter(|l| {
                if input.is_some() {
                    l.dtype.is_float()
                } else {
                    l.dtype.is_float() || l.dtype == stored(spec)
                }
            });
            let layout = layout.ok_or_else(|| {
                Refusal::new(
                    Code::Param,
                    format!("{name:?}: type {}, format {} are not simulated", attr.dtype, attr.fmt),
                )
            })?;
            let needs = layout.bytes(&spec.shape);
            if bytes < needs {
                return Err(Refusal::new(
                    Code::Param,
                    format!("{name:?} takes {needs} bytes, the memory has {bytes}"),
                ));
            }
            *place = Some(Bound { memory, layout, native: layout == native });
            Ok(())
        })
    })
}

/// Let memory stand for the activations of a context that was opened with `RKNN_FLAG_INTERNAL_ALLOC_OUTSIDE`.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_set_internal_mem(handle: abi::Context, mem: *mut TensorMem) -> c_int {
    code("rknn_set_internal_mem", || {
        with(handle, |context| {
            let (memory, bytes) = memory::find(handle, mem)?;
            context.set_internal(memory, bytes)
        })
    })
}

/// Does nothing but check: the simulator reads and writes the caller's memory itself.
#[unsafe(no_mangle)]
pub extern "C" fn rknn_mem_sync(context: abi::Context, mem: *mut TensorMem, mode: u32) -> c_int {
    code("rknn_mem_sync", || {
        with(context, |_| memory::check(mem))?;
        match mode {
            sync::TO_DEVICE | sync::FROM_DEVICE | sync::BIDIRECTIONAL => Ok(()),
            _ => Err(Refusal::new(Code::Param, format!("mode {mode} is none of 1, 2, 3"))),
        }
    })
}
