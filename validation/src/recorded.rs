//! Recorded values behind the interface of a device, in a reference's place.

use rockshard_device::{Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::time::Duration;

/// A value by name; `None` when it was not recorded.
type Lookup = Arc<dyn Fn(&str) -> Option<Tensor> + Send + Sync>;

/// A reference that plays back the values of an earlier run, for machines that have no memory or time for a reference engine.
///
/// It only makes sense with the model inputs of that run. A layer with a value that was not recorded cannot be opened, and is
/// reported as unchecked.
#[derive(Clone)]
pub struct Recorded {
    lookup: Lookup,
}

impl Recorded {
    /// A reference whose values come from `lookup`, by value name, unscaled. It is asked when a value is needed, so that the values
    /// may stay in a file until then.
    pub fn new(lookup: impl Fn(&str) -> Option<Tensor> + Send + Sync + 'static) -> Self {
        Recorded { lookup: Arc::new(lookup) }
    }
}

struct RecordedSession {
    outputs: Vec<Tensor>,
}

impl Device for Recorded {
    fn name(&self) -> &'static str {
        "recorded"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let find = |spec: &TensorSpec| {
            let value = (self.lookup)(&spec.name)
                .ok_or_else(|| format!("value {:?} was not recorded", spec.name))?;
            if value.shape() != spec.shape || value.dtype().is_float() != spec.dtype.is_float() {
                return Err(format!(
                    "value {:?} was recorded as {value:?}, expected {}{:?}",
                    spec.name, spec.dtype, spec.shape
                ));
            }
            Ok(value)
        };
        let outputs = shard.outputs.iter().map(find).collect::<Result<Vec<_>, String>>();
        let outputs =
            outputs.map_err(|e| DeviceError::new(DeviceErrorKind::Load, &shard.name, core, e))?;
        Ok(Box::new(RecordedSession { outputs }))
    }
}

impl Session for RecordedSession {
    fn run(&mut self, _inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        Ok(Completion { outputs: self.outputs.clone(), modelled: None, streaming: Duration::ZERO })
    }
}
