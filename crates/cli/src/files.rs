//! The files that a command wrote: each is named when it is done, as text and in its result.

use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// A file, or a directory, that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// What it is.
    kind: &'static str,
    path: String,
}

/// The files that a command wrote, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Files(Vec<File>);

impl Files {
    /// Note a file that is there now.
    pub fn add(&mut self, kind: &'static str, path: &Path) {
        self.0.push(File { kind, path: path.display().to_string() });
    }

    /// Write a file, and note it.
    pub fn write(
        &mut self,
        kind: &'static str,
        path: &Path,
        bytes: impl AsRef<[u8]>,
    ) -> Result<()> {
        std::fs::write(path, bytes).with_context(|| path.display().to_string())?;
        self.add(kind, path);
        Ok(())
    }

    /// A line a file.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|File { kind, path }| format!("{kind}: {path}"))
    }

    /// Text, with a line a file below it.
    pub fn below(&self, text: String) -> String {
        std::iter::once(text).chain(self.lines()).collect::<Vec<_>>().join("\n")
    }
}

/// A result, with the files that were written, as JSON.
#[derive(Serialize)]
pub struct Written<'a, T> {
    #[serde(flatten)]
    pub value: &'a T,
    pub written_files: &'a Files,
}
