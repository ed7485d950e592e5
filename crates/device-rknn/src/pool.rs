//! Memory for the tensors of all sessions of a device. A buffer is in use as long as a tensor is in it, and then serves another one, of
//! whichever session: a process would run out of file descriptors, of which each buffer has one, if every session kept its own.

use crate::CallError;
use crate::api::{Api, Memory};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers that nobody uses.
pub(crate) struct Pool {
    api: Arc<Api>,
    free: Mutex<Vec<Memory>>,
}

/// A buffer in use. It goes back when this is dropped.
pub(crate) struct Buffer {
    /// Always there, but while it is dropped.
    memory: Option<Memory>,
    pool: Arc<Pool>,
}

impl Pool {
    pub(crate) fn new(api: Arc<Api>) -> Arc<Self> {
        Arc::new(Pool { api, free: Mutex::default() })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least this many bytes, with any contents.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Buffer, CallError> {
        let mut free = self.free();
        let fits =
            |memory: &Memory| memory.bytes() >= bytes && memory.bytes() <= 2 * bytes.max(PAGE);
        let best = (0..free.len()).filter(|&at| fits(&free[at])).min_by_key(|&at| free[at].bytes());
        let memory = match best {
            Some(at) => free.swap_remove(at),
            None => Memory::new(&self.api, bytes.next_multiple_of(PAGE)).or_else(|error| {
                // Those of other sizes are in the way.
                if free.is_empty() {
                    return Err(error);
                }
                free.clear();
                Memory::new(&self.api, bytes.next_multiple_of(PAGE))
            })?,
        };
        Ok(Buffer { memory: Some(memory), pool: self.clone() })
    }

    /// Give up what nobody uses.
    pub(crate) fn trim(&self) {
        self.free().clear();
    }
}

/// What the system allocates at least.
const PAGE: usize = 4096;

impl Buffer {
    /// Whether it is one of this pool.
    pub(crate) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl Deref for Buffer {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        self.memory.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.free().extend(self.memory.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Arc<Pool> {
        let beside = std::env::current_exe().unwrap().with_file_name("librknnrt.so");
        Pool::new(Arc::new(Api::load(&beside).unwrap()))
    }

    #[test]
    fn a_buffer_that_came_back_serves_what_it_is_not_much_too_large_for() {
        let pool = pool();
        let mut first = pool.take(100_000).unwrap();
        first.contents_mut()[99_999] = 7;
        drop(first);
        assert_eq!(pool.take(90_000).unwrap().contents()[99_999], 7);
        assert!(pool.take(20_000).unwrap().bytes() < 40_000, "too large");
        assert!(pool.take(200_000).unwrap().bytes() >= 200_000, "too small");
        let (one, other) = (pool.take(100_000).unwrap(), pool.take(100_000).unwrap());
        assert_ne!(one.contents().as_ptr(), other.contents().as_ptr());
        drop((one, other));
        assert_eq!(pool.free().len(), 4);
        pool.trim();
        assert_eq!(pool.free().len(), 0);
    }

    #[test]
    fn buffers_that_nobody_uses_make_room() {
        let pool = pool();
        let (held, large) = (pool.take(1_000_000_000).unwrap(), pool.take(2_000_000_000).unwrap());
        assert!(pool.take(2_600_000_000).is_err(), "both are in use");
        drop(large);
        let larger = pool.take(2_600_000_000).unwrap();
        drop((held, larger));
    }
}
