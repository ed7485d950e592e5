//! The functions of librknnrt behind safe ones.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

use crate::{CallError, LoadError};
use libloading::Library;
use rockshard_rknn_abi::{
    self as abi, Code, InOutNum, Input, MemSize, Output, PerfRun, SdkVersion, TensorAttr,
    TensorMem, alloc, query, sync,
};
use std::cell::Cell;
use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Init =
    unsafe extern "C" fn(*mut abi::Context, *mut c_void, u32, u32, *mut abi::InitExtend) -> c_int;
type DupContext = unsafe extern "C" fn(*mut abi::Context, *mut abi::Context) -> c_int;
type Destroy = unsafe extern "C" fn(abi::Context) -> c_int;
type Query = unsafe extern "C" fn(abi::Context, u32, *mut c_void, u32) -> c_int;
type InputsSet = unsafe extern "C" fn(abi::Context, u32, *mut Input) -> c_int;
type Run = unsafe extern "C" fn(abi::Context, *mut abi::RunExtend) -> c_int;
type OutputsGet =
    unsafe extern "C" fn(abi::Context, u32, *mut Output, *mut abi::OutputExtend) -> c_int;
type OutputsRelease = unsafe extern "C" fn(abi::Context, u32, *mut Output) -> c_int;
type SetCoreMask = unsafe extern "C" fn(abi::Context, u32) -> c_int;
type CreateMem2 = unsafe extern "C" fn(abi::Context, u64, u64) -> *mut TensorMem;
type CreateMemFromFd =
    unsafe extern "C" fn(abi::Context, i32, *mut c_void, u32, i32) -> *mut TensorMem;
type DestroyMem = unsafe extern "C" fn(abi::Context, *mut TensorMem) -> c_int;
type SetIoMem = unsafe extern "C" fn(abi::Context, *mut TensorMem, *mut TensorAttr) -> c_int;
type MemSync = unsafe extern "C" fn(abi::Context, *mut TensorMem, u32) -> c_int;
type SetInternalMem = unsafe extern "C" fn(abi::Context, *mut TensorMem) -> c_int;

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
    create_mem2: CreateMem2,
    create_mem_from_fd: CreateMemFromFd,
    destroy_mem: DestroyMem,
    set_io_mem: SetIoMem,
    set_internal_mem: SetInternalMem,
    mem_sync: MemSync,
    /// Keeps the functions in memory.
    _library: Library,
}

impl Api {
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let name = || path.display().to_string();
        // SAFETY: loading runs the library's initialisers; it is the one that the user named or installed as librknnrt.
        let library = unsafe { Library::new(path) }
            .map_err(|source| LoadError::Library { library: name(), source })?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of the function of this name in librknnrt's API.
                *unsafe { library.get(concat!($name, "\0")) }
                    .map_err(|_| LoadError::Function { library: name(), function: $name })?
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
            create_mem2: function!("rknn_create_mem2"),
            create_mem_from_fd: function!("rknn_create_mem_from_fd"),
            destroy_mem: function!("rknn_destroy_mem"),
            set_io_mem: function!("rknn_set_io_mem"),
            set_internal_mem: function!("rknn_set_internal_mem"),
            mem_sync: function!("rknn_mem_sync"),
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
    files
        .filter(|file| file.rsplit('/').next().is_some_and(|f| f.starts_with(name)))
        .map(PathBuf::from)
        .next()
}

/// The version that librknnrt has in its file as text. There is no function that tells it before a model is loaded.
pub fn version_in(file: &Path) -> Option<String> {
    const BEFORE: &[u8] = b"librknnrt version: ";
    const LONGEST: usize = 128;
    let bytes = std::fs::read(file).ok()?;
    let at = bytes.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
    let text = bytes[at..].iter().take(LONGEST).take_while(|b| b.is_ascii_graphic() || **b == b' ');
    Some(text.map(|&b| char::from(b)).collect::<String>().trim_end().to_owned())
        .filter(|v| !v.is_empty())
}

