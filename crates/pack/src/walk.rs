//! The one walk over a model's shards: values by number instead of by name, who needs whom, how often each value is read.

use crate::Variant;
use rockshard_manifest::{CoreId, Model, Shard, TensorSpec};
use std::collections::{BTreeSet, HashMap};

/// A value that a shard reads or writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Port {
    /// Number of the value in its model.
    pub value: usize,
    /// Stored value over real value at this boundary.
    pub scale: f32,
}

/// A shard among the others of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct WalkedShard {
    /// What it reads, in its order.
    pub inputs: Vec<Port>,
    /// What it writes, in its order.
    pub outputs: Vec<Port>,
    /// Shards whose outputs it reads, by position.
    pub needs: Vec<usize>,
    /// Shards that read its outputs.
    pub next: Vec<usize>,
}

/// A model's values and shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// The shards, in the manifest's order.
    pub shards: Vec<WalkedShard>,
    /// Numbers of the model's inputs.
    pub inputs: Vec<usize>,
    /// Numbers of the model's outputs.
    pub outputs: Vec<usize>,
    /// How often each value is read: by shards, and by the caller where it is an output of the model.
    pub uses: Vec<usize>,
}

/// Walk over a model whose NPU shards run as `variant`.
pub fn walk(model: &Model, variant: Variant) -> Walk {
    let mut values: HashMap<&str, usize> = HashMap::new();
    let mut shards: Vec<WalkedShard> = Vec::with_capacity(model.shards.len());
    let mut made_by: HashMap<usize, usize> = HashMap::new();
    let inputs = model.inputs.iter().map(|t| number(&mut values, &t.name)).collect();
    for (i, shard) in model.shards.iter().enumerate() {
        let (inputs, outputs) = (
            ports(&mut values, shard, &shard.inputs, variant),
            ports(&mut values, shard, &shard.outputs, variant),
        );
        let needs: BTreeSet<usize> =
            inputs.iter().filter_map(|p| made_by.get(&p.value).copied()).collect();
        needs.iter().for_each(|&need| shards[need].next.push(i));
        made_by.extend(outputs.iter().map(|p| (p.value, i)));
        let needs = needs.into_iter().collect();
        shards.push(WalkedShard { inputs, outputs, needs, next: Vec::new() });
    }
    let outputs: Vec<usize> = model.outputs.iter().map(|t| number(&mut values, &t.name)).collect();
    let mut uses = vec![0; values.len()];
    let read = shards.iter().flat_map(|s| &s.inputs).map(|p| p.value);
    read.chain(outputs.iter().copied()).for_each(|value| uses[value] += 1);
    Walk { shards, inputs, outputs, uses }
}

/// For each value, the last of the shards that reads it, by position; `inputs` is what each shard reads.
pub fn last_uses<'a>(inputs: impl IntoIterator<Item = &'a [TensorSpec]>) -> HashMap<String, usize> {
    let shards = inputs.into_iter().enumerate();
    shards.flat_map(|(i, specs)| specs.iter().map(move |t| (t.name.clone(), i))).collect()
}

fn number<'a>(values: &mut HashMap<&'a str, usize>, name: &'a str) -> usize {
    let next = values.len();
    *values.entry(name).or_insert(next)
}

/// The host runs its shards on the original values, and the reference all of them.
fn ports<'a>(
    values: &mut HashMap<&'a str, usize>,
    shard: &Shard,
    specs: &'a [TensorSpec],
    variant: Variant,
) -> Vec<Port> {
    let scaled = shard.core != CoreId::Host && variant != Variant::Reference;
    let port = |t: &'a TensorSpec| Port {
        value: number(values, &t.name),
        scale: if scaled { t.scale } else { 1.0 },
    };
    specs.iter().map(port).collect()
}
