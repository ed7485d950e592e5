//! Tensors on their way from shard to shard.

use crate::Completion;
use rockshard_tensor::{DType, Tensor};
use std::any::Any;
use std::sync::Arc;

/// A real-valued tensor that a device left where its own sessions can take it without a copy. Its elements stay as they are while it
/// exists, whatever the session that made it does.
pub trait Kept: Any + Send + Sync {
    /// Extents.
    fn shape(&self) -> &[usize];

    /// Type and bytes of its elements as they lie there: in the device's order, and perhaps with padding, whose values are any.
    fn stored(&self) -> (DType, &[u8]);

    /// A copy on the host, row-major.
    fn read(&self) -> Tensor;
}

/// A tensor that a shard takes or gives.
#[derive(Clone)]
pub enum Value {
    /// On the host.
    Host(Tensor),
    /// Left on the device.
    Kept(Arc<dyn Kept>),
}

impl Value {
    /// Extents.
    pub fn shape(&self) -> &[usize] {
        match self {
            Value::Host(tensor) => tensor.shape(),
            Value::Kept(kept) => kept.shape(),
        }
    }

    /// Whether its elements are real numbers.
    pub fn is_float(&self) -> bool {
        match self {
            Value::Host(tensor) => tensor.dtype().is_float(),
            Value::Kept(_) => true,
        }
    }

    /// The tensor on the host; copied there if it was kept.
    pub fn tensor(&self) -> Tensor {
        match self {
            Value::Host(tensor) => tensor.clone(),
            Value::Kept(kept) => kept.read(),
        }
    }

    /// What was kept, if it is a `T`.
    pub fn kept<T: Kept>(&self) -> Option<&T> {
        match self {
            Value::Host(_) => None,
            Value::Kept(kept) => (kept.as_ref() as &dyn Any).downcast_ref(),
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Host(tensor) => tensor.fmt(f),
            Value::Kept(kept) => write!(f, "{}{:?} kept", kept.stored().0, kept.shape()),
        }
    }
}

impl From<Completion> for Completion<Value> {
    fn from(done: Completion) -> Self {
        let Completion { outputs, modelled, streaming } = done;
        Completion { outputs: outputs.into_iter().map(Value::Host).collect(), modelled, streaming }
    }
}
