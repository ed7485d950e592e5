//! What the functions of the C API have in common: handles and the contexts behind them, refusals as codes, pointers as slices.
//!
//! A handle is a number that is looked up, so that any number may be given. A context is locked for a call; [`step`] also sees that
//! another thread came meanwhile, which the vendor's runtime does not.

use crate::Refusal;
use crate::context::{Context, overlap};
use rockshard_rknn_abi::{self as abi, Code};
use std::collections::HashMap;
use std::ffi::c_int;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

/// A context, and whether a call of another thread came while one was under way.
struct Slot {
    context: Mutex<Context>,
    disturbed: AtomicBool,
}

type Shared = Arc<Slot>;

/// Loaded contexts, and the handle given last. Handles are never used again.
static CONTEXTS: Mutex<(abi::Context, Option<HashMap<abi::Context, Shared>>)> =
    Mutex::new((0, None));

pub(super) fn register(context: Context) -> abi::Context {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.0 += 1;
    let handle = contexts.0;
    contexts.1.get_or_insert_default().insert(
        handle,
        Arc::new(Slot { context: Mutex::new(context), disturbed: AtomicBool::new(false) }),
    );
    handle
}

pub(super) fn gone() -> Refusal {
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
pub(super) fn with<T>(
    handle: abi::Context,
    work: impl FnOnce(&mut Context) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let shared = find(handle)?;
    let mut context = shared.context.lock().map_err(panicked)?;
    work(&mut context)
}

/// A call of a run's step. Another one under way is an overlap, which spoils what that one gives.
pub(super) fn step<T>(
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
pub(super) fn answer<T>(call: &str, work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, c_int> {
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

pub(super) fn code(call: &str, work: impl FnOnce() -> Result<(), Refusal>) -> c_int {
    answer(call, work).err().unwrap_or(0)
}

pub(super) fn null(what: &str) -> Refusal {
    Refusal::new(Code::Param, format!("{what} is null"))
}

/// A caller's pointer as a reference.
///
/// # Safety
/// As the module says; nothing else uses the memory meanwhile.
pub(super) unsafe fn one<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Refusal> {
    // SAFETY: the caller of the C API promises memory of this type.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
}

/// A caller's array.
///
/// # Safety
/// As the module says; nothing else uses the memory meanwhile.
pub(super) unsafe fn many<'a, T>(
    pointer: *mut T,
    count: u32,
    what: &str,
) -> Result<&'a mut [T], Refusal> {
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
pub(super) unsafe fn given<'a, T>(
    pointer: *const T,
    count: u32,
    what: &str,
) -> Result<&'a [T], Refusal> {
    match count {
        0 => Ok(&[]),
        _ if pointer.is_null() => Err(null(what)),
        // SAFETY: the caller of the C API promises `count` elements.
        _ => Ok(unsafe { std::slice::from_raw_parts(pointer, count as usize) }),
    }
}

/// Forget a context.
pub(super) fn unregister(handle: abi::Context) -> Result<(), Refusal> {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.1.as_mut().and_then(|c| c.remove(&handle)).map(drop).ok_or_else(gone)
}
