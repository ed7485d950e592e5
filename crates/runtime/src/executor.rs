//! The thread that owns one core: it opens sessions and runs them, and nothing else touches them.

use crate::RuntimeError;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rockshard_device::{Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// A run to be done and where its result goes.
pub(crate) struct Job {
    /// Session key, as given to [`Executor::open`].
    pub session: usize,
    /// Caller's tag, handed back with the result.
    pub tag: (usize, usize),
    pub inputs: Vec<Tensor>,
    pub reply: Sender<Done>,
}

/// A finished run.
pub(crate) struct Done {
    pub tag: (usize, usize),
    pub core: CoreId,
    pub start: Instant,
    pub end: Instant,
    pub result: Result<Completion, DeviceError>,
}

enum Command {
    Open { session: usize, shard: Box<ShardFile>, reply: Sender<Result<(), DeviceError>> },
    Run(Job),
}

pub(crate) struct Executor {
    core: CoreId,
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Executor {
    pub fn start(device: Arc<dyn Device>, core: CoreId) -> Result<Self, RuntimeError> {
        let (commands, queue) = unbounded();
        let thread = std::thread::Builder::new()
            .name(format!("executor {core}"))
            .spawn(move || serve(&*device, core, &queue))
            .map_err(|e| RuntimeError::Executor(format!("{core} ({e})")))?;
        Ok(Executor { core, commands: Some(commands), thread: Some(thread) })
    }

    /// Open a shard on this core and wait for it.
    pub fn open(&self, session: usize, shard: ShardFile) -> Result<(), RuntimeError> {
        let (reply, answer) = bounded(1);
        self.send(Command::Open { session, shard: Box::new(shard), reply })?;
        answer.recv().map_err(|_| self.gone())?.map_err(RuntimeError::from)
    }

    /// Queue a run; its result goes to the job's reply channel.
    pub fn run(&self, job: Job) -> Result<(), RuntimeError> {
        self.send(Command::Run(job))
    }

    fn send(&self, command: Command) -> Result<(), RuntimeError> {
        self.commands.as_ref().ok_or_else(|| self.gone())?.send(command).map_err(|_| self.gone())
    }

    fn gone(&self) -> RuntimeError {
        RuntimeError::Executor(self.core.to_string())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panicked executor has already reported through its reply channels.
            let _ = thread.join();
        }
    }
}

fn serve(device: &dyn Device, core: CoreId, queue: &Receiver<Command>) {
    let mut sessions: HashMap<usize, (String, Box<dyn Session>)> = HashMap::new();
    for command in queue {
        match command {
            Command::Open { session, shard, reply } => {
                let opened = guarded(&shard.name, core, || device.open(&shard, core));
                let answer = opened.map(|open| drop(sessions.insert(session, (shard.name, open))));
                let _ = reply.send(answer);
            }
            Command::Run(job) => {
                let start = Instant::now();
                let result = match sessions.get_mut(&job.session) {
                    Some((shard, session)) => guarded(shard, core, || session.run(&job.inputs)),
                    None => Err(DeviceError::new(DeviceErrorKind::Run, "", core, "the shard was not opened")),
                };
                // The caller may have given up; its channel is then closed.
                let _ = job.reply.send(Done { tag: job.tag, core, start, end: Instant::now(), result });
            }
        }
    }
}

/// A panic in a device is a failed run of that shard, not the end of the process.
fn guarded<T>(shard: &str, core: CoreId, work: impl FnOnce() -> Result<T, DeviceError>) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(DeviceError::new(DeviceErrorKind::Run, shard, core, format!("the device panicked: {}", text.unwrap_or("no message"))))
    })
}
