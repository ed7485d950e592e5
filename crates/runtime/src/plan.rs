//! A model as the runner needs it: values and shards by number instead of by name.

use crate::{RuntimeError, TensorMap};
use rockshard_device::ShardFile;
use rockshard_manifest::{CoreId, Model, TensorSpec};
use rockshard_pack::{Pack, Port, Variant, Walk, walk};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A shard.
pub(crate) struct Step {
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

/// A model.
pub(crate) struct Plan {
    pub model: Model,
    /// Number of the plan in its runner.
    pub index: usize,
    /// Session key of the first shard; shard i has key `base + i`.
    pub base: usize,
    pub steps: Vec<Step>,
    /// Values of the model's inputs and outputs.
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    /// How many shards (and the caller) read each value.
    pub uses: Vec<usize>,
}

impl Plan {
    pub fn new(
        pack: &Pack,
        model: &Model,
        index: usize,
        base: usize,
        variant: Variant,
    ) -> Result<Self, RuntimeError> {
        let Walk { shards, inputs, outputs, uses } = walk(model, variant);
        let stays = model.stays();
        let mut steps = Vec::with_capacity(model.shards.len());
        for (shard, walked) in model.shards.iter().zip(shards) {
            let variant = if shard.core == CoreId::Host { Variant::Device } else { variant };
            steps.push(Step {
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
        Ok(Plan { model: model.clone(), index, base, steps, inputs, outputs, uses })
    }

    /// Check that an item has the model's inputs, and give its tensors in their order.
    pub fn inputs_of(
        &self,
        index: usize,
        mut item: TensorMap,
    ) -> Result<Vec<Tensor>, RuntimeError> {
        let fail = |problem: String| RuntimeError::Input {
            model: self.model.name.clone(),
            problem: format!("item {index}: {problem}"),
        };
        let mut tensors = Vec::with_capacity(self.model.inputs.len());
        for spec in &self.model.inputs {
            match item.remove(&spec.name) {
                None => return Err(fail(format!("input {:?} is missing", spec.name))),
                Some(t)
                    if t.shape() != spec.shape || t.dtype().is_float() != spec.dtype.is_float() =>
                {
                    return Err(fail(format!(
                        "input {:?} is {}{:?}, got {t:?}",
                        spec.name, spec.dtype, spec.shape
                    )));
                }
                Some(t) => tensors.push(t),
            }
        }
        match item.keys().next() {
            Some(name) => {
                let known = self
                    .model
                    .inputs
                    .iter()
                    .map(|t| t.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                Err(fail(format!("there is no input {name:?}; the inputs are {known}")))
            }
            None => Ok(tensors),
        }
    }

    /// Whether an item's tensors have this model's names and shapes.
    pub fn fits(&self, item: &TensorMap) -> bool {
        self.model.inputs.iter().all(|t| item.get(&t.name).is_some_and(|v| v.shape() == t.shape))
    }
}

impl Step {
    pub fn shut_out(&self, lane: usize) {
        self.shut_out.fetch_or(1 << lane, Ordering::Relaxed);
    }

    pub fn let_in(&self) {
        self.shut_out.store(0, Ordering::Relaxed);
    }

    pub fn is_shut_out(&self, lane: usize) -> bool {
        self.shut_out.load(Ordering::Relaxed) & (1 << lane) != 0
    }
}

fn bytes(spec: &TensorSpec) -> u64 {
    let size = if spec.dtype.is_float() { 2 } else { spec.dtype.size() };
    (spec.shape.iter().product::<usize>() * size) as u64
}
