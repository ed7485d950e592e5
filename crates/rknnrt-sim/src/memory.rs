//! Buffers that callers hold by address. Each is known by its address until it is given back, so that an address that is not one of
//! them is an error. What `rknn_create_mem` gives has a file descriptor, by which other contexts import it, as the vendor's documents
//! show; a memory that was made for one context is no other's.
#![allow(unsafe_code)]

use crate::{Refusal, system};
use memmap2::MmapRaw;
use rockshard_device_sim::Allocation;
use rockshard_rknn_abi::{self as abi, Code, TensorMem};
use rustix::fs::{MemfdFlags, memfd_create};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

const ALIGNMENT: usize = 64;

/// Zeroed memory whose contents the caller may change at any time.
pub(crate) struct Block {
    address: *mut u8,
    bytes: usize,
    origin: Origin,
}

/// Where a block is from.
enum Origin {
    Allocated(Layout),
    Mapped(#[expect(dead_code, reason = "its drop unmaps the block")] MmapRaw),
}

// SAFETY: a block is memory that nothing in this process but its owner frees; reading and writing it is up to the C API's rule that a
// context and its memory are used by one thread at a time.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    fn allocated(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc_zeroed(layout) };
        (!address.is_null()).then_some(Block { address, bytes, origin: Origin::Allocated(layout) })
    }

    fn mapped(file: &File, bytes: usize) -> std::io::Result<Self> {
        let map = MmapRaw::map_raw(file)?;
        Ok(Block { address: map.as_mut_ptr(), bytes, origin: Origin::Mapped(map) })
    }

    fn address(&self) -> *mut c_void {
        self.address.cast()
    }

    /// A copy of bytes that there are.
    fn copy(&self, from: usize, count: usize) -> Vec<u8> {
        assert!(from + count <= self.bytes);
        // SAFETY: the memory has these bytes, initialised, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address.add(from), count) }.to_vec()
    }

    /// Replace bytes that there are.
    fn fill(&self, from: usize, contents: &[u8]) {
        assert!(from + contents.len() <= self.bytes);
        // SAFETY: the memory has these bytes; `contents` is memory of this library and does not overlap it.
        unsafe {
            std::ptr::copy_nonoverlapping(contents.as_ptr(), self.address.add(from), contents.len())
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Origin::Allocated(layout) = self.origin {
            // SAFETY: allocated in `allocated` with this layout, and freed only here.
            unsafe { dealloc(self.address, layout) }
        }
    }
}

/// A buffer of DMA memory. It exists as long as a memory stands for it.
pub(crate) struct Buffer {
    block: Block,
    /// What it is imported by.
    file: File,
    /// Runs that have their activations in it.
    occupied: AtomicUsize,
    _space: Allocation,
}

impl Buffer {
    fn new(bytes: u32) -> Result<Self, Refusal> {
        let refuse = |e: &dyn std::fmt::Display| {
            Refusal::new(Code::Malloc, format!("{bytes} bytes cannot be had: {e}"))
        };
        let space = system::driver()?.allocate(bytes.into())?;
        let file =
            File::from(memfd_create("rknnrt-sim", MemfdFlags::CLOEXEC).map_err(|e| refuse(&e))?);
        file.set_len(u64::from(bytes).max(1)).map_err(|e| refuse(&e))?;
        let block = Block::mapped(&file, bytes as usize).map_err(|e| refuse(&e))?;
        Ok(Buffer { block, file, occupied: AtomicUsize::new(0), _space: space })
    }
}

/// A part of a buffer.
#[derive(Clone)]
struct Part {
    buffer: Arc<Buffer>,
    offset: usize,
    bytes: usize,
}

/// What `rknn_create_mem` and `rknn_create_mem_from_fd` gave out.
struct Shared {
    part: Arc<Part>,
    /// The context that it was made for; 0 is none.
    owner: abi::Context,
    /// What the caller holds, from a box; it may change what is in it.
    handle: *mut TensorMem,
}

// SAFETY: the handle is an allocation that only `destroy` frees.
unsafe impl Send for Shared {}

#[derive(Default)]
struct Buffers {
    /// By the address of the handle.
    shared: HashMap<usize, Shared>,
    /// Outputs that the library allocated, by their address.
    outputs: HashMap<usize, Block>,
}

static BUFFERS: Mutex<Option<Buffers>> = Mutex::new(None);

fn with<T>(work: impl FnOnce(&mut Buffers) -> T) -> T {
    let mut buffers: MutexGuard<'_, Option<Buffers>> =
        BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    work(buffers.get_or_insert_default())
}

fn give_out(owner: abi::Context, part: Part, virt_addr: *mut c_void) -> *mut TensorMem {
    let (fd, offset, size) = (part.buffer.file.as_raw_fd(), part.offset as i32, part.bytes as u32);
    let handle = Box::into_raw(Box::new(TensorMem {
        virt_addr,
        phys_addr: 0,
        fd,
        offset,
        size,
        flags: 0,
        priv_data: null_mut(),
    }));
    with(|b| b.shared.insert(handle as usize, Shared { part: Arc::new(part), owner, handle }));
    handle
}

/// Memory for `rknn_create_mem`, of a context or (0) of none.
pub(crate) fn create(owner: abi::Context, bytes: u32) -> Result<*mut TensorMem, Refusal> {
    let buffer = Arc::new(Buffer::new(bytes)?);
    let address = buffer.block.address();
    Ok(give_out(owner, Part { buffer, offset: 0, bytes: bytes as usize }, address))
}

