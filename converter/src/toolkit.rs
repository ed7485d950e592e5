//! Compiling shards with Rockchip's rknn-toolkit2: one Python process a shard, so that one that crashes takes nothing with it.

mod log;

use crate::ConvertError;
use log::Log;
use rockshard_manifest::{Compiled, Verified};
use rockshard_tensor::{Tensor, write_npy};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const SCRIPT: &str = include_str!("toolkit/compile.py");
const PROBE: &str = "import importlib.metadata as m; print(m.version('rknn-toolkit2'))";
/// Status with which what starts programs (a shell, an `env`, qemu in user mode) says that there is no such program.
const NOT_FOUND: i32 = 127;
/// How often a running compiler is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Which toolkit compiles, and how.
#[derive(Clone, Debug)]
pub struct Toolkit {
    /// Python interpreter with rknn-toolkit2 in its environment.
    pub python: PathBuf,
    /// Shards compiled at once.
    pub jobs: usize,
    /// Longest time for one shard.
    pub timeout: Duration,
    /// Run Rockchip's simulator on golden tensors as well.
    pub verify: bool,
}

/// Makes the inputs and the expected outputs of a shard, as the shard stores them and in graph order.
type MakeGolden<'a> =
    dyn Fn() -> Result<(Vec<Tensor>, Vec<Tensor>), ConvertError> + Send + Sync + 'a;

/// One shard to compile.
pub(crate) struct ShardToCompile<'a> {
    /// Shard.
    pub name: String,
    /// Its ONNX file.
    pub model: PathBuf,
    /// What to verify with, if it is to be verified.
    pub golden: Option<Box<MakeGolden<'a>>>,
}

/// Why a shard was not compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Shard.
    pub shard: String,
    /// What happened, with the compiler's own words.
    pub reason: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.reason)
    }
}

/// A compiled shard: the files to take over, and what goes into the manifest.
pub(crate) struct Product {
    pub rknn: PathBuf,
    pub compiled: Compiled,
}

#[derive(Serialize)]
struct Order<'a> {
    model: &'a Path,
    output: &'a Path,
    inputs: Vec<PathBuf>,
    expected: Vec<PathBuf>,
    result: &'a Path,
}

#[derive(Deserialize)]
struct Answer {
    step: String,
    code: i64,
    error: String,
    cosine: Vec<f64>,
    relative_l2: Vec<f64>,
}

