//! Buffers that callers hold by address. Each is known by its address until it is given back, so that an address that is not one of
//! them is an error.
#![allow(unsafe_code)]

use crate::{Refusal, system};
use rockshard_device_sim::Allocation;
use rockshard_rknn_abi::{Code, TensorMem};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

const ALIGNMENT: usize = 64;

/// Zeroed memory whose contents the caller may change at any time.
pub(crate) struct Block {
    address: *mut u8,
    bytes: usize,
    layout: Layout,
}

// SAFETY: a block is an allocation that nothing in this process but its owner frees; reading and writing it is up to the C API's rule
// that a context and its memory are used by one thread at a time.
unsafe impl Send for Block {}

impl Block {
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc_zeroed(layout) };
        (!address.is_null()).then_some(Block { address, bytes, layout })
    }

    pub(crate) fn address(&self) -> *mut c_void {
        self.address.cast()
    }

    /// A copy of the contents.
    pub(crate) fn copy(&self) -> Vec<u8> {
        // SAFETY: the allocation has this many initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }.to_vec()
    }

    /// Replace the first bytes; no more than there are.
    pub(crate) fn fill(&mut self, contents: &[u8]) {
        let count = contents.len().min(self.bytes);
        // SAFETY: the allocation has at least `count` bytes; `contents` is memory of this library and does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(contents.as_ptr(), self.address, count) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.address, self.layout) }
    }
}

/// What `rknn_create_mem` gave out.
struct Shared {
    id: u64,
    block: Block,
    /// What the caller holds, from a box; it may change what is in it.
    handle: *mut TensorMem,
    _space: Allocation,
}

// SAFETY: the handle is an allocation that only `destroy` frees, and the block is Send.
unsafe impl Send for Shared {}

#[derive(Default)]
struct Buffers {
    made: u64,
    /// By the address of the handle.
    shared: HashMap<usize, Shared>,
    /// Outputs that the library allocated, by their address.
    outputs: HashMap<usize, Block>,
}

static BUFFERS: Mutex<Option<Buffers>> = Mutex::new(None);

fn with<T>(work: impl FnOnce(&mut Buffers) -> T) -> T {
    let mut buffers: MutexGuard<'_, Option<Buffers>> = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    work(buffers.get_or_insert_default())
}

/// Memory for `rknn_create_mem`.
pub(crate) fn create(bytes: u32) -> Result<*mut TensorMem, Refusal> {
    let space = system::driver()?.allocate(bytes.into())?;
    let block = Block::new(bytes as usize).ok_or_else(|| Refusal::new(Code::Malloc, format!("{bytes} bytes cannot be had")))?;
    let virt_addr = block.address();
    let mem = TensorMem { virt_addr, phys_addr: 0, fd: -1, offset: 0, size: bytes, flags: 0, priv_data: std::ptr::null_mut() };
    let handle = Box::into_raw(Box::new(mem));
    with(|b| {
        b.made += 1;
        let id = b.made;
        b.shared.insert(handle as usize, Shared { id, block, handle, _space: space });
    });
    Ok(handle)
}

fn unknown() -> Refusal {
    Refusal::new(Code::Param, "this memory is not of rknn_create_mem, or was destroyed")
}

/// Give memory back.
pub(crate) fn destroy(handle: *mut TensorMem) -> Result<(), Refusal> {
    let shared = with(|b| b.shared.remove(&(handle as usize))).ok_or_else(unknown)?;
    // SAFETY: the handle came from a box in `create`, and left the table just now, so that it is freed once.
    drop(unsafe { Box::from_raw(shared.handle) });
    Ok(())
}

/// Number of a memory, never used again, and its bytes.
pub(crate) fn find(handle: *mut TensorMem) -> Result<(u64, usize), Refusal> {
    with(|b| b.shared.get(&(handle as usize)).map(|s| (s.id, s.block.bytes))).ok_or_else(unknown)
}

/// A copy of the first bytes of a memory.
pub(crate) fn read(id: u64, bytes: usize) -> Result<Vec<u8>, Refusal> {
    let mut contents = with(|b| b.shared.values().find(|s| s.id == id).map(|s| s.block.copy())).ok_or_else(unknown)?;
    contents.truncate(bytes);
    Ok(contents)
}

/// Write the first bytes of a memory.
pub(crate) fn write(id: u64, contents: &[u8]) -> Result<(), Refusal> {
    with(|b| b.shared.values_mut().find(|s| s.id == id).map(|s| s.block.fill(contents))).ok_or_else(unknown)
}

/// Memory of an output that the library allocates.
pub(crate) fn output(contents: &[u8]) -> Result<*mut c_void, Refusal> {
    let mut block = Block::new(contents.len()).ok_or_else(|| Refusal::new(Code::Malloc, "an output's memory cannot be had"))?;
    block.fill(contents);
    let address = block.address();
    with(|b| b.outputs.insert(address as usize, block));
    Ok(address)
}

/// Give the memory of an output back; whether it was one.
pub(crate) fn release(address: *mut c_void) -> bool {
    with(|b| b.outputs.remove(&(address as usize))).is_some()
}
