//! The structs of the C API, field for field as `rknn_api.h` has them; tests hold their sizes and offsets.

use crate::{Context, MAX_DIMS, MAX_NAME};
use std::ffi::c_void;

/// Numbers of inputs and outputs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct InOutNum {
    /// Inputs.
    pub n_input: u32,
    /// Outputs.
    pub n_output: u32,
}

/// A tensor at the boundary.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TensorAttr {
    /// Index among the inputs or outputs.
    pub index: u32,
    /// Extents used of `dims`.
    pub n_dims: u32,
    /// Extents, in the order that `fmt` says.
    pub dims: [u32; MAX_DIMS],
    /// Name, ended by a zero.
    pub name: [u8; MAX_NAME],
    /// Elements.
    pub n_elems: u32,
    /// Bytes.
    pub size: u32,
    /// One of [`crate::format`].
    pub fmt: u32,
    /// One of [`crate::dtype`].
    pub dtype: u32,
    /// Kind of quantisation; 0 is none.
    pub qnt_type: u32,
    /// Fractional bits, for one kind of quantisation.
    pub fl: i8,
    /// Zero point, for another.
    pub zp: i32,
    /// Scale, for that kind.
    pub scale: f32,
    /// Elements from row to row; 0 where it is the width.
    pub w_stride: u32,
    /// Bytes with the padding of rows.
    pub size_with_stride: u32,
    /// Whether the buffer is in the NPU's layout already.
    pub pass_through: u8,
    /// Rows from image to image; 0 where it is the height.
    pub h_stride: u32,
}

impl TensorAttr {
    /// All zero but for the index: what a query is asked with.
    pub const fn of(index: u32) -> Self {
        TensorAttr {
            index,
            n_dims: 0,
            dims: [0; MAX_DIMS],
            name: [0; MAX_NAME],
            n_elems: 0,
            size: 0,
            fmt: 0,
            dtype: 0,
            qnt_type: 0,
            fl: 0,
            zp: 0,
            scale: 0.0,
            w_stride: 0,
            size_with_stride: 0,
            pass_through: 0,
            h_stride: 0,
        }
    }

    /// The extents.
    pub fn extents(&self) -> &[u32] {
        &self.dims[..MAX_DIMS.min(self.n_dims as usize)]
    }
}

/// Microseconds of the last run, queueing included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PerfRun {
    /// Microseconds.
    pub run_duration: i64,
}

/// Versions, as text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SdkVersion {
    /// Of the runtime.
    pub api_version: [u8; 256],
    /// Of the kernel's driver.
    pub drv_version: [u8; 256],
}

/// Memory of a context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MemSize {
    /// Bytes of weights.
    pub total_weight_size: u32,
    /// Bytes of activations.
    pub total_internal_size: u32,
    /// Bytes of DMA memory.
    pub total_dma_allocated_size: u64,
    /// Bytes of SRAM reserved.
    pub total_sram_size: u32,
    /// Bytes of it that are free.
    pub free_sram_size: u32,
    /// Nothing.
    pub reserved: [u32; 10],
}

/// Text that was built into the model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CustomString {
    /// The text, ended by a zero.
    pub string: [u8; 1024],
}

/// An input of `rknn_inputs_set`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Index.
    pub index: u32,
    /// The elements.
    pub buf: *mut c_void,
    /// Bytes in `buf`.
    pub size: u32,
    /// Whether the elements are in the NPU's type and layout already.
    pub pass_through: u8,
    /// One of [`crate::dtype`].
    pub dtype: u32,
    /// One of [`crate::format`].
    pub fmt: u32,
}

/// An output of `rknn_outputs_get`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Whether to convert to float32.
    pub want_float: u8,
    /// Whether `buf` is the caller's; otherwise the runtime allocates it.
    pub is_prealloc: u8,
    /// Index.
    pub index: u32,
    /// The elements.
    pub buf: *mut c_void,
    /// Bytes in `buf`.
    pub size: u32,
}

