//! The library as a C program calls it, on graphs whose results the simulator's own tests hold.
#![allow(unsafe_code)]

mod common;

use common::{ask, data, expected, get, init, init_memory, inputs, open, set, whole};
use prost::Message;
use rknnrt::*;
use rockshard_onnx::schema::{StringStringEntryProto, tensor_proto::DataLocation};
use rockshard_rknn_abi::{
    CustomString, InOutNum, MemSize, Output, PerfRun, SdkVersion, TensorAttr, TensorMem, alloc,
    core_mask, dtype, flag, format, query, text, text_of,
};
use rockshard_tensor::{DType, Tensor};
use std::collections::BTreeSet;
use std::ptr::null_mut;

const CASES: [(&str, usize); 3] = [("conv-swish", 1), ("conv-residual", 2), ("attention", 3)];

/// Elements of a [1, C, H, W] tensor of 8 C channels or fewer in the order of `place`.
fn moved(tensor: &Tensor, place: impl Fn([usize; 3], [usize; 3]) -> usize) -> Vec<u8> {
    let &[1, c, h, w] = tensor.shape() else { panic!("four axes") };
    let size = tensor.dtype().size();
    let mut out = vec![0; tensor.bytes().len()];
    for at in 0..c * h * w {
        let to = place([c, h, w], [at / (h * w), at / w % h, at % w]);
        out[to * size..][..size].copy_from_slice(&tensor.bytes()[at * size..][..size]);
    }
    out
}

fn channels_last(tensor: &Tensor) -> Vec<u8> {
    moved(tensor, |[c, _, w], [channel, y, x]| (y * w + x) * c + channel)
}

fn groups(tensor: &Tensor) -> Vec<u8> {
    moved(tensor, |[_, h, w], [channel, y, x]| ((channel / 8 * h + y) * w + x) * 8 + channel % 8)
}

#[test]
fn results_are_the_simulators_in_every_layout() {
    for (name, count) in CASES {
        let given = inputs(name, count);
        let (wanted, context) = (expected(name, &given), open(name));
        assert_eq!(whole(context, &given, wanted.len()), wanted, "{name}");
        let four = given[0].shape().len() == 4;
        for (i, tensor) in given.iter().enumerate() {
            let wide = tensor.to_float(DType::F32).unwrap();
            assert_eq!(
                set(context, i as u32, wide.bytes(), dtype::FLOAT32, format::UNDEFINED, 0),
                0
            );
            if four {
                assert_eq!(
                    set(context, i as u32, &channels_last(&wide), dtype::FLOAT32, format::NHWC, 0),
                    0
                );
            }
        }
        assert_eq!(rknn_run(context, null_mut()), 0);
        assert_eq!(get(context, wanted.len()).unwrap(), wanted, "{name}, float32");
        for (i, tensor) in given.iter().enumerate() {
            let native = if four { groups(tensor) } else { tensor.bytes().to_vec() };
            assert_eq!(set(context, i as u32, &native, 0, 0, 1), 0);
        }
        assert_eq!(rknn_run(context, null_mut()), 0);
        let mut output =
            Output { want_float: 0, is_prealloc: 0, index: 0, buf: null_mut(), size: 0 };
        // SAFETY: one output; its memory is read before it is released, as float16, of which there are `size / 2`.
        let half = unsafe {
            assert_eq!(rknn_outputs_get(context, 1, &raw mut output, null_mut()), 0);
            let bytes =
                std::slice::from_raw_parts(output.buf.cast::<u8>(), output.size as usize).to_vec();
            assert_eq!(rknn_outputs_release(context, 1, &raw mut output), 0);
            assert!(output.buf.is_null());
            assert_eq!(rknn_outputs_release(context, 1, &raw mut output), 0);
            bytes
        };
        let half = Tensor::new(DType::F16, vec![wanted.len()], half.into()).unwrap();
        assert_eq!(*half.to_f32().unwrap(), *wanted, "{name}, native");
        assert_eq!(rknn_destroy(context), 0);
    }
}

