//! A model as runs need it: values and shards by number instead of by name, files checked, and where each shard cannot be opened.

use crate::{RuntimeError, TensorMap};
use rockshard_device::ShardFile;
use rockshard_manifest::{CoreId, Model, TensorSpec};
use rockshard_pack::{Mode, Pack, Port, Variant, Walk, walk};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A shard of a loaded model.
pub(crate) struct LoadedShard {
    pub file: Arc<ShardFile>,
    /// Where the manifest pins it.
    pub core: CoreId,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// For each output, whether the device may keep it.
    pub keep: Vec<bool>,
    /// Shards it waits for, and shards that wait for it.
    pub needs: Vec<usize>,
    pub next: Vec<usize>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Lanes that could not open it, a bit each.
    shut_out: AtomicU32,
}

/// A model of a loaded pack.
pub(crate) struct LoadedModel {
    pub model: Model,
    pub mode: Mode,
    /// Session key of the first shard; shard i has key `base + i`. It is also the model's key in the ledger.
    pub base: usize,
    pub shards: Vec<LoadedShard>,
    /// Values of the model's inputs and outputs.
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    /// How many shards (and the caller) read each value.
    pub uses: Vec<usize>,
    /// Another model waits for its memory: items that are under way finish, and no others begin.
    pub yielding: AtomicBool,
}

impl LoadedModel {
    /// Check a model's files and number its values.
    pub fn new(
        pack: &Pack,
        model: &Model,
        mode: Mode,
        base: usize,
        variant: Variant,
    ) -> Result<Self, RuntimeError> {
        let Walk { shards, inputs, outputs, uses } = walk(model, variant);
        let stays = model.stays();
        let mut loaded = Vec::with_capacity(model.shards.len());
        for (shard, walked) in model.shards.iter().zip(shards) {
            let variant = if shard.core == CoreId::Host { Variant::Device } else { variant };
            loaded.push(LoadedShard {
                file: Arc::new(pack.shard_file(shard, variant)?),
                core: shard.core,
                inputs: walked.inputs,
                outputs: walked.outputs,
                keep: stays(&shard.outputs),
                needs: walked.needs,
                next: walked.next,
                bytes_in: shard.inputs.iter().map(bytes).sum(),
                bytes_out: shard.outputs.iter().map(bytes).sum(),
                shut_out: AtomicU32::new(0),
            });
        }
        let (model, yielding) = (model.clone(), AtomicBool::new(false));
        Ok(LoadedModel { model, mode, base, shards: loaded, inputs, outputs, uses, yielding })
    }

    /// Check that an item has the model's inputs, and give its tensors in their order.
    pub fn inputs_of(
        &self,
        item: usize,
        mut tensors: TensorMap,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let fail = |problem: String| RuntimeError::Input {
            model: self.model.name.clone(),
            problem: format!("item {item}: {problem}"),
        };
        let mut inputs = Vec::with_capacity(self.model.inputs.len());
        for spec in &self.model.inputs {
            match tensors.remove(&spec.name) {
                None => return Err(fail(format!("input {:?} is missing", spec.name))),
                Some(t)
                    if t.shape() != spec.shape || t.dtype().is_float() != spec.dtype.is_float() =>
                {
                    let TensorSpec { name, dtype, shape, .. } = spec;
                    return Err(fail(format!("input {name:?} is {dtype}{shape:?}, got {t:?}")));
                }
                Some(t) => inputs.push(t),
            }
        }
        match tensors.keys().next() {
            Some(name) => {
                let known = self.model.inputs.iter().map(|t| t.name.as_str()).collect::<Vec<_>>();
                let known = known.join(", ");
                Err(fail(format!("there is no input {name:?}; the inputs are {known}")))
            }
            None => Ok(inputs),
        }
    }

    /// Whether an item's tensors have this model's names and shapes.
    pub fn fits(&self, item: &TensorMap) -> bool {
        let given = |t: &TensorSpec| item.get(&t.name).is_some_and(|v| v.shape() == t.shape);
        self.model.inputs.iter().all(given)
    }

    pub fn is_yielding(&self) -> bool {
        self.yielding.load(Ordering::SeqCst)
    }
}

impl LoadedShard {
    /// A lane could not open it.
    pub fn shut_out(&self, lane: usize) {
        self.shut_out.fetch_or(1 << lane, Ordering::Relaxed);
    }

    /// Every lane may be able to open it again.
    pub fn let_in(&self) {
        self.shut_out.store(0, Ordering::Relaxed);
    }

    pub fn is_shut_out(&self, lane: usize) -> bool {
        self.shut_out.load(Ordering::Relaxed) & (1 << lane) != 0
    }
}

/// Bytes of a tensor on the device, where real values are float16.
fn bytes(spec: &TensorSpec) -> u64 {
    let size = if spec.dtype.is_float() { 2 } else { spec.dtype.size() };
    (spec.shape.iter().product::<usize>() * size) as u64
}