impl Toolkit {
    /// Version of rknn-toolkit2 in the environment of a Python interpreter.
    ///
    /// # Errors
    /// The interpreter cannot be run, or has no rknn-toolkit2.
    pub fn version(python: &Path) -> Result<String, ConvertError> {
        let fail = |problem: String| ConvertError::Toolkit { python: python.to_owned(), problem };
        let output = Command::new(python)
            .args(["-c", PROBE])
            .output()
            .map_err(|e| fail(format!("cannot be run ({e})")))?;
        if output.status.code() == Some(NOT_FOUND) {
            return Err(fail(format!("cannot be run ({})", output.status)));
        }
        if !output.status.success() {
            return Err(fail("has no rknn-toolkit2 in its environment".into()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Compile the shards, several at once; each result is handed over as soon as it is there, with the job's index.
    ///
    /// # Errors
    /// Temporary files cannot be written, or `each` fails; compilers then running are waited for.
    pub(crate) fn compile(
        &self,
        version: &str,
        jobs: &[ShardToCompile<'_>],
        scratch: &Path,
        mut each: impl FnMut(usize, Result<Product, Failure>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        fs::create_dir_all(scratch).map_err(ConvertError::io(scratch))?;
        let script = scratch.join("compile.py");
        fs::write(&script, SCRIPT).map_err(ConvertError::io(&script))?;
        let next = AtomicUsize::new(0);
        let (send, receive) = mpsc::channel();
        let workers = self.jobs.clamp(1, jobs.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (send, next, script) = (send.clone(), &next, &script);
                scope.spawn(move || {
                    while let Some((index, job)) = Some(next.fetch_add(1, Ordering::Relaxed))
                        .and_then(|i| Some((i, jobs.get(i)?)))
                    {
                        let folder = scratch.join(&job.name);
                        let done = self.one(version, job, &folder, script, workers);
                        if send.send((index, folder, done)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            for (index, folder, done) in receive {
                let taken = done.and_then(|result| each(index, result));
                if let Err(error) = taken {
                    // No further job is begun.
                    next.store(jobs.len(), Ordering::Relaxed);
                    return Err(error);
                }
                fs::remove_dir_all(&folder).map_err(ConvertError::io(&folder))?;
            }
            Ok(())
        })
    }

    fn one(
        &self,
        version: &str,
        job: &ShardToCompile<'_>,
        folder: &Path,
        script: &Path,
        workers: usize,
    ) -> Result<Result<Product, Failure>, ConvertError> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(ConvertError::io(folder))?;
        }
        fs::create_dir_all(folder).map_err(ConvertError::io(folder))?;
        let golden = job.golden.as_ref().map(|make| make()).transpose()?.unwrap_or_default();
        let (status, text, answer, rknn) =
            self.run(job, &golden, folder, script, workers).map_err(ConvertError::io(folder))?;
        tracing::debug!(shard = job.name, "{text}");
        let mut log = Log::parse(&text);
        if answer.is_none() {
            // What Python itself said.
            log.errors.extend(text.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned));
        }
        Ok(self.judge(version, job, &rknn, status, &log, answer))
    }

    /// Run the compiler. Gives its exit status (none when it took too long), its log, its answer if it gave one, and where the result is.
    fn run(
        &self,
        job: &ShardToCompile<'_>,
        (inputs, expected): &(Vec<Tensor>, Vec<Tensor>),
        folder: &Path,
        script: &Path,
        workers: usize,
    ) -> io::Result<(Option<ExitStatus>, String, Option<Answer>, PathBuf)> {
        let store = |kind: &str, tensors: &[Tensor]| -> io::Result<Vec<PathBuf>> {
            let path = |i: usize| folder.join(format!("{kind}-{i}.npy"));
            for (i, tensor) in tensors.iter().enumerate() {
                write_npy(tensor, &mut io::BufWriter::new(File::create(path(i))?))?;
            }
            Ok((0..tensors.len()).map(path).collect())
        };
        let (inputs, expected) = (store("input", inputs)?, store("expected", expected)?);
        let [order, result, rknn, log] =
            ["order.json", "result.json", "shard.rknn", "log.txt"].map(|f| folder.join(f));
        let text = serde_json::to_vec(&Order {
            model: &job.model,
            output: &rknn,
            inputs,
            expected,
            result: &result,
        })?;
        fs::write(&order, text)?;
        let out = File::create(&log)?;
        let threads =
            (std::thread::available_parallelism().map_or(1, usize::from) / workers).max(1);
        // The toolkit writes its own temporary files to the working directory and to TMPDIR.
        let mut child = Command::new(self.interpreter()?)
            .arg(script)
            .arg(&order)
            .current_dir(folder)
            .env("TMPDIR", folder)
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()?;
        let began = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if began.elapsed() > self.timeout => {
                    child.kill()?;
                    child.wait()?;
                    break None;
                }
                None => std::thread::sleep(POLL),
            }
        };
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let answer =
            fs::read(&result).ok().and_then(|text| serde_json::from_slice::<Answer>(&text).ok());
        Ok((status, text, answer, rknn))
    }

    /// The interpreter as it is started in another directory: a name is looked for in PATH, a path is where it is from here.
    fn interpreter(&self) -> std::io::Result<PathBuf> {
        match self.python.components().count() {
            0 | 1 => Ok(self.python.clone()),
            _ => std::path::absolute(&self.python),
        }
    }

    fn judge(
        &self,
        version: &str,
        job: &ShardToCompile<'_>,
        rknn: &Path,
        status: Option<ExitStatus>,
        log: &Log,
        answer: Option<Answer>,
    ) -> Result<Product, Failure> {
        let fail = |problem: String| {
            let told = |line: &&String| {
                !line.contains("Traceback") && !line.contains("rknn-toolkit2 version")
            };
            let lines: Vec<&str> = log.errors.iter().filter(told).map(String::as_str).collect();
            let said = lines[lines.len().saturating_sub(3)..].join("; ");
            let reason = if said.is_empty() { problem } else { format!("{problem}: {said}") };
            Err(Failure { shard: job.name.clone(), reason })
        };
        let at = answer.as_ref().map_or("start", |a| a.step.as_str());
        let Some(status) = status else {
            return fail(format!(
                "the toolkit took longer than {} s at {at}",
                self.timeout.as_secs()
            ));
        };
        if let Some(signal) = status.signal() {
            return fail(format!("the toolkit was killed by {} at {at}", signal_name(signal)));
        }
        let Some(answer) = answer else {
            return fail(format!("the toolkit did not start ({status})"));
        };
        if answer.step != "done" {
            let detail = if answer.error.is_empty() {
                format!("returned {}", answer.code)
            } else {
                answer.error
            };
            return fail(format!("the toolkit refused it: {} {detail}", answer.step));
        }
        let (Some(internal_bytes), Some(weight_bytes)) = (log.internal_bytes, log.weight_bytes)
        else {
            return fail("the toolkit's log has no memory totals".into());
        };
        let verified = job.golden.is_some().then(|| Verified {
            cosine: answer.cosine.iter().copied().fold(1.0, f64::min),
            relative_l2: answer.relative_l2.iter().copied().fold(0.0, f64::max),
        });
        let compiled = Compiled {
            file: String::new(),
            toolkit: version.to_owned(),
            internal_bytes,
            weight_bytes,
            layers: log.layers.clone(),
            warnings: log.warnings.clone(),
            verified,
        };
        Ok(Product { rknn: rknn.to_owned(), compiled })
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL (out of memory, if nobody sent it)",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
