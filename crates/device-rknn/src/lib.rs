//! The RK3588's NPU: shards through Rockchip's librknnrt.
//!
//! The library is loaded when the device is made, so that this crate builds and is tested on machines that have none, against
//! `rknnrt-sim`. The crate rknn-rs is not used for these reasons: it links the library and needs libclang, so nothing that depends
//! on it builds without them; its `Rknn` can be shared between threads, and a shared context gives wrong results without an error; its errors are text; and
//! it has no `rknn_dup_context`, `rknn_set_io_mem`, flags, or queries of memory and time.
//!
//! Each session has a context of its own and is used through `&mut`, so giving inputs, running and taking outputs are one step. Sessions
//! of one file share its weights (`origins`).
//!
//! Inputs and outputs lie in memory that the NPU reaches (`pool`), in the NPU's own layout (`native`): the host's tensors are brought into
//! it and taken out of it here, and what a session keeps for another one is not touched. A session whose model has a layout that this crate
//! does not know gives and takes copies instead, which the runtime converts. All outputs are got at once then: the runtime writes to
//! all of them, whatever number it is told. The sessions of a core share the memory of activations (`arena`).
//!
//! `api` holds all unsafe code.

mod api;
mod arena;
mod native;
mod origins;
mod pool;
mod session;

pub use api::version_in;

use api::Api;
use arena::Arena;
use origins::Origins;
use pool::Pool;
use rockshard_device::{Device, DeviceError, DeviceErrorKind, Session, ShardFile, Takes, Version};
use rockshard_manifest::CoreId;
use rockshard_rknn_abi::Code;
use std::path::Path;
use std::sync::Arc;

const CORES: u8 = 3;
/// Where the library is looked for when no path is given: the system's loader decides.
const LIBRARY: &str = "librknnrt.so";

/// The NPU, `--device rknn`.
#[derive(Clone)]
pub struct RknnDevice {
    api: Arc<Api>,
    origins: Arc<Origins>,
    pool: Arc<Pool>,
    /// One a core; none where the runtime has all memory.
    arenas: Vec<Arc<Arena>>,
}

/// Versions that a loaded model's context tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of librknnrt.
    pub runtime: String,
    /// Of the NPU's driver.
    pub driver: String,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library is not there, or cannot be loaded.
    #[error(
        "{library} cannot be loaded ({source}): install Rockchip's librknnrt 2.3 or newer where the system finds libraries"
    )]
    Library {
        /// Name or path.
        library: String,
        /// What the system's loader says.
        source: libloading::Error,
    },
    /// The library lacks a function.
    #[error("{library} is no librknnrt of 2.3 or newer: it has no {function}")]
    Function {
        /// Name or path.
        library: String,
        /// What is missing.
        function: &'static str,
    },
}

/// A call of the library that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The function.
    pub function: &'static str,
    /// What it returned.
    pub raw: i32,
}

impl CallError {
    /// The vendor's code, where it is one.
    pub fn code(self) -> Option<Code> {
        Code::from_raw(self.raw)
    }
}

impl std::error::Error for CallError {}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code() {
            Some(code) => write!(
                f,
                "{} gave {} ({}): {}",
                self.function,
                code.name(),
                self.raw,
                code.advice()
            ),
            None => write!(f, "{} gave {}, which is no code of the API", self.function, self.raw),
        }
    }
}

impl RknnDevice {
    /// Load the runtime: from a path, or from where the system finds libraries.
    ///
    /// # Errors
    /// It is not there, or lacks functions.
    pub fn load(library: Option<&Path>) -> Result<Self, LoadError> {
        let api = Arc::new(Api::load(library.unwrap_or(Path::new(LIBRARY)))?);
        let arenas = (0..CORES).map(|_| Arena::new(&api)).collect();
        Ok(RknnDevice { pool: Pool::new(api.clone()), api, origins: Arc::default(), arenas })
    }

    /// The device with all memory left to the runtime: inputs and outputs are copied, and each session has activations of its own. To compare with.
    pub fn copying(self) -> Self {
        RknnDevice { arenas: Vec::new(), origins: Arc::default(), ..self }
    }

    /// The library's file, where it is known.
    pub fn library(&self) -> Option<&Path> {
        self.api.file.as_deref()
    }

    /// Version of the library, as its file says.
    pub fn runtime(&self) -> Option<&str> {
        self.api.version.as_deref()
    }

    /// Whether the library is `rknnrt-sim`.
    pub fn is_simulated(&self) -> bool {
        self.api.simulated
    }

    /// Where a call was refused for want of memory: give up what no session uses, so that it can be tried again. Only then is memory given up, because
    /// librknnrt 2.3.2 is said to leave its descriptors open (airockchip/rknn-toolkit2#532).
    fn make_room(&self, error: CallError) -> Result<(), CallError> {
        if error.code() != Some(Code::Malloc) {
            return Err(error);
        }
        self.pool.trim();
        self.arenas.iter().for_each(|arena| arena.trim());
        Ok(())
    }

    /// Load a shard to ask for the versions of runtime and driver.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn versions(&self, shard: &ShardFile) -> Result<Versions, DeviceError> {
        session::versions(&self.api, shard)
    }
}

impl Device for RknnDevice {
    fn name(&self) -> &'static str {
        "rknn"
    }

    fn cores(&self) -> u8 {
        CORES
    }

    /// A board's runtime loads compiled shards, `rknnrt-sim` graphs.
    fn takes(&self) -> Takes {
        takes(self.api.simulated, self.runtime())
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        match core {
            CoreId::Npu(n) if n < CORES => {
                Ok(Box::new(session::RknnSession::open(self, shard, n)?))
            }
            CoreId::Npu(_) => {
                Err(unavailable(shard, core, format!("the NPU has {CORES} cores, numbered from 0")))
            }
            CoreId::Host => Err(unavailable(
                shard,
                core,
                "the NPU does not run host shards; open them on the CPU device".to_owned(),
            )),
        }
    }
}

fn takes(simulated: bool, version: Option<&str>) -> Takes {
    if simulated {
        Takes::Graph
    } else {
        Takes::Compiled { runtime: version.and_then(Version::parse) }
    }
}

fn unavailable(shard: &ShardFile, core: CoreId, detail: String) -> DeviceError {
    DeviceError::new(DeviceErrorKind::Unavailable, &shard.name, core, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_takes_compiled_shards_of_its_version_and_the_double_graphs() {
        let version = "2.3.2 (429f97ae6b@2025-04-09T09:09:27)";
        assert_eq!(
            takes(false, Some(version)),
            Takes::Compiled { runtime: Some(Version([2, 3, 2])) }
        );
        assert_eq!(takes(false, None), Takes::Compiled { runtime: None });
        assert_eq!(takes(true, Some(version)), Takes::Graph);
    }

    #[test]
    fn the_version_is_read_from_the_librarys_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let table: [(&[u8], Option<&str>); 4] = [
            (
                b"\x7fELF\0librknnrt version: 2.3.2 (429f97ae6b@2025-04-09T09:09:27)\0more",
                Some("2.3.2 (429f97ae6b@2025-04-09T09:09:27)"),
            ),
            (b"librknnrt version: 1.5.0\n", Some("1.5.0")),
            (b"librknnrt version: \0", None),
            (b"librknnrt", None),
        ];
        for (bytes, version) in table {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(version_in(file.path()).as_deref(), version);
        }
    }
}
