//! What generation needs from whatever runs the networks.

use rockshard_manifest::TensorSpec;
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;

/// Tensors by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// Whatever went wrong while a network ran.
pub type ModelError = Box<dyn std::error::Error + Send + Sync>;

/// The networks of one pack at one picture size.
pub trait Models {
    /// Run a network on independent items, several in flight; results are in the items' order.
    ///
    /// # Errors
    /// The network is unknown, an item does not fit it, or the device fails.
    fn run(&self, model: &str, items: Vec<TensorMap>) -> Result<Vec<TensorMap>, ModelError>;

    /// Inputs of a network; `None` when the pack does not have it.
    fn inputs(&self, model: &str) -> Option<Vec<TensorSpec>>;

    /// Outputs of a network; `None` when the pack does not have it.
    fn outputs(&self, model: &str) -> Option<Vec<TensorSpec>>;

    /// Picture sizes `[width, height]` the pack was converted for, where it has more than the one this value runs.
    fn sizes(&self) -> Vec<[u32; 2]> {
        Vec::new()
    }
}
