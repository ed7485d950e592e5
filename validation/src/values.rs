//! The values between layers: reference and device side, kept no longer than a later layer needs them.

use crate::validate::LayerFiles;
use rockshard_manifest::TensorSpec;
use rockshard_pack::last_uses;
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, HashMap};

/// A device's value as it stores it.
struct Held {
    tensor: Tensor,
    scale: f32,
}

pub(crate) struct Values {
    reference: BTreeMap<String, Tensor>,
    device: BTreeMap<String, Held>,
    last_use: HashMap<String, usize>,
}

impl Values {
    /// Start with the model's inputs on both sides.
    pub(crate) fn new(layers: &[LayerFiles], inputs: &BTreeMap<String, Tensor>) -> Self {
        let last_use = last_uses(layers.iter().map(|layer| &layer.shard.inputs[..]));
        let used = || inputs.iter().filter(|(name, _)| last_use.contains_key(*name));
        let reference = used().map(|(name, t)| (name.clone(), t.clone())).collect();
        let device = used()
            .map(|(name, t)| (name.clone(), Held { tensor: t.clone(), scale: 1.0 }))
            .collect();
        Values { reference, device, last_use }
    }

    /// Whether a later layer reads the value.
    pub(crate) fn is_read(&self, name: &str) -> bool {
        self.last_use.contains_key(name)
    }

    /// The reference's values for `specs`, unscaled.
    pub(crate) fn reference(&self, specs: &[TensorSpec]) -> Result<Vec<Tensor>, String> {
        specs.iter().map(|spec| self.reference_value(spec).cloned()).collect()
    }

    /// The reference's values as the device takes them.
    pub(crate) fn teacher_forced(&self, specs: &[TensorSpec]) -> Result<Vec<Tensor>, String> {
        specs.iter().map(|spec| Ok(multiplied(self.reference_value(spec)?, spec.scale))).collect()
    }

    /// The device's own values as it takes them: as they were stored, or multiplied in float32 where one layer stores with another
    /// scale than the next one reads.
    pub(crate) fn cumulative(&self, specs: &[TensorSpec]) -> Result<Vec<Tensor>, String> {
        let value = |spec: &TensorSpec| {
            let held = self
                .device
                .get(&spec.name)
                .ok_or_else(|| format!("the device gave no value {:?}", spec.name))?;
            Ok(multiplied(&held.tensor, spec.scale / held.scale))
        };
        specs.iter().map(value).collect()
    }

    fn reference_value(&self, spec: &TensorSpec) -> Result<&Tensor, String> {
        self.reference
            .get(&spec.name)
            .ok_or_else(|| format!("the reference gave no value {:?}", spec.name))
    }

    /// Keep a value of the reference if a later layer reads it.
    pub(crate) fn keep_reference(&mut self, name: &str, tensor: Tensor) {
        if self.is_read(name) {
            self.reference.insert(name.to_owned(), tensor);
        }
    }

    /// Keep a value of the device if a later layer reads it.
    pub(crate) fn keep_device(&mut self, spec: &TensorSpec, tensor: Tensor) {
        if self.is_read(&spec.name) {
            self.device.insert(spec.name.clone(), Held { tensor, scale: spec.scale });
        }
    }

    /// Forget what no layer after `index` reads.
    pub(crate) fn finish(&mut self, index: usize) {
        let last_use = &self.last_use;
        let needed = |name: &String| last_use.get(name).is_some_and(|&last| last > index);
        self.reference.retain(|name, _| needed(name));
        self.device.retain(|name, _| needed(name));
    }
}

fn multiplied(tensor: &Tensor, factor: f32) -> Tensor {
    if factor == 1.0 {
        return tensor.clone();
    }
    match tensor.to_f32() {
        Ok(values) => Tensor::from_f32(tensor.shape(), values.iter().map(|v| v * factor).collect()),
        Err(_) => tensor.clone(),
    }
}
