//! Calls of the C API, and graphs whose results the simulator's own tests hold.
#![allow(unsafe_code, dead_code)]

use rknnrt::*;
use rockshard_device::{Device, ShardFile};
use rockshard_device_sim::SimDevice;
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_rknn_abi::{Input, Output, dtype, format};
use rockshard_tensor::{Tensor, read_npy};
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../device-sim/tests/data").join(name)
}

pub fn inputs(name: &str, count: usize) -> Vec<Tensor> {
    (0..count)
        .map(|i| {
            read_npy(&std::fs::read(data(&format!("{name}.x{i}.npy"))).unwrap().into()).unwrap()
        })
        .collect()
}

/// What the simulator itself gives, as float32.
pub fn expected(name: &str, inputs: &[Tensor]) -> Vec<f32> {
    let path = data(&format!("{name}.onnx"));
    let graph = import_file(&path, &ImportOptions::fixed()).unwrap();
    let specs = |ids: &[rockshard_graph::ValueId]| {
        let values = ids.iter().map(|&v| graph.value(v));
        values
            .map(|v| TensorSpec {
                name: v.name.clone(),
                dtype: v.dtype,
                shape: v.shape.clone(),
                scale: 1.0,
            })
            .collect()
    };
    let shard = ShardFile {
        name: name.into(),
        path,
        inputs: specs(&graph.inputs),
        outputs: specs(&graph.outputs),
    };
    let outputs =
        SimDevice::default().open(&shard, CoreId::Npu(0)).unwrap().run(inputs).unwrap().outputs;
    outputs[0].to_f32().unwrap().into_owned()
}

pub fn init(path: &Path, flags: u32) -> Result<u64, i32> {
    let (mut context, path) = (0, CString::new(path.to_str().unwrap()).unwrap());
    // SAFETY: the path ends with a zero and both outlive the call.
    match unsafe { rknn_init(&raw mut context, path.as_ptr() as *mut c_void, 0, flags, null_mut()) }
    {
        0 => Ok(context),
        code => Err(code),
    }
}

pub fn init_memory(model: &[u8]) -> Result<u64, i32> {
    let mut context = 0;
    // SAFETY: the size is that of the model.
    match unsafe {
        rknn_init(
            &raw mut context,
            model.as_ptr() as *mut c_void,
            model.len() as u32,
            0,
            null_mut(),
        )
    } {
        0 => Ok(context),
        code => Err(code),
    }
}

pub fn open(name: &str) -> u64 {
    init(&data(&format!("{name}.onnx")), 0).unwrap()
}

pub fn ask<T>(context: u64, command: u32, mut info: T) -> Result<T, i32> {
    // SAFETY: the size is that of the struct.
    match unsafe { rknn_query(context, command, (&raw mut info).cast(), size_of::<T>() as u32) } {
        0 => Ok(info),
        code => Err(code),
    }
}

pub fn set(context: u64, index: u32, bytes: &[u8], dtype: u32, fmt: u32, pass_through: u8) -> i32 {
    let mut input = Input {
        index,
        buf: bytes.as_ptr() as *mut c_void,
        size: bytes.len() as u32,
        pass_through,
        dtype,
        fmt,
    };
    // SAFETY: one input, whose size is that of its bytes.
    unsafe { rknn_inputs_set(context, 1, &raw mut input) }
}

/// The only output as float32, into the caller's memory.
pub fn get(context: u64, count: usize) -> Result<Vec<f32>, i32> {
    let mut values = vec![0f32; count];
    let mut output = Output {
        want_float: 1,
        is_prealloc: 1,
        index: 0,
        buf: values.as_mut_ptr().cast(),
        size: (count * 4) as u32,
    };
    // SAFETY: one output, whose size is that of the values.
    match unsafe { rknn_outputs_get(context, 1, &raw mut output, null_mut()) } {
        0 => Ok(values),
        code => Err(code),
    }
}

/// Set all, run, get.
pub fn whole(context: u64, given: &[Tensor], count: usize) -> Vec<f32> {
    for (i, tensor) in given.iter().enumerate() {
        assert_eq!(set(context, i as u32, tensor.bytes(), dtype::FLOAT16, format::NCHW, 0), 0);
    }
    assert_eq!(rknn_run(context, null_mut()), 0);
    get(context, count).unwrap()
}
