//! Device memory as a device sees it, to hold the ledger to.

use rockshard_device::{Completion, Device, DeviceError, Session, ShardFile, Value};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A device that keeps count of the bytes of the shards that are open: cores share weights, and each has room for its largest shard.
#[derive(Clone)]
pub struct Counting {
    inner: Arc<dyn Device>,
    bytes: fn(&str) -> (u64, u64),
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    sessions: HashMap<(String, CoreId), usize>,
    peak: u64,
}

struct CountingSession {
    inner: Box<dyn Session>,
    open: Arc<Mutex<Open>>,
    key: (String, CoreId),
}

impl Open {
    fn bytes(&self, bytes: fn(&str) -> (u64, u64)) -> u64 {
        let (mut weights, mut arenas) = (HashMap::new(), HashMap::new());
        for (shard, core) in self.sessions.keys() {
            weights.insert(shard, bytes(shard).0);
            let arena: &mut u64 = arenas.entry(core).or_default();
            *arena = bytes(shard).1.max(*arena);
        }
        weights.values().sum::<u64>() + arenas.values().sum::<u64>()
    }
}

impl Counting {
    /// Count for a device, given each shard's bytes of weights and of activations.
    pub fn new(inner: Arc<dyn Device>, bytes: fn(&str) -> (u64, u64)) -> Self {
        Counting { inner, bytes, open: Arc::default() }
    }

    /// Most bytes that were open at a time.
    pub fn peak(&self) -> u64 {
        self.open.lock().unwrap().peak
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.open.lock().unwrap().sessions.len()
    }

    /// Shards that are open.
    pub fn shards(&self) -> Vec<String> {
        self.open.lock().unwrap().sessions.keys().map(|(shard, _)| shard.clone()).collect()
    }
}

impl Device for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn cores(&self) -> u8 {
        self.inner.cores()
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let inner = self.inner.open(shard, core)?;
        let key = (shard.name.clone(), core);
        let mut open = self.open.lock().unwrap();
        *open.sessions.entry(key.clone()).or_default() += 1;
        open.peak = open.bytes(self.bytes).max(open.peak);
        Ok(Box::new(CountingSession { inner, open: self.open.clone(), key }))
    }
}

impl Session for CountingSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        self.inner.run(inputs)
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        self.inner.run_between(inputs, keep)
    }
}

impl Drop for CountingSession {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap();
        let count = open.sessions.get_mut(&self.key).unwrap();
        *count -= 1;
        if *count == 0 {
            open.sessions.remove(&self.key);
        }
    }
}