#[test]
fn queries_describe_the_model() {
    let context = open("conv-residual");
    let numbers = ask(context, query::IN_OUT_NUM, InOutNum::default()).unwrap();
    assert_eq!((numbers.n_input, numbers.n_output), (2, 1));
    let table: [(u32, &[u32], u32, u32); 6] = [
        (query::INPUT_ATTR, &[1, 8, 8, 16], format::NHWC, 2048),
        (query::OUTPUT_ATTR, &[1, 16, 8, 8], format::NCHW, 2048),
        (query::NATIVE_INPUT_ATTR, &[1, 2, 8, 8, 8], format::NC1HWC2, 2048),
        (query::NATIVE_OUTPUT_ATTR, &[1, 2, 8, 8, 8], format::NC1HWC2, 2048),
        (query::NATIVE_NHWC_INPUT_ATTR, &[1, 8, 8, 16], format::NHWC, 2048),
        (query::NATIVE_NHWC_OUTPUT_ATTR, &[1, 8, 8, 16], format::NHWC, 2048),
    ];
    for (command, extents, fmt, size) in table {
        let attr = ask(context, command, TensorAttr::of(0)).unwrap();
        assert_eq!(
            (attr.extents(), attr.fmt, attr.size, attr.dtype),
            (extents, fmt, size, dtype::FLOAT16),
            "query {command}"
        );
        assert_eq!(
            (attr.n_elems, attr.scale, attr.w_stride, attr.index),
            (1024, 1.0, 8, 0),
            "query {command}"
        );
    }
    assert_eq!(ask(context, query::INPUT_ATTR, TensorAttr::of(2)).unwrap_err(), -5);
    let tokens = open("attention");
    let attr = ask(tokens, query::INPUT_ATTR, TensorAttr::of(1)).unwrap();
    assert_eq!((attr.extents(), attr.fmt, attr.w_stride), (&[1, 48, 64][..], format::UNDEFINED, 0));
    assert!(!text_of(&attr.name).is_empty());

    let version = ask(
        context,
        query::SDK_VERSION,
        SdkVersion { api_version: [1; 256], drv_version: [1; 256] },
    )
    .unwrap();
    assert!(
        text_of(&version.api_version).starts_with("2.3.2 (rockshard"),
        "{}",
        text_of(&version.api_version)
    );
    assert_eq!(text_of(&version.drv_version), "0.9.8");
    assert!(
        text_of(
            &ask(context, query::CUSTOM_STRING, CustomString { string: [1; 1024] }).unwrap().string
        )
        .contains("modelled")
    );
    let memory = ask(context, query::MEM_SIZE, MemSize::default()).unwrap();
    assert!(
        memory.total_weight_size > 0
            && memory.total_internal_size > 0
            && memory.total_sram_size == 0,
        "{memory:?}"
    );
    assert_eq!(ask(context, query::PERF_RUN, PerfRun::default()).unwrap().run_duration, 0);
    whole(context, &inputs("conv-residual", 2), 1024);
    assert!(ask(context, query::PERF_RUN, PerfRun::default()).unwrap().run_duration > 0);
    assert_eq!(ask(context, query::PERF_RUN, 0u32).unwrap_err(), -5, "a struct too small");
    assert_eq!(ask(context, 99, 0u32).unwrap_err(), -5);
}

#[test]
fn memory_stands_for_inputs_and_outputs() {
    let given = inputs("conv-residual", 2);
    let wanted = Tensor::from_f32([1, 16, 8, 8], expected("conv-residual", &given));
    let context = open("conv-residual");
    let bind = |command, index, dtype, fmt, bytes| -> *mut TensorMem {
        let mem = rknn_create_mem(context, bytes);
        let mut attr = ask(context, command, TensorAttr::of(index)).unwrap();
        (attr.dtype, attr.fmt) = (dtype, fmt);
        // SAFETY: the memory is the library's, the attribute is alive.
        assert_eq!(unsafe { rknn_set_io_mem(context, mem, &raw mut attr) }, 0);
        mem
    };
    let first = bind(query::INPUT_ATTR, 0, dtype::FLOAT16, format::NHWC, 2048);
    let second = bind(query::NATIVE_INPUT_ATTR, 1, dtype::FLOAT16, format::NC1HWC2, 4096);
    let output = bind(query::OUTPUT_ATTR, 0, dtype::FLOAT32, format::NHWC, 4096);
    for (mem, bytes) in [(first, channels_last(&given[0])), (second, groups(&given[1]))] {
        // SAFETY: the memory has at least as many bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (*mem).virt_addr.cast(), bytes.len())
        };
        assert_eq!(rknn_mem_sync(context, mem, 1), 0);
    }
    assert_eq!(rknn_run(context, null_mut()), 0);
    assert_eq!(rknn_mem_sync(context, output, 2), 0);
    // SAFETY: the memory has 4096 bytes.
    let found =
        unsafe { std::slice::from_raw_parts((*output).virt_addr.cast::<u8>(), 4096) }.to_vec();
    assert_eq!(found, channels_last(&wanted));

    assert_eq!(rknn_mem_sync(context, output, 4), -5);
    let mut attr = ask(context, query::OUTPUT_ATTR, TensorAttr::of(0)).unwrap();
    let small = rknn_create_mem(context, 2047);
    // SAFETY: as above.
    assert_eq!(unsafe { rknn_set_io_mem(context, small, &raw mut attr) }, -5);
    attr.name = text("nothing");
    // SAFETY: as above.
    assert_eq!(unsafe { rknn_set_io_mem(context, output, &raw mut attr) }, -5);
    assert_eq!(rknn_destroy_mem(context, first), 0);
    assert_eq!(rknn_destroy_mem(context, first), -5, "a second time");
    assert_eq!(rknn_run(context, null_mut()), -5, "an input's memory is gone");
    assert_eq!(rknn_destroy(context), 0);
    for mem in [second, output, small] {
        assert_eq!(rknn_destroy_mem(context, mem), 0);
    }
    assert!(rknn_create_mem(context, 16).is_null());
}