/// An input's elements, in ONNX's order.
pub(crate) struct Elements<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) dtype: u32,
    pub(crate) fmt: u32,
}

/// Memory that processor and NPU reach, of no context.
pub(crate) struct Memory {
    api: Arc<Api>,
    handle: NonNull<TensorMem>,
    address: NonNull<u8>,
    bytes: usize,
    /// Never that of another memory of this process.
    number: u64,
}

// SAFETY: the memory is of no context, so no thread is tied to it; its contents are behind references to `Memory`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(api: &Arc<Api>, bytes: usize) -> Result<Self, CallError> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let none = CallError { function: "rknn_create_mem2", raw: Code::Malloc.raw() };
        // SAFETY: with this flag no context is needed.
        let handle =
            unsafe { (api.create_mem2)(0, bytes as u64, alloc::CACHEABLE | alloc::NO_CONTEXT) };
        let handle = NonNull::new(handle).ok_or(none)?;
        // SAFETY: what the function gives is a struct until it is destroyed.
        let address =
            NonNull::new(unsafe { handle.as_ref() }.virt_addr.cast::<u8>()).ok_or(none)?;
        Ok(Memory {
            api: api.clone(),
            handle,
            address,
            bytes,
            number: MADE.fetch_add(1, Ordering::Relaxed),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The contents. No run that writes them may be under way.
    pub(crate) fn contents(&self) -> &[u8] {
        // SAFETY: there are this many bytes, mapped, so that they have values. A run writes them only while its
        // session owns the buffer.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }

    /// The contents. No run that reads or writes them may be under way.
    pub(crate) fn contents_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, and not used again. Contexts that imported the memory hold it by themselves.
        let _ = unsafe { (self.api.destroy_mem)(0, self.handle.as_ptr()) };
    }
}

/// An input or output of a context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) output: bool,
    pub(crate) index: usize,
}

/// A memory as a context knows it.
struct Import {
    /// What it stands for; the activations where it is no port.
    port: Option<Port>,
    /// Number of the memory.
    number: u64,
    handle: NonNull<TensorMem>,
}

// SAFETY: the handle is used by the context that it belongs to, which one thread at a time uses.
unsafe impl Send for Import {}

/// Memories that a port stays ready to use; items that follow each other mostly bring the same ones again.
const IMPORTS: usize = 2;

/// A loaded model. One thread at a time uses it.
pub(crate) struct Context {
    api: Arc<Api>,
    handle: abi::Context,
    /// Those that stand for the same in the order of their last use; the last one is set.
    imports: Vec<Import>,
    /// Makes it not Sync.
    _one_thread: PhantomData<Cell<()>>,
}

fn checked(function: &'static str, raw: c_int) -> Result<(), CallError> {
    if raw == 0 { Ok(()) } else { Err(CallError { function, raw }) }
}

impl Context {
    /// Load a model from a file, with [`flag`]s.
    pub(crate) fn open(api: &Arc<Api>, path: &CString, flags: u32) -> Result<Self, CallError> {
        let mut handle = 0;
        // SAFETY: with size 0 the model is a path that ends with a zero; both outlive the call.
        let raw = unsafe {
            (api.init)(&raw mut handle, path.as_ptr() as *mut c_void, 0, flags, null_mut())
        };
        checked("rknn_init", raw)?;
        Ok(Context { api: api.clone(), handle, imports: Vec::new(), _one_thread: PhantomData })
    }

    /// Another context of the model, which shares the weights. This one must outlive it.
    pub(crate) fn dup(&mut self) -> Result<Self, CallError> {
        let mut handle = 0;
        // SAFETY: the handle is alive and in use here only; the library writes one handle.
        checked("rknn_dup_context", unsafe {
            (self.api.dup_context)(&raw mut self.handle, &raw mut handle)
        })?;
        Ok(Context { api: self.api.clone(), handle, imports: Vec::new(), _one_thread: PhantomData })
    }

