//! The functions of the C API. Each checks its pointers, turns what they point to into slices, and gives a code.
//!
//! What every function's caller promises, as for the vendor's library: a pointer is null or points to as much memory as its type or
//! the size beside it says, valid until the call returns. Handles may be any number.
#![allow(unsafe_code, non_camel_case_types)]
#![warn(clippy::undocumented_unsafe_blocks)]

use crate::Refusal;
use crate::context::{Bound, Context, overlap};
use crate::layout::{CHANNELS, Layout, Order, attributes, stored};
use crate::model::Model;
use crate::{memory, system};
use rockshard_rknn_abi::{
    self as abi, Code, CustomString, InOutNum, InitExtend, Input, MemSize, Output, OutputExtend,
    PerfRun, RunExtend, SdkVersion, TensorAttr, TensorMem, alloc, flag, query, sync, text, text_of,
};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

/// In the library's file as the vendor's has it, for tools that look for the version there.
static BANNER: &str = "librknnrt version: 2.3.2 (rockshard rknnrt-sim)\0";
const DRIVER_VERSION: &str = "0.9.8";
const CUSTOM: &str = "simulated by rockshard: times are modelled";
/// Flags that would change what later calls mean.
const UNSUPPORTED: u32 = flag::ASYNC
    | flag::MEM_ALLOC_OUTSIDE
    | flag::SHARE_WEIGHT_MEM
    | flag::FENCE_IN_OUTSIDE
    | flag::FENCE_OUT_OUTSIDE
    | flag::COLLECT_MODEL_INFO_ONLY;

/// A context, and whether a call of another thread came while one was under way.
struct Slot {
    context: Mutex<Context>,
    disturbed: AtomicBool,
}

type Shared = Arc<Slot>;

/// Loaded contexts, and the handle given last. Handles are never used again.
static CONTEXTS: Mutex<(abi::Context, Option<HashMap<abi::Context, Shared>>)> =
    Mutex::new((0, None));

fn register(context: Context) -> abi::Context {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.0 += 1;
    let handle = contexts.0;
    contexts.1.get_or_insert_default().insert(
        handle,
        Arc::new(Slot { context: Mutex::new(context), disturbed: AtomicBool::new(false) }),
    );
    handle
}

fn gone() -> Refusal {
    Refusal::new(Code::Context, "the context is not one, or was destroyed")
}

fn find(handle: abi::Context) -> Result<Shared, Refusal> {
    let contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.1.as_ref().and_then(|c| c.get(&handle).cloned()).ok_or_else(gone)
}

fn panicked<T>(_: T) -> Refusal {
    Refusal::new(Code::Context, "a run of this context panicked")
}

/// A call that may wait for others of the context.
fn with<T>(
    handle: abi::Context,
    work: impl FnOnce(&mut Context) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let shared = find(handle)?;
    let mut context = shared.context.lock().map_err(panicked)?;
    work(&mut context)
}

/// A call of a run's step. Another one under way is an overlap, which spoils what that one gives.
fn step<T>(
    handle: abi::Context,
    work: impl FnOnce(&mut Context) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let shared = find(handle)?;
    let mut context = match shared.context.try_lock() {
        Ok(context) => context,
        Err(TryLockError::Poisoned(poisoned)) => return Err(panicked(poisoned)),
        Err(TryLockError::WouldBlock) => {
            overlap(false, "uses a context that another thread is using")?;
            shared.disturbed.store(true, Ordering::SeqCst);
            shared.context.lock().map_err(panicked)?
        }
    };
    let result = work(&mut context);
    if shared.disturbed.swap(false, Ordering::SeqCst) {
        context.spoil();
    }
    result
}

/// The value of a call, or the code of its refusal. A panic is `RKNN_ERR_FAIL`.
fn answer<T>(call: &str, work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, c_int> {
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Refusal::new(Code::Fail, "the simulator panicked")));
    result.map_err(|refusal| {
        // Where standard error is closed, the code is all there is.
        let _ = writeln!(
            std::io::stderr(),
            "E RKNN: [{call}] {}: {}",
            refusal.code.name(),
            refusal.detail
        );
        refusal.code.raw()
    })
}

fn code(call: &str, work: impl FnOnce() -> Result<(), Refusal>) -> c_int {
    answer(call, work).err().unwrap_or(0)
}

fn null(what: &str) -> Refusal {
    Refusal::new(Code::Param, format!("{what} is null"))
}

/// A caller's pointer as a reference.
///
/// # Safety
/// As the module says; nothing else uses the memory meanwhile.
unsafe fn one<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Refusal> {
    // SAFETY: the caller of the C API promises memory of this type.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
}

/// A caller's array.
///
/// # Safety
/// As the module says; nothing else uses the memory meanwhile.
unsafe fn many<'a, T>(pointer: *mut T, count: u32, what: &str) -> Result<&'a mut [T], Refusal> {
    match count {
        0 => Ok(&mut []),
        _ if pointer.is_null() => Err(null(what)),
        // SAFETY: the caller of the C API promises `count` elements.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count as usize) }),
    }
}