#[test]
fn contexts_hand_on_memory_that_each_imported() {
    let given = inputs("conv-residual", 2);
    let (first, second) = (open("conv-residual"), open("conv-residual"));
    let wanted = {
        let sum = Tensor::from_f32([1, 16, 8, 8], expected("conv-residual", &given))
            .to_float(DType::F16)
            .unwrap();
        expected("conv-residual", &[sum, given[1].clone()])
    };
    // SAFETY, of `import`: what was made is not destroyed before the end.
    let import = |context, mem: *mut TensorMem| unsafe {
        rknn_create_mem_from_fd(context, (*mem).fd, (*mem).virt_addr, (*mem).size, 0)
    };
    let bind = |context, command, index, mem| {
        let mut attr = ask(context, command, TensorAttr::of(index)).unwrap();
        // SAFETY: the memory is the library's, the attribute is alive.
        unsafe { rknn_set_io_mem(context, mem, &raw mut attr) }
    };
    let between = rknn_create_mem2(0, 2048, alloc::NO_CONTEXT | alloc::CACHEABLE);
    let (written, read) = (import(first, between), import(second, between));
    assert_eq!(bind(first, query::NATIVE_OUTPUT_ATTR, 0, between), -5, "it was not imported");
    assert_eq!(bind(first, query::NATIVE_OUTPUT_ATTR, 0, read), -5, "another context imported it");
    assert_eq!(bind(first, query::NATIVE_OUTPUT_ATTR, 0, written), 0);
    assert_eq!(bind(second, query::NATIVE_INPUT_ATTR, 0, read), 0);
    for (index, tensor) in (0..).zip(&given) {
        assert_eq!(set(first, index, tensor.bytes(), dtype::FLOAT16, format::NCHW, 0), 0);
    }
    assert_eq!(rknn_run(first, null_mut()), 0);
    // The buffer exists as long as someone imports it.
    assert_eq!(rknn_destroy_mem(0, between), 0);
    assert_eq!(rknn_destroy_mem(first, written), 0);
    assert_eq!(set(second, 1, given[1].bytes(), dtype::FLOAT16, format::NCHW, 0), 0);
    assert_eq!(rknn_run(second, null_mut()), 0);
    assert_eq!(get(second, wanted.len()).unwrap(), wanted);

    let refused = |fd, address, size, offset| {
        rknn_create_mem_from_fd(second, fd, address, size, offset).is_null()
    };
    // SAFETY: the memory was not destroyed.
    let (fd, address) = unsafe { ((*read).fd, (*read).virt_addr) };
    let refusals = [
        (0, address, 16, 0),
        (fd, address, 2048, 1),
        (fd, address, 16, -1),
        (fd, null_mut(), 16, 0),
    ];
    assert!(
        refusals.into_iter().all(|(fd, address, size, offset)| refused(fd, address, size, offset))
    );
    let part = rknn_create_mem_from_fd(second, fd, address, 1024, 1024);
    assert_eq!(bind(second, query::NATIVE_INPUT_ATTR, 0, part), -5, "too small");
    for mem in [read, part] {
        assert_eq!(rknn_destroy_mem(second, mem), 0);
    }
    assert_eq!(rknn_run(second, null_mut()), -5, "an input's memory is gone");
    assert_eq!([first, second].map(|context| rknn_destroy(context)), [0, 0]);
}

