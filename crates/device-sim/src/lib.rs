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
use rockshard_graph::Graph;
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::CoreId;

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
        let graph = import_file(&shard.path, &ImportOptions::fixed())
            .map_err(|e| DeviceError::new(DeviceErrorKind::Load, &shard.name, core, e))?;
        Ok(Box::new(self.session(graph, shard, core)?))
    }
}