/// Memory that both the processor and the NPU reach.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TensorMem {
    /// Address for the processor.
    pub virt_addr: *mut c_void,
    /// Address for the NPU.
    pub phys_addr: u64,
    /// File descriptor of the buffer; below 0 where there is none.
    pub fd: i32,
    /// Bytes from the buffer's start.
    pub offset: i32,
    /// Bytes.
    pub size: u32,
    /// How it was allocated.
    pub flags: u32,
    /// The runtime's own.
    pub priv_data: *mut c_void,
}

/// Further arguments of `rknn_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InitExtend {
    /// A context to share with.
    pub ctx: Context,
    /// Where the model starts in its file.
    pub real_model_offset: i32,
    /// Bytes of the model in its file.
    pub real_model_size: u32,
    /// File descriptor of the buffer that holds the model.
    pub model_buffer_fd: i32,
    /// How it was allocated.
    pub model_buffer_flags: u32,
    /// Nothing.
    pub reserved: [u8; 112],
}

/// Further arguments of `rknn_run`; the runtime ignores them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RunExtend {
    /// Number of the run.
    pub frame_id: u64,
    /// Whether to return at once.
    pub non_block: i32,
    /// Milliseconds to wait.
    pub timeout_ms: i32,
    /// Fence to wait for.
    pub fence_fd: i32,
}

/// Further results of `rknn_outputs_get`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OutputExtend {
    /// Number of the run.
    pub frame_id: u64,
}

/// Text as an array of bytes ended by a zero, cut where it does not fit.
pub fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let kept = text.len().min(N.saturating_sub(1));
    bytes[..kept].copy_from_slice(&text.as_bytes()[..kept]);
    bytes
}

/// The text in an array of bytes, up to its zero.
pub fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn sizes_and_offsets_are_those_of_the_c_api() {
        let sizes = [
            ("rknn_tensor_attr", size_of::<TensorAttr>(), 376),
            ("rknn_input", size_of::<Input>(), 32),
            ("rknn_output", size_of::<Output>(), 24),
            ("rknn_tensor_mem", size_of::<TensorMem>(), 40),
            ("rknn_mem_size", size_of::<MemSize>(), 64),
            ("rknn_sdk_version", size_of::<SdkVersion>(), 512),
            ("rknn_custom_string", size_of::<CustomString>(), 1024),
            ("rknn_perf_run", size_of::<PerfRun>(), 8),
            ("rknn_input_output_num", size_of::<InOutNum>(), 8),
            ("rknn_init_extend", size_of::<InitExtend>(), 136),
            ("rknn_run_extend", size_of::<RunExtend>(), 24),
            ("rknn_output_extend", size_of::<OutputExtend>(), 8),
        ];
        let offsets = [
            ("attr.name", offset_of!(TensorAttr, name), 72),
            ("attr.n_elems", offset_of!(TensorAttr, n_elems), 328),
            ("attr.fl", offset_of!(TensorAttr, fl), 348),
            ("attr.zp", offset_of!(TensorAttr, zp), 352),
            ("attr.pass_through", offset_of!(TensorAttr, pass_through), 368),
            ("attr.h_stride", offset_of!(TensorAttr, h_stride), 372),
            ("input.buf", offset_of!(Input, buf), 8),
            ("input.pass_through", offset_of!(Input, pass_through), 20),
            ("input.fmt", offset_of!(Input, fmt), 28),
            ("output.index", offset_of!(Output, index), 4),
            ("output.buf", offset_of!(Output, buf), 8),
            ("output.size", offset_of!(Output, size), 16),
            ("mem.phys_addr", offset_of!(TensorMem, phys_addr), 8),
            ("mem.size", offset_of!(TensorMem, size), 24),
            ("mem.priv_data", offset_of!(TensorMem, priv_data), 32),
            ("mem_size.total_dma_allocated_size", offset_of!(MemSize, total_dma_allocated_size), 8),
            ("mem_size.reserved", offset_of!(MemSize, reserved), 24),
            ("init_extend.reserved", offset_of!(InitExtend, reserved), 24),
        ];
        for (what, found, stated) in sizes.into_iter().chain(offsets) {
            assert_eq!(found, stated, "{what}");
        }
    }

    #[test]
    fn text_is_cut_and_ended() {
        assert_eq!(text_of(&text::<4>("abcdef")), "abc");
        assert_eq!(text_of(&text::<8>("abc")), "abc");
    }
}
