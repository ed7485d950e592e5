//! The functions of librknnrt behind safe ones.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

use crate::{CallError, LoadError};
use libloading::Library;
use rockshard_rknn_abi::{self as abi, InOutNum, Input, Output, PerfRun, SdkVersion, TensorAttr, query};
use std::cell::Cell;
use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Arc;

type Init = unsafe extern "C" fn(*mut abi::Context, *mut c_void, u32, u32, *mut abi::InitExtend) -> c_int;
type DupContext = unsafe extern "C" fn(*mut abi::Context, *mut abi::Context) -> c_int;
type Destroy = unsafe extern "C" fn(abi::Context) -> c_int;
type Query = unsafe extern "C" fn(abi::Context, u32, *mut c_void, u32) -> c_int;
type InputsSet = unsafe extern "C" fn(abi::Context, u32, *mut Input) -> c_int;
type Run = unsafe extern "C" fn(abi::Context, *mut abi::RunExtend) -> c_int;
type OutputsGet = unsafe extern "C" fn(abi::Context, u32, *mut Output, *mut abi::OutputExtend) -> c_int;
type OutputsRelease = unsafe extern "C" fn(abi::Context, u32, *mut Output) -> c_int;
type SetCoreMask = unsafe extern "C" fn(abi::Context, u32) -> c_int;

/// The loaded library. Its functions may be called from any thread, each context from one at a time.
pub(crate) struct Api {
    /// The library's file, where it is known.
    pub(crate) file: Option<PathBuf>,
    /// Version in that file.
    pub(crate) version: Option<String>,
    /// Whether it is `rknnrt-sim`: times are modelled, models are `.onnx`.
    pub(crate) simulated: bool,
    init: Init,
    dup_context: DupContext,
    destroy: Destroy,
    query: Query,
    inputs_set: InputsSet,
    run: Run,
    outputs_get: OutputsGet,
    outputs_release: OutputsRelease,
    set_core_mask: SetCoreMask,
    /// Keeps the functions in memory.
    _library: Library,
}

impl Api {
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let name = || path.display().to_string();
        // SAFETY: loading runs the library's initialisers; it is the one that the user named or installed as librknnrt.
        let library = unsafe { Library::new(path) }.map_err(|source| LoadError::Library { library: name(), source })?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of the function of this name in librknnrt's API.
                *unsafe { library.get(concat!($name, "\0")) }.map_err(|_| LoadError::Function { library: name(), function: $name })?
            };
        }
        let file = library_file(path);
        Ok(Api {
            version: file.as_deref().and_then(version_in),
            file,
            // SAFETY: the address is only looked up, and is of a function if it is there.
            simulated: unsafe { library.get::<unsafe extern "C" fn()>(abi::SIMULATED) }.is_ok(),
            dup_context: function!("rknn_dup_context"),
            init: function!("rknn_init"),
            destroy: function!("rknn_destroy"),
            query: function!("rknn_query"),
            inputs_set: function!("rknn_inputs_set"),
            run: function!("rknn_run"),
            outputs_get: function!("rknn_outputs_get"),
            outputs_release: function!("rknn_outputs_release"),
            set_core_mask: function!("rknn_set_core_mask"),
            _library: library,
        })
    }
}

/// The file that a library was loaded from: the one that was named, or what the system's loader found for a bare name.
fn library_file(path: &Path) -> Option<PathBuf> {
    if path.components().count() > 1 {
        return Some(path.to_owned());
    }
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let name = path.to_str()?;
    let files = maps.lines().filter_map(|line| Some(&line[line.find('/')?..]));
    files.filter(|file| file.rsplit('/').next().is_some_and(|f| f.starts_with(name))).map(PathBuf::from).next()
}

/// The version that librknnrt has in its file as text. There is no function that tells it before a model is loaded.
pub fn version_in(file: &Path) -> Option<String> {
    const BEFORE: &[u8] = b"librknnrt version: ";
    const LONGEST: usize = 128;
    let bytes = std::fs::read(file).ok()?;
    let at = bytes.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
    let text = bytes[at..].iter().take(LONGEST).take_while(|b| b.is_ascii_graphic() || **b == b' ');
    Some(text.map(|&b| char::from(b)).collect::<String>().trim_end().to_owned()).filter(|v| !v.is_empty())
}

/// An input's elements, in ONNX's order.
pub(crate) struct Elements<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) dtype: u32,
    pub(crate) fmt: u32,
}

/// A loaded model. One thread at a time uses it.
pub(crate) struct Context {
    api: Arc<Api>,
    handle: abi::Context,
    /// Makes it not Sync.
    _one_thread: PhantomData<Cell<()>>,
}