/// A caller's array that is only read; others may read it meanwhile.
///
/// # Safety
/// As the module says.
unsafe fn given<'a, T>(pointer: *const T, count: u32, what: &str) -> Result<&'a [T], Refusal> {
    match count {
        0 => Ok(&[]),
        _ if pointer.is_null() => Err(null(what)),
        // SAFETY: the caller of the C API promises `count` elements.
        _ => Ok(unsafe { std::slice::from_raw_parts(pointer, count as usize) }),
    }
}

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
    code("rknn_destroy", || {
        let removed = CONTEXTS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .as_mut()
            .and_then(|c| c.remove(&context));
        removed.map(drop).ok_or_else(gone)
    })
}

/// Ask about a context.
///
/// # Safety
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rknn_query(
    context: abi::Context,
    command: u32,
    info: *mut c_void,
    size: u32,
) -> c_int {
    code("rknn_query", || {
        with(context, |context| {
            let shard = &context.model.shard;
            let attr = |output: bool, order: Option<Order>| {
                // SAFETY: an attribute is asked for with its index in the struct; the size is checked when the answer is written.
                let index = unsafe { asked(info, size) }?;
                let spec = if output { context.output(index) } else { context.input(index) };
                let channels =
                    if output { context.model.output_channels.get(index as usize) } else { None };
                let order = order.unwrap_or(Order::Groups(*channels.unwrap_or(&CHANNELS)));
                // SAFETY: the C caller promises `size` bytes.
                unsafe { put(info, size, attributes(index, spec?, order)) }
            };
            let (weight, internal) = (context.model.weight_bytes, context.model.internal_bytes);
            // SAFETY, of each `put`: the C caller promises `size` bytes.
            match command {
                query::IN_OUT_NUM => {
                    let numbers = InOutNum {
                        n_input: shard.inputs.len() as u32,
                        n_output: shard.outputs.len() as u32,
                    };
                    // SAFETY: as above.
                    unsafe { put(info, size, numbers) }
                }
                query::INPUT_ATTR | query::NATIVE_NHWC_INPUT_ATTR => {
                    attr(false, Some(Order::ChannelsLast))
                }
                query::OUTPUT_ATTR => attr(true, Some(Order::Plain)),
                query::NATIVE_INPUT_ATTR => attr(false, None),
                query::NATIVE_OUTPUT_ATTR => attr(true, None),
                query::NATIVE_NHWC_OUTPUT_ATTR => attr(true, Some(Order::ChannelsLast)),
                // SAFETY: as above.
                query::PERF_RUN => unsafe {
                    put(info, size, PerfRun { run_duration: context.micros })
                },
                query::SDK_VERSION => {
                    // The compiler is not to know which part of the text is used, so that all of it is in the file.
                    let version = black_box(BANNER)
                        .rsplit(": ")
                        .next()
                        .unwrap_or_default()
                        .trim_end_matches('\0');
                    // SAFETY: as above.
                    unsafe {
                        put(
                            info,
                            size,
                            SdkVersion {
                                api_version: text(version),
                                drv_version: text(DRIVER_VERSION),
                            },
                        )
                    }
                }
                query::MEM_SIZE => {
                    let sram = system::driver()?.chip().sram_bytes;
                    let (w, i) = (
                        u32::try_from(weight).unwrap_or(u32::MAX),
                        u32::try_from(internal).unwrap_or(u32::MAX),
                    );
                    let sizes = MemSize {
                        total_weight_size: w,
                        total_internal_size: i,
                        total_dma_allocated_size: weight + internal,
                        total_sram_size: sram,
                        free_sram_size: sram,
                        ..MemSize::default()
                    };
                    // SAFETY: as above.
                    unsafe { put(info, size, sizes) }
                }
                // SAFETY: as above.
                query::CUSTOM_STRING => unsafe {
                    put(info, size, CustomString { string: text(CUSTOM) })
                },
                other => Err(Refusal::new(Code::Param, format!("query {other} is not simulated"))),
            }
        })
    })
}

/// The index in an attribute that is asked for.
///
/// # Safety
/// As the module says.
unsafe fn asked(info: *mut c_void, size: u32) -> Result<u32, Refusal> {
    if info.is_null() || (size as usize) < size_of::<TensorAttr>() {
        return Err(Refusal::new(
            Code::Param,
            format!("info is null, or smaller ({size}) than rknn_tensor_attr"),
        ));
    }
    // SAFETY: the index is at the start of the struct, and there are enough bytes.
    Ok(unsafe { info.cast::<u32>().read_unaligned() })
}

/// Write an answer.
///
/// # Safety
/// As the module says.
unsafe fn put<T: Copy>(info: *mut c_void, size: u32, value: T) -> Result<(), Refusal> {
    if info.is_null() || (size as usize) < size_of::<T>() {
        return Err(Refusal::new(
            Code::Param,
            format!("info is null, or has {size} bytes of {}", size_of::<T>()),
        ));
    }
    // SAFETY: there are enough bytes.
    unsafe { info.cast::<T>().write_unaligned(value) };
    Ok(())
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

/// Let memory stand for the activations of a context that was opened with [`flag::INTERNAL_ALLOC_OUTSIDE`].
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