/// Memory of a context that stands for a part of a buffer of this library, for `rknn_create_mem_from_fd`.
pub(crate) fn import(
    owner: abi::Context,
    fd: i32,
    address: *mut c_void,
    bytes: u32,
    offset: i32,
) -> Result<*mut TensorMem, Refusal> {
    let refuse = |detail: String| Refusal::new(Code::Param, detail);
    let found = with(|b| {
        b.shared
            .values()
            .map(|s| &s.part.buffer)
            .find(|buffer| buffer.file.as_raw_fd() == fd)
            .cloned()
    });
    let buffer = found.ok_or_else(|| {
        refuse(format!("{fd} is no buffer of this library; others are not simulated"))
    })?;
    let offset =
        usize::try_from(offset).map_err(|_| refuse(format!("offset {offset} is negative")))?;
    if offset.checked_add(bytes as usize).is_none_or(|end| end > buffer.block.bytes) {
        return Err(refuse(format!(
            "{bytes} bytes from {offset} are not in a buffer of {}",
            buffer.block.bytes
        )));
    }
    if address.is_null() {
        return Err(refuse("virt_addr is null".to_owned()));
    }
    Ok(give_out(owner, Part { buffer, offset, bytes: bytes as usize }, address))
}

fn unknown() -> Refusal {
    Refusal::new(Code::Param, "this memory is not of rknn_create_mem, or was destroyed")
}

/// Give memory back.
pub(crate) fn destroy(handle: *mut TensorMem) -> Result<(), Refusal> {
    let shared = with(|b| b.shared.remove(&(handle as usize))).ok_or_else(unknown)?;
    // SAFETY: the handle came from a box in `give_out`, and left the table just now, so that it is freed once.
    drop(unsafe { Box::from_raw(shared.handle) });
    Ok(())
}

/// Memory that a context may use, until it is destroyed.
#[derive(Clone)]
pub(crate) struct Lent(Weak<Part>);

/// Whether there is such memory.
pub(crate) fn check(handle: *mut TensorMem) -> Result<(), Refusal> {
    with(|b| b.shared.get(&(handle as usize)).map(drop)).ok_or_else(unknown)
}

/// Memory of a context, and its bytes.
pub(crate) fn find(owner: abi::Context, handle: *mut TensorMem) -> Result<(Lent, usize), Refusal> {
    let found = with(|b| {
        b.shared
            .get(&(handle as usize))
            .map(|s| (s.owner, Lent(Arc::downgrade(&s.part)), s.part.bytes))
    });
    let (made_for, lent, bytes) = found.ok_or_else(unknown)?;
    if made_for != owner {
        let detail = "this memory was made for another context, or for none: import it with rknn_create_mem_from_fd";
        return Err(Refusal::new(Code::Param, detail));
    }
    Ok((lent, bytes))
}

/// A run's activations in a memory.
pub(crate) struct Occupied {
    part: Arc<Part>,
    /// Those of another run were there: a board gives wrong results.
    pub(crate) spoilt: bool,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.part.buffer.occupied.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lent {
    /// Have activations in it. Those of two runs at a time destroy each other.
    pub(crate) fn occupy(&self) -> Result<Occupied, Refusal> {
        let part = self.0.upgrade().ok_or_else(unknown)?;
        let spoilt = part.buffer.occupied.fetch_add(1, Ordering::SeqCst) > 0;
        let occupied = Occupied { part, spoilt };
        if spoilt && !system::driver()?.chip().silent_overlap {
            let detail = "its activations are where those of a run under way are: a board gives wrong results here and no error";
            return Err(Refusal::new(Code::Fail, detail));
        }
        Ok(occupied)
    }

    /// A copy of the first bytes.
    pub(crate) fn read(&self, bytes: usize) -> Result<Vec<u8>, Refusal> {
        let part = self.0.upgrade().ok_or_else(unknown)?;
        Ok(part.buffer.block.copy(part.offset, bytes.min(part.bytes)))
    }

    /// Write the first bytes.
    pub(crate) fn write(&self, contents: &[u8]) -> Result<(), Refusal> {
        let part = self.0.upgrade().ok_or_else(unknown)?;
        part.buffer.block.fill(part.offset, &contents[..contents.len().min(part.bytes)]);
        Ok(())
    }
}

/// Memory of an output that the library allocates.
pub(crate) fn output(contents: &[u8]) -> Result<*mut c_void, Refusal> {
    let block = Block::allocated(contents.len())
        .ok_or_else(|| Refusal::new(Code::Malloc, "an output's memory cannot be had"))?;
    block.fill(0, contents);
    let address = block.address();
    with(|b| b.outputs.insert(address as usize, block));
    Ok(address)
}

/// Give the memory of an output back; whether it was one.
pub(crate) fn release(address: *mut c_void) -> bool {
    with(|b| b.outputs.remove(&(address as usize))).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_activations_of_two_runs_at_a_time_are_not_in_one_memory() {
        let (made, other) = (create(7, 4096).unwrap(), create(7, 4096).unwrap());
        // SAFETY: the memory was not destroyed.
        let (fd, address) = unsafe { ((*made).fd, (*made).virt_addr) };
        let imported = import(8, fd, address, 4096, 0).unwrap();
        let lent = |owner, mem| find(owner, mem).unwrap().0;
        let first = lent(7, made).occupy().unwrap();
        assert_eq!(lent(8, imported).occupy().err().unwrap().code, Code::Fail);
        assert!(lent(7, other).occupy().is_ok());
        drop(first);
        assert!(lent(8, imported).occupy().is_ok());
        [made, other, imported].into_iter().for_each(|mem| destroy(mem).unwrap());
    }
}
