use bytes::Bytes;
use std::{fs::File, io, path::Path};

/// Map a file read-only as shared bytes. An empty file gives empty bytes.
///
/// # Errors
/// The file cannot be opened or mapped.
///
/// The file must not be truncated by another process while the bytes live: the packs and models that rockshard reads are
/// written once and renamed into place.
#[allow(unsafe_code)]
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only and private to this process's view; see the contract above for truncation.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
