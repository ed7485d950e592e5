//! A scratch folder in which the real program runs.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::OnceLock;
use std::{fs, io};
use tempfile::TempDir;

/// What `convert` is given for the packs that tests alter.
const CONVERT: &str = "convert tiny-lcm --sandwich off --shards auto --out";

/// A scratch folder. Commands run in it, so that what they read and write is named by relative paths.
pub struct Scratch(TempDir);

/// What a command gave.
pub struct Ran {
    pub line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Scratch {
    pub fn new() -> Self {
        Scratch(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// With the bundled model as `tiny-lcm`.
    pub fn with_model() -> Self {
        let scratch = Scratch::new();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm");
        link_tree(&model, &scratch.path("tiny-lcm"), |from, to| symlink(from, to));
        scratch
    }

    /// With the bundled model's pack as `pack`.
    pub fn with_pack() -> Self {
        let scratch = Scratch::new();
        link_tree(shared_pack(), &scratch.path("pack"), |from, to| fs::hard_link(from, to));
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// Change a file. Its links elsewhere stay as they are.
    pub fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::remove_file(self.path(name)).unwrap();
        self.write(name, bytes);
    }

    /// A pack's file whose path begins and ends so.
    pub fn listed(&self, pack: &str, start: &str, end: &str) -> String {
        let manifest = self.manifest(pack);
        let files = manifest["files"].as_object().unwrap();
        files.keys().find(|n| n.starts_with(start) && n.ends_with(end)).unwrap().clone()
    }

    pub fn manifest(&self, pack: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(pack).join("manifest.json")).unwrap()).unwrap()
    }

    /// The program with arguments separated by spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rockshard"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).env_remove("RUST_LOG");
        command
    }

    pub fn run(&self, line: &str) -> Ran {
        let output = self.command(line).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut line = line.to_owned();
        line.truncate(200);
        let ran = Ran {
            line,
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.report());
        ran
    }

    /// The command works.
    pub fn succeeds(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "{}", ran.report());
        ran
    }

    /// The command fails, says all of `parts` on standard error, and leaves the folder as it was.
    pub fn refuses(&self, line: &str, parts: &[&str]) {
        self.fails(1, line, parts);
    }

    /// As [`Scratch::refuses`], for what the command line's own check finds.
    pub fn misuses(&self, line: &str, parts: &[&str]) {
        self.fails(2, line, parts);
    }

    fn fails(&self, code: i32, line: &str, parts: &[&str]) {
        let before = self.tree();
        let ran = self.run(line);
        assert_eq!(ran.code, Some(code), "{}", ran.report());
        assert_eq!(ran.stdout, "", "{}", ran.report());
        for part in parts {
            assert!(ran.stderr.contains(part), "does not say {part:?}: {}", ran.report());
        }
        let last = ran.stderr.trim_end().rsplit(": ").next().unwrap();
        assert_eq!(
            ran.stderr.matches(last).count(),
            1,
            "the cause is there twice: {}",
            ran.report()
        );
        assert_eq!(self.tree(), before, "files appeared or went: {}", ran.report());
    }

    /// Everything in the folder.
    fn tree(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        walk(self.0.path(), &mut |path, _| found.extend([path.to_owned()]));
        found
    }
}

impl Ran {
    fn report(&self) -> String {
        format!(
            "rockshard {}: exit code {:?}\n{}{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// The bundled model's pack, converted once for all tests; tests link to its files.
fn shared_pack() -> &'static Path {
    static PACK: OnceLock<PathBuf> = OnceLock::new();
    PACK.get_or_init(|| {
        remove_left_over();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("refusals-{}", id()));
        let scratch = Scratch::with_model();
        scratch.succeeds(&format!("{CONVERT} pack"));
        fs::rename(scratch.path("pack"), &kept).unwrap();
        kept
    })
}

/// Remove packs of test processes that have ended (statics are not dropped).
fn remove_left_over() {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).unwrap().filter_map(Result::ok) {
        let process = entry
            .file_name()
            .to_str()
            .and_then(|n| n.strip_prefix("refusals-")?.parse::<u32>().ok());
        if process.is_some_and(|p| !Path::new(&format!("/proc/{p}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn link_tree(from: &Path, to: &Path, link: fn(&Path, &Path) -> io::Result<()>) {
    fs::create_dir(to).unwrap();
    walk(from, &mut |path, folder| {
        let target = to.join(path.strip_prefix(from).unwrap());
        if folder { fs::create_dir(target).unwrap() } else { link(path, &target).unwrap() }
    });
}

/// Visit what is below a folder, folders before their contents; links are not followed.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, bool)) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let is_folder = entry.file_type().unwrap().is_dir();
        visit(&entry.path(), is_folder);
        if is_folder {
            walk(&entry.path(), visit);
        }
    }
}
