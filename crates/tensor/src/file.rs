//! Files as shared bytes: mapped, not read, so that weights of gigabytes cost memory only where they are touched.

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use std::{fs::File, io, path::Path, sync::Arc};

/// Map a file read-only as shared bytes. An empty file gives empty bytes.
///
/// # Errors
/// The file cannot be opened or mapped.
///
/// The file must not be truncated by another process while the bytes live: the packs and models that rockshard reads are
/// written once and renamed into place.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    MappedFile::open(path).map(|file| file.bytes)
}

/// A file mapped read-only whose pages can be given back while its bytes are in use.
#[derive(Clone, Debug)]
pub struct MappedFile {
    bytes: Bytes,
    /// None for an empty file.
    map: Option<Arc<Mmap>>,
}

/// Lets [`Bytes`] share a mapping.
struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedFile {
    /// Map a file; the contract is that of [`map_file`].
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(MappedFile { bytes: Bytes::new(), map: None });
        }
        // SAFETY: the mapping is read-only and private to this process's view; see the contract above for truncation.
        let map = Arc::new(unsafe { Mmap::map(&file)? });
        Ok(MappedFile { bytes: Bytes::from_owner(Owner(map.clone())), map: Some(map) })
    }

    /// The whole file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Take the pages read so far out of this process's memory; they are read again when they are next needed.
    #[allow(unsafe_code)]
    pub fn release_pages(&self) {
        if let Some(map) = &self.map {
            // SAFETY: the mapping is of a file and was never written to, so a dropped page comes back with the same contents.
            // A refused advice leaves the pages where they are.
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }
}
