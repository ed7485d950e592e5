//! Running the real program.
#![allow(dead_code)]

use rockshard_tensor::{Tensor, map_file, read_npy};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// The bundled model.
pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm")
}

/// Run `rockshard` with arguments.
pub fn rockshard(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_rockshard")).args(args).output().unwrap();
    Run { command: args.join(" "), output }
}

/// Text without the ends of its lines and the margins, so that it can be searched however it was folded.
pub fn unfolded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The bundled vision-language model.
pub fn captioner() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-vlm")
}

/// A picture.
pub fn picture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vlm/tests/data/images/00-640x480-RGB.png")
}

/// The tensor in an npy file.
pub fn npy(path: &Path) -> Tensor {
    read_npy(&map_file(path).unwrap()).unwrap()
}

/// Relative L2 distance of `a` from `b`.
pub fn relative_l2(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x).powi(2);
    (a.iter().zip(&*b).map(|(x, y)| square(x - y)).sum::<f64>()
        / b.iter().map(|y| square(*y)).sum::<f64>())
    .sqrt()
}

/// A finished run.
pub struct Run {
    command: String,
    pub output: Output,
}

impl Run {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The run must have ended with exit code 0; gives what it printed.
    pub fn success(self) -> String {
        assert!(
            self.output.status.success(),
            "rockshard {}: {:?}\n{}",
            self.command,
            self.output.status,
            self.stderr()
        );
        self.stdout()
    }

    /// The run must have ended with this exit code; gives what it printed on standard error.
    pub fn exits(self, code: i32) -> String {
        assert_eq!(
            self.output.status.code(),
            Some(code),
            "rockshard {}\n{}{}",
            self.command,
            self.stdout(),
            self.stderr()
        );
        self.stderr()
    }
}

/// A temporary directory for one test.
pub struct Work(tempfile::TempDir);

impl Work {
    pub fn new() -> Self {
        Work(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Convert the bundled model.
    pub fn convert(&self, pack: &Path, options: &[&str]) -> String {
        let model = model();
        let args = ["convert", model.to_str().unwrap(), "--out", pack.to_str().unwrap(), "--quiet"];
        rockshard(&[&args[..], options].concat()).success()
    }
}

/// A pack of the bundled model that the tests of a file share.
pub static PACK: LazyLock<(Work, PathBuf)> = LazyLock::new(|| {
    let work = Work::new();
    let pack = work.path("pack");
    work.convert(&pack, &["--sandwich", "off"]);
    (work, pack)
});

/// What every stream of the shared pack is asked to draw.
pub const PROMPT: &str = "a large green square on a white background";

/// The arguments of a stream of the shared pack of two levels.
pub fn streaming<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let pack = PACK.1.to_str().unwrap();
    let first = ["stream", pack, "--prompt", PROMPT, "--t-index", "20,40", "--guidance", "2"];
    [&first[..], rest].concat()
}
