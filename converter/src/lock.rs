//! One process converts into a directory at a time.

use crate::ConvertError;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The right to write a pack, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    // Closing it releases the lock.
    _file: File,
}

/// A hidden name beside a path: a dot before its own, and an ending.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or("pack".as_ref()));
    name.push(ending);
    path.with_file_name(name)
}

impl Lock {
    /// Take it for a target. The operating system releases it when a process ends, however it does.
    ///
    /// # Errors
    /// Another process has it, which is named; or its file cannot be written.
    pub fn take(target: &Path) -> Result<Self, ConvertError> {
        let path = beside(target, ".lock");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ConvertError::io(folder))?;
        }
        loop {
            let mut options = OpenOptions::new();
            let open = options.create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = open.map_err(ConvertError::io(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let target = target.to_owned();
                    return Err(ConvertError::Busy { target, process: holder.trim().to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(ConvertError::io(&path)(source)),
            }
            // Whoever had it may have removed the file in between.
            if !is_at(&file, &path) {
                continue;
            }
            let told = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            told.map_err(ConvertError::io(&path))?;
            return Ok(Lock { path, _file: file });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}