    pub(crate) fn set_core_mask(&mut self, mask: u32) -> Result<(), CallError> {
        // SAFETY: the handle is alive.
        checked("rknn_set_core_mask", unsafe { (self.api.set_core_mask)(self.handle, mask) })
    }

    /// `T` is the struct that the command gives.
    fn ask<T: Copy>(&self, command: u32, mut info: T) -> Result<T, CallError> {
        // SAFETY: the size is that of the struct; the structs of the C API have a value for all bits.
        let raw = unsafe {
            (self.api.query)(self.handle, command, (&raw mut info).cast(), size_of::<T>() as u32)
        };
        checked("rknn_query", raw)?;
        Ok(info)
    }

    pub(crate) fn version(&self) -> Result<SdkVersion, CallError> {
        self.ask(query::SDK_VERSION, SdkVersion { api_version: [0; 256], drv_version: [0; 256] })
    }

    pub(crate) fn numbers(&self) -> Result<InOutNum, CallError> {
        self.ask(query::IN_OUT_NUM, InOutNum::default())
    }

    pub(crate) fn attribute(&self, port: Port) -> Result<TensorAttr, CallError> {
        self.ask(
            if port.output { query::OUTPUT_ATTR } else { query::INPUT_ATTR },
            TensorAttr::of(port.index as u32),
        )
    }

    /// The attributes of a tensor as the NPU has it.
    pub(crate) fn native(&self, port: Port) -> Result<TensorAttr, CallError> {
        let command =
            if port.output { query::NATIVE_OUTPUT_ATTR } else { query::NATIVE_INPUT_ATTR };
        let attr = self.ask(command, TensorAttr::of(port.index as u32))?;
        Ok(TensorAttr { pass_through: u8::from(!port.output), ..attr })
    }

    /// Bytes of activations.
    pub(crate) fn internal_bytes(&self) -> Result<usize, CallError> {
        Ok(self.ask(query::MEM_SIZE, MemSize::default())?.total_internal_size as usize)
    }

    /// Let a memory stand for an input or output, in the layout of its native attributes, for which it is large enough.
    pub(crate) fn bind(
        &mut self,
        port: Port,
        memory: &Memory,
        attr: &TensorAttr,
    ) -> Result<(), CallError> {
        let mut attr = *attr;
        self.set(Some(port), memory, memory.bytes, "rknn_set_io_mem", |api, handle, import| {
            // SAFETY: all are alive; the memory behind the import has as many bytes as the attributes say.
            unsafe { (api.set_io_mem)(handle, import, &raw mut attr) }
        })
    }

    /// Let the first bytes of a memory stand for the activations, for a context that was opened for that.
    pub(crate) fn bind_internal(&mut self, memory: &Memory, bytes: usize) -> Result<(), CallError> {
        self.set(None, memory, bytes, "rknn_set_internal_mem", |api, handle, import| {
            // SAFETY: both are alive; the import has as many bytes as the model needs.
            unsafe { (api.set_internal_mem)(handle, import) }
        })
    }

    /// What the processor wrote into the memory that stands for an input is there for the NPU, or what the NPU wrote into that of an output
    /// for the processor.
    pub(crate) fn sync(&mut self, port: Port) -> Result<(), CallError> {
        let mode = if port.output { sync::FROM_DEVICE } else { sync::TO_DEVICE };
        let Some(import) = self.imports.iter().rfind(|import| import.port == Some(port)) else {
            return Ok(());
        };
        // SAFETY: both handles are alive.
        checked("rknn_mem_sync", unsafe {
            (self.api.mem_sync)(self.handle, import.handle.as_ptr(), mode)
        })
    }

    /// Let go of all memories: the context is not run any more.
    pub(crate) fn release(&mut self) {
        (0..self.imports.len()).rev().for_each(|at| self.forget(at));
    }

