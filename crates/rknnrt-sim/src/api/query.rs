//! `rknn_query`: one struct for each question, written where the caller has room for it.

use super::call::{code, with};
use crate::Refusal;
use crate::layout::{CHANNELS, Order, attributes};
use crate::system;
use rockshard_rknn_abi::{
    self as abi, Code, CustomString, InOutNum, MemSize, PerfRun, SdkVersion, TensorAttr, query,
    text,
};
use std::ffi::{c_int, c_void};
use std::hint::black_box;

/// In the library's file as the vendor's has it, for tools that look for the version there.
static BANNER: &str = "librknnrt version: 2.3.2 (rockshard rknnrt-sim)\0";
const DRIVER_VERSION: &str = "0.9.8";
const CUSTOM: &str = "simulated by rockshard: times are modelled";

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
