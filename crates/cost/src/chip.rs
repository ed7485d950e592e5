//! The constants of the model, each with its source, in one struct that can be replaced as a whole.

use rockshard_clock::Memory;
use serde::{Deserialize, Serialize};

/// What the model knows about the RK3588. Times are of one core at 1 GHz.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rk3588 {
    /// NPU cores (1.1).
    pub cores: u8,
    /// Clock in Hz that cycles are turned into time with (2.4; the governor's highest).
    pub clock_hz: f64,
    /// float16 multiply-accumulates a cycle and core (2.1).
    pub macs_per_cycle: u64,
    /// Output positions are computed in groups of this many (2.4: `align16`).
    pub position_step: u64,
    /// Input channels that one step of a convolution takes (2.4).
    pub depth_step: u64,
    /// Fewest steps of a convolution for a group of outputs (2.4: `max(4, ..)`; products of two activations have no such floor).
    pub least_steps: u64,
    /// Output channels computed at once in float16 (2.4: `G`).
    pub channel_step: u64,
    /// Memory traffic that the compiler assumes, bytes a cycle (2.4: 70 % of 33.8 GB/s).
    pub ddr_bytes_per_cycle: f64,
    /// Bytes a second that one core was measured to stream (2.2: int8 Add of 10.8 MB in 945 us, in and out).
    pub core_bytes_per_second: f64,
    /// Bytes a second that all cores together were measured to stream (2.2: the same Add on three cores in 573 us).
    pub shared_bytes_per_second: f64,
    /// Measured over modelled time of a convolution that uses the core well (2.4: 384 to 384 channels, 410 over 313 us).
    pub convolution_factor: f64,
    /// With a height of 1 (tokens) the factor is depth (channels x kernel) over this, where that is more
    /// (2.4: 1.5 at 512, 3.4 at 1536, 5.9 at 2048, 9.7 at 3072).
    pub flat_depth: f64,
    /// Nanoseconds of fused attention for each head, query and key (0: 4.8 to 5.0 at d = 64).
    pub attention_nanos: f64,
    /// Elements a second of a fused normalisation (2.4: exNorm). Also used for a softmax of its own, which nobody measured.
    pub norm_elements_per_second: f64,
    /// Bytes a second of element-wise operators, inputs and output (2.2: Add 6.9, Mul by a scalar 7.3 GB/s).
    pub elementwise_bytes_per_second: f64,
    /// Bytes a second of copies: Concat, Slice, Reshape between layouts (2.2: Split 7.4 GB/s).
    pub copy_bytes_per_second: f64,
    /// Bytes a second of a transpose on the NPU (2.2: 3.5 GB/s).
    pub transpose_bytes_per_second: f64,
    /// Bytes a second of an operator that the runtime runs on the CPU. Not measured by anyone; an assumption between a plain
    /// copy (2.3: 1.5 MB in 0.31 ms) and a type conversion (2.3: 70 MB/s on an RK3576).
    pub host_bytes_per_second: f64,
    /// Bytes a second of the Reshape that the runtime does on the CPU behind a group norm of fewer than 8 channels a group (toolkit 3: the
    /// compiled VAE decoder has one for each of its six norms of 128 channels; tensors are stored in units of 8 channels). Fitted to the
    /// VAE decoder at 512 pixels on one core (3), the only constant that is fitted to a whole model.
    pub host_reshape_bytes_per_second: f64,
    /// Microseconds from calling run to its return without any work (2.3: 40 to 130).
    pub run_overhead_micros: f64,
    /// Bytes a second at which an input of fewer than 4 axes takes the NPU's layout
    /// (2.3: reshape and transpose of 1024x768 in float16 in 2.59 ms).
    pub token_input_bytes_per_second: f64,
    /// The same for an output (2.3: 1.73 ms).
    pub token_output_bytes_per_second: f64,
    /// Bytes of memory that an attention takes for each query row and key (toolkit 4: 167 MB for 4096 x 4096, 20 MB for 512 rows
    /// of them, with 8 heads, which is 1.24 a score). The vendor's compiler takes as much for 3 heads as for 8.
    pub attention_bytes_per_pair: f64,
    /// Largest extent of a tensor's axis (2.5: 13-bit fields).
    pub largest_extent: usize,
    /// Most channels (2.5: 16-bit field of the convolution unit). Outputs of more than 8191 are cut by the compiler: U-Nets with
    /// a feed-forward of 10240 channels run on boards (4).
    pub most_channels: usize,
    /// Most axes of a tensor (2.5); leading ones count as one.
    pub most_axes: usize,
    /// Products of extents that a transpose may have in float16 (2.5: `p`).
    pub transpose_product: usize,
    /// Bytes of device address space for weights and activations (1.5: 3.9 GB on a fresh board).
    pub address_space: u64,
    /// Bytes of SRAM that the NPU may use (2.2: at most 956 KB, and 0 unless the board's device tree gives it some).
    pub sram_bytes: u32,
    /// Seconds that the runtime lets a job run each time before it asks again (1.5).
    pub submit_timeout_seconds: f64,
    /// Times that it asks before the driver resets all cores (1.5).
    pub submit_tries: u32,
    /// Whether a shard that exceeds an extent gives zeros, as boards do without an error (2.5), and not an error.
    pub zeros_on_overflow: bool,
    /// Whether threads that use one context at a time get wrong results, as on boards without an error (1.2), and not an error.
    pub silent_overlap: bool,
}

impl Rk3588 {
    /// The memory that its cores share.
    pub fn memory(&self) -> Memory {
        Memory {
            core_bytes_per_second: self.core_bytes_per_second,
            shared_bytes_per_second: self.shared_bytes_per_second,
        }
    }
}

impl Default for Rk3588 {
    fn default() -> Self {
        let memory = Memory::default();
        Rk3588 {
            cores: 3,
            clock_hz: 1e9,
            macs_per_cycle: 512,
            position_step: 16,
            depth_step: 32,
            least_steps: 4,
            channel_step: 16,
            ddr_bytes_per_cycle: 23.654,
            core_bytes_per_second: memory.core_bytes_per_second,
            shared_bytes_per_second: memory.shared_bytes_per_second,
            convolution_factor: 1.31,
            flat_depth: 350.0,
            attention_nanos: 4.8,
            norm_elements_per_second: 0.30e9,
            elementwise_bytes_per_second: 6.9e9,
            copy_bytes_per_second: 7.4e9,
            transpose_bytes_per_second: 3.5e9,
            host_bytes_per_second: 1.0e9,
            host_reshape_bytes_per_second: 0.15e9,
            run_overhead_micros: 85.0,
            token_input_bytes_per_second: 1_572_864.0 / 2.59e-3,
            token_output_bytes_per_second: 1_572_864.0 / 1.73e-3,
            attention_bytes_per_pair: 1.24 * 8.0,
            largest_extent: 8191,
            most_channels: 65535,
            most_axes: 4,
            transpose_product: 8192,
            address_space: 3_900_000_000,
            sram_bytes: 0,
            submit_timeout_seconds: 6.0,
            submit_tries: 3,
            zeros_on_overflow: false,
            silent_overlap: false,
        }
    }
}
