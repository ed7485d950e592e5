//! A pack directory: its manifest, and files that are checked when they are first used.

use rockshard_device::{Device, ShardFile, Takes, Version};
use rockshard_manifest::{
    CoreId, FileEntry, MANIFEST_FILE, Manifest, ManifestError, Shard, TensorSpec,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Ending of the external data file beside a shard's graph.
const DATA_SUFFIX: &str = "_data";

/// Why a pack, or a file of it, is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Not a pack: no readable manifest.
    #[error("{path}: {source}")]
    Manifest {
        /// The manifest's path.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A manifest that is malformed, inconsistent or newer.
    #[error("{path}: {source}")]
    Invalid {
        /// The pack.
        path: PathBuf,
        /// Cause.
        source: ManifestError,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file that is not what the manifest says.
    #[error("{path}: {problem}; the pack was altered or cut short, convert it again")]
    Altered {
        /// File.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// The device runs compiled shards, and this one is not compiled.
    #[error("{path}: shard {shard} is not compiled, and this device runs compiled shards only")]
    NotCompiled {
        /// The pack.
        path: PathBuf,
        /// Shard.
        shard: String,
    },
    /// A shard of a compiler that the device's runtime is too old for.
    #[error(
        "{path}: shard {shard} was compiled by rknn-toolkit2 {toolkit}, and librknnrt is of version {runtime}, which can crash on it"
    )]
    Toolkit {
        /// The pack.
        path: PathBuf,
        /// Shard.
        shard: String,
        /// Version of the compiler.
        toolkit: String,
        /// Version of the runtime.
        runtime: Version,
    },
    /// A file the manifest does not list.
    #[error("the pack has no file {0:?}")]
    Unlisted(String),
}

/// Which of a shard's graphs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `shards/`: sandwiched and tiled, tensors scaled as their specs say.
    Device,
    /// The same, compiled: `.rknn`.
    Compiled {
        /// Version of the runtime that will load it, where it is known.
        runtime: Option<Version>,
    },
    /// `reference/`: the original piece; nothing is scaled.
    Reference,
}

impl Variant {
    /// What a device of the NPU, real or simulated, runs.
    pub fn of(device: &dyn Device) -> Self {
        match device.takes() {
            Takes::Graph => Variant::Device,
            Takes::Compiled { runtime } => Variant::Compiled { runtime },
        }
    }
}

/// An opened pack. Files are checked against size and digest when they are first used.
#[derive(Debug)]
pub struct Pack {
    root: PathBuf,
    manifest: Manifest,
    checked: Mutex<BTreeSet<String>>,
}

impl Pack {
    /// Open a pack directory and read its manifest.
    ///
    /// # Errors
    /// There is no manifest, or it is refused.
    pub fn open(root: &Path) -> Result<Self, PackError> {
        let path = root.join(MANIFEST_FILE);
        let text = std::fs::read(&path).map_err(|source| PackError::Manifest { path, source })?;
        let manifest = Manifest::parse(&text)
            .map_err(|source| PackError::Invalid { path: root.to_owned(), source })?;
        Ok(Pack { root: root.to_owned(), manifest, checked: Mutex::default() })
    }

    /// The pack's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Path of a listed file, after checking its size and digest.
    ///
    /// # Errors
    /// The file is not listed, not readable, or not what the manifest says.
    pub fn file(&self, name: &str) -> Result<PathBuf, PackError> {
        let entry =
            self.manifest.files.get(name).ok_or_else(|| PackError::Unlisted(name.to_owned()))?;
        let path = self.root.join(name);
        if self.checked.lock().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Ok(path);
        }
        let io = |source| PackError::Io { path: path.clone(), source };
        let size = std::fs::metadata(&path).map_err(io)?.len();
        if size != entry.size {
            let problem = format!("has {size} bytes, the manifest says {}", entry.size);
            return Err(PackError::Altered { path, problem });
        }
        if FileEntry::of_file(&path).map_err(io)? != *entry {
            return Err(PackError::Altered {
                path,
                problem: "its SHA-256 is not the manifest's".into(),
            });
        }
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(path)
    }

    /// A shard's graph for a device, its files checked.
    ///
    /// # Errors
    /// As [`Pack::file`]; a shard that is not compiled where it must be, or was by a compiler newer than the runtime.
    pub fn shard_file(&self, shard: &Shard, variant: Variant) -> Result<ShardFile, PackError> {
        let name = match variant {
            Variant::Device => shard.file.as_str(),
            // The host runs graphs, whatever the NPU takes.
            Variant::Compiled { .. } if shard.core == CoreId::Host => shard.file.as_str(),
            Variant::Compiled { runtime } => self.compiled(shard, runtime)?,
            Variant::Reference => &shard.reference,
        };
        let path = self.file(name)?;
        let data = format!("{name}{DATA_SUFFIX}");
        if self.manifest.files.contains_key(&data) {
            self.file(&data)?;
        }
        let specs = |list: &[TensorSpec]| match variant {
            Variant::Device | Variant::Compiled { .. } => list.to_vec(),
            Variant::Reference => list.iter().map(TensorSpec::unscaled).collect(),
        };
        Ok(ShardFile {
            name: shard.name.clone(),
            path,
            inputs: specs(&shard.inputs),
            outputs: specs(&shard.outputs),
        })
    }

    /// The file of a compiled shard that a runtime can load.
    fn compiled<'a>(
        &self,
        shard: &'a Shard,
        runtime: Option<Version>,
    ) -> Result<&'a str, PackError> {
        let (path, name) = (self.root.clone(), shard.name.clone());
        let Some(compiled) = &shard.compiled else {
            return Err(PackError::NotCompiled { path, shard: name });
        };
        match (Version::parse(&compiled.toolkit), runtime) {
            (Some(toolkit), Some(runtime)) if toolkit > runtime => Err(PackError::Toolkit {
                path,
                shard: name,
                toolkit: compiled.toolkit.clone(),
                runtime,
            }),
            _ => Ok(&compiled.file),
        }
    }
}