#[test]
fn contexts_that_run_in_turn_share_the_memory_of_activations() {
    let given = inputs("conv-residual", 2);
    let wanted = expected("conv-residual", &given);
    let own = open("conv-residual");
    let [first, second] =
        [0, 1].map(|_| init(&data("conv-residual.onnx"), flag::INTERNAL_ALLOC_OUTSIDE).unwrap());
    let bytes = ask(first, query::MEM_SIZE, MemSize::default()).unwrap().total_internal_size;
    let set_all = |context| {
        (0..).zip(&given).for_each(|(i, t)| {
            assert_eq!(set(context, i, t.bytes(), dtype::FLOAT16, format::NCHW, 0), 0)
        })
    };
    set_all(first);
    assert_eq!(rknn_run(first, null_mut()), -5, "there is no memory yet");
    let made = rknn_create_mem(first, bytes);
    // SAFETY: the memory was not destroyed.
    let (fd, address) = unsafe { ((*made).fd, (*made).virt_addr) };
    let imported = rknn_create_mem_from_fd(second, fd, address, bytes, 0);
    let small = rknn_create_mem(first, bytes - 1);
    let table = [
        ("too small", rknn_set_internal_mem(first, small), -5),
        ("another context's", rknn_set_internal_mem(second, made), -5),
        ("a context that has its own", rknn_set_internal_mem(own, rknn_create_mem(own, bytes)), -5),
        ("the maker's", rknn_set_internal_mem(first, made), 0),
        ("an import", rknn_set_internal_mem(second, imported), 0),
    ];
    for (what, found, stated) in table {
        assert_eq!(found, stated, "{what}");
    }
    for context in [first, second, first] {
        assert_eq!(whole(context, &given, wanted.len()), wanted);
    }
    let mut made_by_dup = 0;
    let mut from = first;
    // SAFETY: both handles are alive.
    assert_eq!(unsafe { rknn_dup_context(&raw mut from, &raw mut made_by_dup) }, 0);
    set_all(made_by_dup);
    assert_eq!(rknn_run(made_by_dup, null_mut()), -5, "a duplicate has none yet either");
    for context in [first, second, own, made_by_dup] {
        assert_eq!(rknn_destroy(context), 0);
    }
}

#[test]
fn calls_that_are_wrong_get_the_vendors_codes() {
    let context = open("conv-residual");
    let half = &inputs("conv-residual", 2)[0];
    let set = |index, bytes: &[u8], dtype, fmt| set(context, index, bytes, dtype, fmt, 0);
    let masks: BTreeSet<u32> = (0..16)
        .chain([0xff, 0xffff, 0x10000])
        .filter(|&mask| rknn_set_core_mask(context, mask) == 0)
        .collect();
    assert_eq!(
        masks,
        core_mask::CORES.into_iter().chain([core_mask::AUTO, core_mask::ALL]).collect()
    );
    // SAFETY: a null pointer is refused before anything is read.
    let (null_inputs, null_model) = unsafe {
        (
            rknn_inputs_set(context, 1, null_mut()),
            rknn_init(null_mut(), null_mut(), 0, 0, null_mut()),
        )
    };
    let table = [
        ("a run without inputs", rknn_run(context, null_mut()), -8),
        ("outputs before a run", get(context, 1024).unwrap_err(), -9),
        ("an input that is not there", set(2, half.bytes(), dtype::FLOAT16, format::NCHW), -5),
        ("an input of another size", set(0, &half.bytes()[2..], dtype::FLOAT16, format::NCHW), -8),
        ("an input of another type", set(0, half.bytes(), 3, format::NCHW), -8),
        (
            "a native input without pass_through",
            set(0, half.bytes(), dtype::FLOAT16, format::NC1HWC2),
            -8,
        ),
        ("no inputs", null_inputs, -5),
        ("no model", null_model, -5),
        ("a mask of nothing", rknn_set_core_mask(context, 0x10000), -5),
        ("a batch", rknn_set_batch_core_num(context, 3), -5),
        (
            "a flag that is not simulated",
            init(&data("conv-swish.onnx"), flag::ASYNC).unwrap_err(),
            -5,
        ),
        ("a file that is not there", init(&data("none.onnx"), 0).unwrap_err(), -6),
        ("a file that is no model", init(&data("conv-swish.x0.npy"), 0).unwrap_err(), -6),
        ("memory that is no model", init_memory(b"RKNN, or not").unwrap_err(), -6),
        ("a context that is not there", rknn_run(context + 1_000_000, null_mut()), -7),
        ("destroyed", rknn_destroy(context), 0),
        ("destroyed again", rknn_destroy(context), -7),
        ("run after", rknn_run(context, null_mut()), -7),
    ];
    for (what, found, stated) in table {
        assert_eq!(found, stated, "{what}");
    }
    let context = open("conv-swish");
    whole(context, &inputs("conv-swish", 1), 1024);
    assert_eq!(get(context, 1000).unwrap_err(), -9, "a buffer too small");
    // SAFETY: no outputs are read.
    assert_eq!(
        unsafe { rknn_outputs_get(context, 0, null_mut(), null_mut()) },
        -5,
        "fewer outputs than the model has"
    );
}

