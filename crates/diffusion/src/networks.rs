//! How networks are reached: by what they are for, through a trait that whatever runs them implements.
//!
//! The parts of this crate hold an `Arc<dyn Networks>` and know neither devices nor queues. What a caller's runs have to carry (who asks,
//! when to stop, what to watch) is the business of the value behind the trait: make one a caller, and bind the parts to it with `over`
//! ([`Conditioner::over`](crate::Conditioner::over) and its like). [`Networks::submit`] lets calls overlap where the implementation can.

use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;

/// Tensors by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// Whatever went wrong while a network ran.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// What a network takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkSpec {
    /// Its inputs.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs.
    pub outputs: Vec<TensorSpec>,
}

/// The networks of one pack at one picture size.
pub trait Networks: Send + Sync {
    /// Inputs and outputs of the network of a role; `None` when there is none.
    fn spec(&self, role: Role) -> Option<NetworkSpec>;

    /// Picture sizes `[width, height]` the pack was converted for, where it has more than the one this value runs.
    fn sizes(&self) -> Vec<[u32; 2]> {
        Vec::new()
    }

    /// Start a network on independent items and come back at once; dropping what this gives abandons the run. An implementation that
    /// cannot overlap runs gives what it has [`finished`].
    ///
    /// # Errors
    /// There is no such network, an item does not fit it, or the device fails, where that is known so early.
    fn submit(
        &self,
        role: Role,
        items: Vec<TensorMap>,
    ) -> Result<Box<dyn PendingRun>, NetworkError>;
}

/// A run that was submitted.
pub trait PendingRun: Send {
    /// Wait for the results, in the items' order.
    ///
    /// # Errors
    /// As [`Networks::submit`].
    fn wait(self: Box<Self>) -> Result<Vec<TensorMap>, NetworkError>;
}

/// A run that is over: its results, in the items' order.
pub fn finished(results: Vec<TensorMap>) -> Box<dyn PendingRun> {
    Box::new(Finished(results))
}

struct Finished(Vec<TensorMap>);

impl PendingRun for Finished {
    fn wait(self: Box<Self>) -> Result<Vec<TensorMap>, NetworkError> {
        Ok(self.0)
    }
}
