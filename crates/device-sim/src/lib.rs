//! A simulated RK3588 NPU: shards run on the host with the NPU's f16 numerics, its limits are enforced, and each run reports
//! the time that [`rockshard_cost`] models for it.
//!
//! The rule of the numerics (measured on the vendor's simulator): *an operator of the compiled graph computes in f32 and
//! rounds once, to f16, at its output*. What one operator is, the fusions of [`rockshard_graph`] decide, and here three rules
//! more: constants by channel next to a convolution or a product by a constant are folded into it (`fold`), deep sums are cut
//! in pieces ([`Numerics::deepest_sum`]), and an activation, a residual or a product behind a convolution rounds once more.
//! `docs/numerics.md` has all rules, with the share of bits that they explain.
//!
//! [`Numerics`] also holds, off by default, what boards are known or suspected to do otherwise. Bit-equality with a board is not
//! claimed: the order of sums, the tables of activation functions and the algorithms of its norms are not public.

mod driver;
mod fold;
mod numerics;
mod program;
mod session;

pub use driver::{ALL, AUTO, Allocation, Driver, DriverError};
pub use numerics::Numerics;
pub use session::SimSession;

use rockshard_cost::Rk3588;
use rockshard_device::{Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_graph::{Graph, ValueId};
use rockshard_import::{ImportError, ImportOptions, fuse, import_model};
use rockshard_manifest::CoreId;
use rockshard_tensor::DType;
use std::collections::BTreeSet;
use std::path::Path;

/// The simulated device, `--device sim`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimDevice {
    numerics: Numerics,
    chip: Rk3588,
}

impl SimDevice {
    /// A device with these numerics, limits and speeds.
    pub fn new(numerics: Numerics, chip: Rk3588) -> Self {
        SimDevice { numerics, chip }
    }

    /// Load a graph instead of a file. The graph should be fused as [`rockshard_import::import_file`] does.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn session(
        &self,
        graph: Graph,
        shard: &ShardFile,
        core: CoreId,
    ) -> Result<SimSession, DeviceError> {
        self.check_core(shard, core)?;
        SimSession::load(graph, shard, core, self.numerics, &self.chip)
    }

    fn check_core(&self, shard: &ShardFile, core: CoreId) -> Result<(), DeviceError> {
        let detail = match core {
            CoreId::Npu(n) if n < self.chip.cores => return Ok(()),
            CoreId::Npu(_) => {
                format!("the simulated NPU has {} cores, numbered from 0", self.chip.cores)
            }
            CoreId::Host => {
                "the simulated NPU does not run host shards; open them on the CPU device".to_owned()
            }
        };
        Err(DeviceError::new(DeviceErrorKind::Unavailable, &shard.name, core, detail))
    }
}

impl Device for SimDevice {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn cores(&self) -> u8 {
        self.chip.cores
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        self.check_core(shard, core)?;
        let graph = loaded(&shard.path)
            .map_err(|e| DeviceError::new(DeviceErrorKind::Load, &shard.name, core, e))?;
        Ok(Box::new(self.session(graph, shard, core)?))
    }
}

/// Bytes of weights that are copied before the file's pages are given back.
const COPIED: usize = 64 << 20;

/// A file's graph with its float16 weights in memory of their own: every run reads them all, which takes longer from a mapped file.
fn loaded(path: &Path) -> Result<Graph, ImportError> {
    let model = rockshard_onnx::load(path)?;
    let mut graph = import_model(&model, &ImportOptions::fixed(), None)?;
    fuse(&mut graph, None)?;
    let read: BTreeSet<ValueId> = graph.nodes().iter().flat_map(|n| n.inputs.clone()).collect();
    let mut copied = 0;
    for id in read {
        let constant = &mut graph.value_mut(id).constant;
        if let Some(tensor) = constant.as_mut().filter(|t| t.dtype() == DType::F16) {
            copied += tensor.bytes().len();
            *tensor = tensor.detached();
            if copied >= COPIED {
                model.release_pages();
                copied = 0;
            }
        }
    }
    model.release_pages();
    Ok(graph)
}