#[test]
fn a_context_a_thread_gives_each_its_own_results() {
    let first = open("conv-residual");
    let given = inputs("conv-residual", 2);
    let orders = [
        vec![given[0].clone(), given[1].clone()],
        vec![given[1].clone(), given[0].clone()],
        vec![given[0].clone(); 2],
    ];
    std::thread::scope(|scope| {
        for (mask, order) in [1, 2, 4].into_iter().zip(&orders) {
            let mut context = 0;
            let mut from = first;
            // SAFETY: both handles are alive.
            assert_eq!(unsafe { rknn_dup_context(&raw mut from, &raw mut context) }, 0);
            assert_eq!(rknn_set_core_mask(context, mask), 0);
            scope.spawn(move || {
                let wanted = expected("conv-residual", order);
                for _ in 0..20 {
                    assert_eq!(whole(context, order, wanted.len()), wanted);
                }
                assert_eq!(rknn_destroy(context), 0);
            });
        }
    });
    assert_eq!(rknn_destroy(first), 0);
}

#[test]
fn models_come_from_memory_and_with_their_weights_beside_them() {
    let given = inputs("conv-swish", 1);
    let wanted = expected("conv-swish", &given);
    let model = std::fs::read(data("conv-swish.onnx")).unwrap();
    assert_eq!(whole(init_memory(&model).unwrap(), &given, wanted.len()), wanted);

    let work = tempfile::tempdir().unwrap();
    let mut model = rockshard_onnx::load(&data("conv-swish.onnx")).unwrap().proto;
    let mut weights = Vec::new();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let Some(raw) = tensor.raw_data.take() else { continue };
        let entries = [
            ("location", "weights.bin".to_owned()),
            ("offset", weights.len().to_string()),
            ("length", raw.len().to_string()),
        ];
        tensor.external_data = entries
            .map(|(k, v)| StringStringEntryProto { key: Some(k.into()), value: Some(v) })
            .into();
        tensor.data_location = Some(DataLocation::External as i32);
        weights.extend_from_slice(&raw);
    }
    assert!(!weights.is_empty());
    let (path, model) = (work.path().join("shard.onnx"), model.encode_to_vec());
    std::fs::write(&path, &model).unwrap();
    assert_eq!(init(&path, 0).unwrap_err(), -6, "the weights are not there");
    std::fs::write(work.path().join("weights.bin"), &weights).unwrap();
    assert_eq!(whole(init(&path, 0).unwrap(), &given, wanted.len()), wanted);
    assert_eq!(init_memory(&model).unwrap_err(), -6, "memory has no weights beside it");
}

#[test]
fn a_tensor_whose_size_does_not_fit_32_bits_is_refused() {
    use rockshard_onnx::schema::{
        ValueInfoProto, tensor_shape_proto::dimension::Value, type_proto,
    };
    let mut model = rockshard_onnx::load(&data("conv-swish.onnx")).unwrap().proto;
    let graph = model.graph.as_mut().unwrap();
    let resize = |info: &mut ValueInfoProto, size: i64| {
        let Some(type_proto::Value::TensorType(tensor)) = &mut info.r#type.as_mut().unwrap().value
        else {
            panic!("a tensor")
        };
        let dims = &mut tensor.shape.as_mut().unwrap().dim;
        dims[2..].iter_mut().for_each(|dim| dim.value = Some(Value::DimValue(size)));
    };
    let sized = |graph: &mut rockshard_onnx::schema::GraphProto, size| {
        graph.value_info.clear();
        graph.input.iter_mut().chain(&mut graph.output).for_each(|info| resize(info, size));
    };
    sized(graph, 32);
    assert!(init_memory(&model.encode_to_vec()).is_ok());
    sized(model.graph.as_mut().unwrap(), 65536);
    assert_eq!(init_memory(&model.encode_to_vec()), Err(-6));
}