fn checked(function: &'static str, raw: c_int) -> Result<(), CallError> {
    if raw == 0 { Ok(()) } else { Err(CallError { function, raw }) }
}

impl Context {
    pub(crate) fn open(api: &Arc<Api>, path: &CString) -> Result<Self, CallError> {
        let mut handle = 0;
        // SAFETY: with size 0 the model is a path that ends with a zero; both outlive the call.
        let raw = unsafe { (api.init)(&raw mut handle, path.as_ptr() as *mut c_void, 0, 0, null_mut()) };
        checked("rknn_init", raw)?;
        Ok(Context { api: api.clone(), handle, _one_thread: PhantomData })
    }

    /// Another context of the model, which shares the weights. This one must outlive it.
    pub(crate) fn dup(&mut self) -> Result<Self, CallError> {
        let mut handle = 0;
        // SAFETY: the handle is alive and in use here only; the library writes one handle.
        checked("rknn_dup_context", unsafe { (self.api.dup_context)(&raw mut self.handle, &raw mut handle) })?;
        Ok(Context { api: self.api.clone(), handle, _one_thread: PhantomData })
    }

    pub(crate) fn set_core_mask(&mut self, mask: u32) -> Result<(), CallError> {
        // SAFETY: the handle is alive.
        checked("rknn_set_core_mask", unsafe { (self.api.set_core_mask)(self.handle, mask) })
    }

    /// `T` is the struct that the command gives.
    fn ask<T: Copy>(&self, command: u32, mut info: T) -> Result<T, CallError> {
        // SAFETY: the size is that of the struct; the structs of the C API have a value for all bits.
        let raw = unsafe { (self.api.query)(self.handle, command, (&raw mut info).cast(), size_of::<T>() as u32) };
        checked("rknn_query", raw)?;
        Ok(info)
    }

    pub(crate) fn version(&self) -> Result<SdkVersion, CallError> {
        self.ask(query::SDK_VERSION, SdkVersion { api_version: [0; 256], drv_version: [0; 256] })
    }

    pub(crate) fn numbers(&self) -> Result<InOutNum, CallError> {
        self.ask(query::IN_OUT_NUM, InOutNum::default())
    }

    pub(crate) fn attribute(&self, output: bool, index: u32) -> Result<TensorAttr, CallError> {
        self.ask(if output { query::OUTPUT_ATTR } else { query::INPUT_ATTR }, TensorAttr::of(index))
    }

    /// Microseconds of the last run.
    pub(crate) fn micros(&self) -> Result<i64, CallError> {
        Ok(self.ask(query::PERF_RUN, PerfRun::default())?.run_duration)
    }

    /// Set all inputs, run, and get all outputs as float32 in ONNX's order, which have `counts` elements.
    pub(crate) fn run(&mut self, inputs: &[Elements<'_>], counts: &[usize]) -> Result<Vec<Vec<f32>>, CallError> {
        let input = |(index, e): (usize, &Elements<'_>)| Input {
            index: index as u32,
            buf: e.bytes.as_ptr() as *mut c_void,
            size: e.bytes.len() as u32,
            pass_through: 0,
            dtype: e.dtype,
            fmt: e.fmt,
        };
        let mut given: Vec<Input> = inputs.iter().enumerate().map(input).collect();
        // SAFETY: each size is that of its bytes, which the library only reads.
        checked("rknn_inputs_set", unsafe { (self.api.inputs_set)(self.handle, given.len() as u32, given.as_mut_ptr()) })?;
        // SAFETY: the handle is alive.
        checked("rknn_run", unsafe { (self.api.run)(self.handle, null_mut()) })?;
        let mut values: Vec<Vec<f32>> = counts.iter().map(|&count| vec![0.0; count]).collect();
        let output = |(index, values): (usize, &mut Vec<f32>)| Output {
            want_float: 1,
            is_prealloc: 1,
            index: index as u32,
            buf: values.as_mut_ptr().cast(),
            size: (values.len() * size_of::<f32>()) as u32,
        };
        let mut wanted: Vec<Output> = values.iter_mut().enumerate().map(output).collect();
        let count = wanted.len() as u32;
        // SAFETY: there is a struct for each output that the model has, and each size is that of its memory.
        checked("rknn_outputs_get", unsafe { (self.api.outputs_get)(self.handle, count, wanted.as_mut_ptr(), null_mut()) })?;
        // SAFETY: as above; memory of the caller is not freed.
        checked("rknn_outputs_release", unsafe { (self.api.outputs_release)(self.handle, count, wanted.as_mut_ptr()) })?;
        Ok(values)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, and not used again. What it returns cannot be acted on.
        let _ = unsafe { (self.api.destroy)(self.handle) };
    }
}