    /// Import a memory unless that was done, and have it set unless it is.
    fn set(
        &mut self,
        port: Option<Port>,
        memory: &Memory,
        bytes: usize,
        function: &'static str,
        call: impl FnOnce(&Api, abi::Context, *mut TensorMem) -> c_int,
    ) -> Result<(), CallError> {
        let of_port = |import: &Import| import.port == port;
        if self
            .imports
            .iter()
            .rfind(|import| of_port(import))
            .is_some_and(|last| last.number == memory.number)
        {
            return Ok(());
        }
        let known = self
            .imports
            .iter()
            .position(|import| of_port(import) && import.number == memory.number);
        let import = match known {
            Some(at) => self.imports.remove(at),
            None => self.import(port, memory, bytes)?,
        };
        let raw = call(&self.api, self.handle, import.handle.as_ptr());
        self.imports.push(import);
        checked(function, raw).inspect_err(|_| self.forget(self.imports.len() - 1))?;
        let most = if port.is_some() { IMPORTS } else { 1 };
        if self.imports.iter().filter(|import| of_port(import)).count() > most {
            let oldest = self.imports.iter().position(of_port).expect("there are several");
            self.forget(oldest);
        }
        Ok(())
    }

    fn import(
        &mut self,
        port: Option<Port>,
        memory: &Memory,
        bytes: usize,
    ) -> Result<Import, CallError> {
        // SAFETY: the struct is alive until the memory is destroyed.
        let &TensorMem { fd, virt_addr, .. } = unsafe { memory.handle.as_ref() };
        // SAFETY: the handle is alive; descriptor and address are those of one buffer, which has at least these bytes.
        let handle =
            unsafe { (self.api.create_mem_from_fd)(self.handle, fd, virt_addr, bytes as u32, 0) };
        let none = CallError { function: "rknn_create_mem_from_fd", raw: Code::Malloc.raw() };
        Ok(Import { port, number: memory.number, handle: NonNull::new(handle).ok_or(none)? })
    }

    fn forget(&mut self, at: usize) {
        let import = self.imports.remove(at);
        // SAFETY: both handles are alive, and the import is not used again. What it returns cannot be acted on.
        let _ = unsafe { (self.api.destroy_mem)(self.handle, import.handle.as_ptr()) };
    }

    /// Run on the memories that stand for inputs and outputs.
    pub(crate) fn run(&mut self) -> Result<(), CallError> {
        // SAFETY: the handle is alive, and the imports keep the memories.
        checked("rknn_run", unsafe { (self.api.run)(self.handle, null_mut()) })
    }

    /// Microseconds of the last run.
    pub(crate) fn micros(&self) -> Result<i64, CallError> {
        Ok(self.ask(query::PERF_RUN, PerfRun::default())?.run_duration)
    }

    /// Set all inputs, run, and get all outputs as float32 in ONNX's order, which have `counts` elements.
    pub(crate) fn run_on_copies(
        &mut self,
        inputs: &[Elements<'_>],
        counts: &[usize],
    ) -> Result<Vec<Vec<f32>>, CallError> {
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
        checked("rknn_inputs_set", unsafe {
            (self.api.inputs_set)(self.handle, given.len() as u32, given.as_mut_ptr())
        })?;
        self.run()?;
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
        checked("rknn_outputs_get", unsafe {
            (self.api.outputs_get)(self.handle, count, wanted.as_mut_ptr(), null_mut())
        })?;
        // SAFETY: as above; memory of the caller is not freed.
        checked("rknn_outputs_release", unsafe {
            (self.api.outputs_release)(self.handle, count, wanted.as_mut_ptr())
        })?;
        Ok(values)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.release();
        // SAFETY: the handle is alive, and not used again. What it returns cannot be acted on.
        let _ = unsafe { (self.api.destroy)(self.handle) };
    }
}
