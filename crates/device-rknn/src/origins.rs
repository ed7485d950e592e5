//! A file is loaded once: sessions after its first get a duplicate of that context, and share its weights. A context cannot be duplicated
//! while it runs; where its run does not return, the file is loaded again, so that a hung core keeps no other from opening.

use crate::CallError;
use crate::api::{Api, Context};
use crate::arena::PATIENCE;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

type Shared = Arc<Mutex<Context>>;

/// The first context of each file that is in use.
#[derive(Default)]
pub(crate) struct Origins(Mutex<HashMap<File, Weak<Mutex<Context>>>>);

/// A file as it is: one that was written again is another.
#[derive(Clone, PartialEq, Eq, Hash)]
struct File {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// A session's own context. Its lock is only ever waited for while another session is duplicated from it.
pub(crate) struct Lease {
    context: Shared,
    /// Goes after `context`, which is a duplicate of it.
    _origin: Option<Shared>,
}

impl Lease {
    pub(crate) fn context(&self) -> MutexGuard<'_, Context> {
        lock(&self.context)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A context once no run uses it; `None` where that takes longer than [`PATIENCE`].
fn idle(context: &Mutex<Context>) -> Option<MutexGuard<'_, Context>> {
    let began = Instant::now();
    loop {
        match context.try_lock() {
            Ok(context) => return Some(context),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if began.elapsed() > PATIENCE => return None,
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(1)),
        }
    }
}

impl Origins {
    /// A context of a model's file, opened with flags, which are the same for all.
    pub(crate) fn open(
        &self,
        api: &Arc<Api>,
        path: &Path,
        text: &CString,
        flags: u32,
    ) -> Result<Lease, CallError> {
        let file = std::fs::metadata(path).ok().map(|m| File {
            path: path.to_owned(),
            bytes: m.len(),
            modified: m.modified().ok(),
        });
        // Held while the runtime loads, so that nobody loads the file meanwhile.
        let mut known = lock(&self.0);
        known.retain(|_, origin| origin.strong_count() > 0);
        if let Some(origin) = file.as_ref().and_then(|f| known.get(f)).and_then(Weak::upgrade) {
            // Another file need not wait until this one's context is free.
            drop(known);
            let twin = idle(&origin).map(|mut context| context.dup()).transpose()?;
            if let Some(twin) = twin {
                let context = Arc::new(Mutex::new(twin));
                return Ok(Lease { context, _origin: Some(origin) });
            }
            known = lock(&self.0);
        }
        let context = Arc::new(Mutex::new(Context::open(api, text, flags)?));
        if let Some(file) = file {
            known.insert(file, Arc::downgrade(&context));
        }
        Ok(Lease { context, _origin: None })
    }
}
