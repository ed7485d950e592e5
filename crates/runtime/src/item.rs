//! One item on its way: the values that exist and are still needed, at the scale at which they are stored, and the shards that wait.

use crate::loaded::LoadedModel;
use rockshard_device::Value;
use rockshard_pack::Port;
use rockshard_tensor::{DType, Tensor};

/// A value and what to multiply it by.
pub(crate) type Scaled = (Value, f32);

pub(crate) struct Item {
    values: Vec<Option<Made>>,
    /// For each shard, how many of those it needs have not run.
    waiting: Vec<usize>,
    /// Shards that have not run.
    pub left: usize,
    /// Lane of the item, where its run is replicated.
    pub home: usize,
}

/// A value that exists, at a scale.
struct Made {
    value: Value,
    scale: f32,
    uses: usize,
}

impl Item {
    /// An item that has the model's inputs.
    pub fn new(model: &LoadedModel, inputs: Vec<Tensor>, home: usize) -> Self {
        let mut item = Item {
            values: model.uses.iter().map(|_| None).collect(),
            waiting: model.shards.iter().map(|s| s.needs.len()).collect(),
            left: model.shards.len(),
            home,
        };
        for (&value, tensor) in model.inputs.iter().zip(inputs) {
            item.store(model, value, Value::Host(tensor), 1.0);
        }
        item
    }

    /// The shards that need no other.
    pub fn first(&self, model: &LoadedModel) -> Vec<usize> {
        (0..model.shards.len()).filter(|&s| model.shards[s].needs.is_empty()).collect()
    }

    /// A shard has run; gives those that became ready.
    pub fn done(&mut self, model: &LoadedModel, shard: usize) -> Vec<usize> {
        self.left -= 1;
        let mut ready = Vec::new();
        for &next in &model.shards[shard].next {
            self.waiting[next] -= 1;
            if self.waiting[next] == 0 {
                ready.push(next);
            }
        }
        ready
    }

    /// Keep a value until its last use.
    pub fn store(&mut self, model: &LoadedModel, number: usize, value: Value, scale: f32) {
        let uses = model.uses[number];
        if uses > 0 {
            self.values[number] = Some(Made { value, scale, uses });
        }
    }

    /// A value at the scale its reader needs; freed when this was its last use.
    pub fn take(&mut self, port: &Port) -> Scaled {
        let slot = &mut self.values[port.value];
        let made = slot.as_mut().expect("shards run after those they need");
        made.uses -= 1;
        let scaled = (made.value.clone(), port.scale / made.scale);
        if made.uses == 0 {
            *slot = None;
        }
        scaled
    }

    /// The model's outputs, all shards having run.
    pub fn outputs(&mut self, model: &LoadedModel) -> Vec<Scaled> {
        model.outputs.iter().map(|&value| self.take(&Port { value, scale: 1.0 })).collect()
    }
}

/// A value multiplied by its factor.
pub(crate) fn scaled((value, factor): &Scaled) -> Value {
    if *factor == 1.0 {
        return value.clone();
    }
    let tensor = value.tensor();
    match tensor.to_f32() {
        Ok(values) => Value::Host(Tensor::from_f32(
            tensor.shape(),
            values.iter().map(|v| v * factor).collect(),
        )),
        Err(_) => value.clone(),
    }
}

/// Real values as float32, others as they are.
pub(crate) fn widened(tensor: Tensor) -> Tensor {
    tensor.to_float(DType::F32).unwrap_or(tensor)
}
