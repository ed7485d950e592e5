//! Writing a pack: everything goes to a hidden directory beside it, which is renamed when complete. A journal of finished files
//! lets an interrupted conversion go on.

use crate::ConvertError;
use crate::lock::{Lock, beside};
use rockshard_manifest::{Digest, FileEntry, MANIFEST_FILE, Manifest};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

const JOURNAL: &str = "journal";

/// What a thread that computes digests ends with.
type Digests = Result<Vec<(String, FileEntry)>, ConvertError>;

/// A pack being written.
pub struct PackWriter {
    target: PathBuf,
    /// Released after all else.
    _lock: Lock,
    partial: PathBuf,
    files: BTreeMap<String, FileEntry>,
    finished: BTreeMap<String, FileEntry>,
    /// The digests of the file that was added last, being computed.
    pending: Option<JoinHandle<Digests>>,
    keep: bool,
    done: bool,
}

impl PackWriter {
    /// Start a pack at `target`. `recipe` stands for the source and the options; with `resume`, files that an interrupted
    /// conversion with the same recipe finished are used again, otherwise its remains are removed.
    ///
    /// # Errors
    /// The target exists, another process writes it, or its directory cannot be written.
    pub fn start(target: &Path, recipe: &Digest, resume: bool) -> Result<Self, ConvertError> {
        if target.exists() {
            return Err(ConvertError::Exists(target.to_owned()));
        }
        let lock = Lock::take(target)?;
        let partial = beside(target, ".partial");
        let finished = if resume { journal(&partial, recipe) } else { None };
        if finished.is_none() && partial.exists() {
            fs::remove_dir_all(&partial).map_err(ConvertError::io(&partial))?;
        }
        let writer = PackWriter {
            target: target.to_owned(),
            _lock: lock,
            partial: partial.clone(),
            files: BTreeMap::new(),
            pending: None,
            keep: resume,
            done: false,
            finished: finished.clone().unwrap_or_default(),
        };
        for folder in ["shards", "reference", "scratch"] {
            let folder = partial.join(folder);
            fs::create_dir_all(&folder).map_err(ConvertError::io(&folder))?;
        }
        if finished.is_none() {
            writer.log(&recipe.to_string())?;
        }
        Ok(writer)
    }

    /// Keep what was written although the pack is not finished, for a conversion that goes on.
    pub(crate) fn keep_remains(&mut self) {
        self.keep = true;
    }

    /// Directory for temporary files; not part of the pack.
    pub fn scratch(&self) -> PathBuf {
        self.partial.join("scratch")
    }

    /// The directory that becomes the pack.
    pub fn root(&self) -> &Path {
        &self.partial
    }

    /// Whether an interrupted conversion wrote this file.
    pub fn is_finished(&self, name: &str) -> bool {
        self.finished.contains_key(name)
    }

    fn log(&self, line: &str) -> Result<(), ConvertError> {
        let path = self.partial.join(JOURNAL);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(ConvertError::io(&path))?;
        writeln!(file, "{line}").map_err(ConvertError::io(&path))
    }

    /// Add a file that `write` makes at the path it is given; a companion named `FILE_data`, when it makes one, is added too.
    ///
    /// # Errors
    /// Writing fails.
    pub fn add(
        &mut self,
        name: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), ConvertError> {
        let path = self.partial.join(name);
        let data = format!("{name}_data");
        if let Some(entry) = self.finished.get(name).cloned() {
            self.files.insert(name.to_owned(), entry);
            if let Some(entry) = self.finished.get(&data).cloned() {
                self.files.insert(data, entry);
            }
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(ConvertError::io(parent))?;
        }
        write(&path).map_err(ConvertError::io(&path))?;
        self.settle()?;
        let partial = self.partial.clone();
        // The companion first: a file in the journal is complete with it.
        let files = [data, name.to_owned()];
        self.pending = Some(std::thread::spawn(move || {
            let written = files.into_iter().map(|file| (partial.join(&file), file));
            let entry = |(path, file): (PathBuf, String)| {
                FileEntry::of_file(&path).map(|e| (file, e)).map_err(ConvertError::io(&path))
            };
            written.filter(|(path, _)| path.is_file()).map(entry).collect()
        }));
        Ok(())
    }

    /// Enter the file that was added last, once its digests are there.
    fn settle(&mut self) -> Result<(), ConvertError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let entries = pending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        for (file, entry) in entries {
            self.log(&format!("{} {} {file}", entry.sha256, entry.size))?;
            self.files.insert(file, entry);
        }
        Ok(())
    }

    /// Add a file with these contents.
    ///
    /// # Errors
    /// Writing fails.
    pub fn add_bytes(&mut self, name: &str, contents: &[u8]) -> Result<(), ConvertError> {
        self.add(name, |path| fs::write(path, contents))
    }

    /// Write the manifest, with the files added, and put the pack in its place.
    ///
    /// # Errors
    /// Writing fails, or the target appeared meanwhile.
    pub fn finish(mut self, mut manifest: Manifest) -> Result<Manifest, ConvertError> {
        self.settle()?;
        manifest.files = std::mem::take(&mut self.files);
        let path = self.partial.join(MANIFEST_FILE);
        fs::File::create(&path)
            .and_then(|mut f| {
                f.write_all(manifest.to_json().as_bytes()).and_then(|()| f.sync_all())
            })
            .map_err(ConvertError::io(&path))?;
        fs::remove_dir_all(self.scratch()).map_err(ConvertError::io(self.scratch()))?;
        let journal = self.partial.join(JOURNAL);
        fs::remove_file(&journal).map_err(ConvertError::io(journal))?;
        if self.target.exists() {
            return Err(ConvertError::Exists(self.target.clone()));
        }
        fs::rename(&self.partial, &self.target).map_err(ConvertError::io(&self.target))?;
        self.done = true;
        Ok(manifest)
    }
}

impl Drop for PackWriter {
    /// A failed conversion leaves nothing behind, unless it is to be resumed.
    fn drop(&mut self) {
        let settled = self.settle();
        if let Err(error) = settled {
            tracing::debug!("{error}");
        }
        if !self.done && !self.keep {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// The files an interrupted conversion with this recipe finished and that are still what they were.
fn journal(partial: &Path, recipe: &Digest) -> Option<BTreeMap<String, FileEntry>> {
    let text = fs::read_to_string(partial.join(JOURNAL)).ok()?;
    let mut lines = text.lines();
    if lines.next()? != recipe.to_string() {
        return None;
    }
    let mut files = BTreeMap::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (Some(digest), Some(size), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Ok(sha256), Ok(size)) = (Digest::try_from(digest.to_owned()), size.parse()) else {
            continue;
        };
        let entry = FileEntry { size, sha256 };
        if FileEntry::of_file(&partial.join(name)).is_ok_and(|found| found == entry) {
            files.insert(name.to_owned(), entry);
        }
    }
    // A file whose companion is damaged is not finished.
    let damaged: Vec<String> = files
        .keys()
        .filter(|n| {
            text.contains(&format!(" {n}_data")) && !files.contains_key(&format!("{n}_data"))
        })
        .cloned()
        .collect();
    files.retain(|name, _| !damaged.contains(name));
    Some(files)
}
