//! Where values are rounded, and the switches for what a board does otherwise. Kernels compute in float32; what is here makes float16 of
//! their results.

use half::f16;
use rayon::prelude::*;
use rockshard_kernels::KernelError;
use rockshard_tensor::{DType, Tensor};

/// Where the NPU departs from one rounding an operator, and what is not known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numerics {
    /// The deepest sum (channels x kernel) that convolutions and products by a constant compute at once. Deeper ones are cut along the
    /// channels, every piece is rounded, and so is every sum of pieces: `f16(f16(a + bias) + f16(b))`, and so on. The vendor's compiler
    /// cuts beyond 1536. `None` never cuts.
    ///
    /// A board rounds more often than that: the compiler cuts again what does not fit a core's 384 KB buffer (its table of layers shows
    /// 1280 channels of 1024 tokens as 432 + 432 + 416), and partial sums leave the chip as float16 (docs/rk3588.md 2.1, split-K; 0.2 to 0.4 %
    /// a product). The vendor's simulator leaves that out. A smaller number here, such as 512, stands for it.
    pub deepest_sum: Option<usize>,
    /// Replace subnormal f16 results by zero of the same sign. The vendor's simulator keeps them; boards are unknown
    /// (docs/rk3588.md 2.1).
    pub flush_subnormals: bool,
    /// Compute the sigmoid operator from the board's table: two halves of 512 steps up to +-6.311, entries of 15 fractional bits,
    /// interpolated, and one unit added, so that nothing is below 60/32768 (docs/rk3588.md 2.1, activations and sigmoid floor: inferred from
    /// RK3576 outputs). The vendor's simulator computes it exactly.
    pub tabled_sigmoid: bool,
}

impl Default for Numerics {
    fn default() -> Self {
        Numerics { deepest_sum: Some(1536), flush_subnormals: false, tabled_sigmoid: false }
    }
}

/// Channels that the NPU keeps together.
const ALIGNED: usize = 16;

impl Numerics {
    /// Where the vendor's compiler cuts `channels` with `taps` kernel elements each: into as few pieces as fit, equal ones if that
    /// gives whole groups of [`ALIGNED`] channels, else the largest ones that fit and a rest.
    pub(crate) fn cuts(self, channels: usize, taps: usize) -> Vec<usize> {
        let Some(deepest) = self.deepest_sum.filter(|&deepest| channels * taps > deepest) else {
            return Vec::new();
        };
        let most = deepest / taps / ALIGNED * ALIGNED;
        if most == 0 {
            return Vec::new();
        }
        let count = channels.div_ceil(most);
        let even = channels.is_multiple_of(count) && (channels / count).is_multiple_of(ALIGNED);
        let size = if even { channels / count } else { most };
        (size..channels).step_by(size).collect()
    }

    /// The tensor as it leaves an operator.
    pub(crate) fn settle(self, tensor: Tensor) -> Tensor {
        if !self.flush_subnormals || tensor.dtype() != DType::F16 {
            return tensor;
        }
        let Ok(values) = tensor.to_f16() else { return tensor };
        let flushed = values.iter().map(|&v| {
            if v.is_normal() || !v.is_finite() { v } else { f16::from_bits(v.to_bits() & 0x8000) }
        });
        Tensor::from_f16(tensor.shape(), flushed.collect())
    }
}

/// The sigmoid as the board's table gives it; see [`Numerics::tabled_sigmoid`].
pub(crate) fn tabled_sigmoid(x: &Tensor) -> Result<Tensor, KernelError> {
    const END: f32 = 6.311;
    const STEPS: f32 = 512.0;
    const ONE: f32 = 32768.0;
    let entry = |at: f32| (ONE / (1.0 + (-at * END / STEPS).exp())).round();
    let value = |x: f16| {
        if x.is_nan() {
            return x;
        }
        let at = (x.to_f32() / END).clamp(-1.0, 1.0) * STEPS;
        let below = at.floor();
        let between = entry(below) + (entry(below + 1.0) - entry(below)) * (at - below);
        f16::from_f32((between + 1.0) / ONE)
    };
    let kind = |_| KernelError::Type {
        op: "Sigmoid",
        input: 0,
        found: x.dtype(),
        expected: "real numbers",
    };
    Ok(Tensor::from_f16(x.shape(), x.to_f16().map_err(kind)?.iter().map(|&x| value(x)).collect()))
}

/// Elements that one thread looks at before it says whether it found something.
const SCAN: usize = 1 << 14;

/// Whether an f16 tensor holds an infinity or NaN.
pub(crate) fn has_non_finite(tensor: &Tensor) -> bool {
    const EXPONENT: u16 = 0x7c00;
    // Without an early end within a block, so that the compiler makes vector code of it.
    let found = |block: &[f16]| {
        block.iter().fold(false, |found, v| found | (v.to_bits() & EXPONENT == EXPONENT))
    };
    tensor.dtype() == DType::F16
        && tensor.to_f16().is_ok_and(|values| values.par_chunks(SCAN).any(found))
}

/// Masks are often the lowest float32; the vendor's toolkit turns constants below -3e38 into -10000 (docs/rk3588.md 2.1).
const LOWEST: f32 = -3e38;
const MASKED: f32 = -10_000.0;

/// A constant in f16 storage, aligned.
///
/// # Errors
/// The position and value of an element that is NaN or beyond f16.
pub(crate) fn stored(tensor: &Tensor) -> Result<Tensor, String> {
    let fault =
        |at: usize, value: f32| format!("element {at} is {value}, which float16 cannot hold");
    if tensor.dtype() == DType::F16 {
        let values = tensor.to_f16().map_err(|e| e.to_string())?;
        if let Some(at) = values.iter().position(|v| !v.is_finite() && *v != f16::NEG_INFINITY) {
            return Err(fault(at, values[at].to_f32()));
        }
        if values.contains(&f16::NEG_INFINITY) {
            let masked = values
                .iter()
                .map(|&v| if v == f16::NEG_INFINITY { f16::from_f32(MASKED) } else { v })
                .collect();
            return Ok(Tensor::from_f16(tensor.shape(), masked));
        }
        let aligned = (tensor.bytes().as_ptr() as usize).is_multiple_of(align_of::<f16>());
        return Ok(if aligned { tensor.clone() } else { tensor.detached() });
    }
    let values = tensor.to_f32().map_err(|e| e.to_string())?;
    let narrow = |(at, &value): (usize, &f32)| {
        let value = if value < LOWEST { MASKED } else { value };
        let rounded = f16::from_f32(value);
        if rounded.is_finite() { Ok(rounded) } else { Err(fault(at, value)) }
    };
    Ok(Tensor::from_f16(
        tensor.shape(),
        values.iter().enumerate().map(narrow).collect::<Result<_, _>>()?,
    ))
}
