//! Rounding in the middle of a kernel, where the NPU's compiler makes several operators of one.

use crate::Precision;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values that are rounded at a time.
pub(crate) const ROUNDED: usize = 1024;

/// Round at most [`ROUNDED`] values to what `precision` stores.
pub(crate) fn round(values: &mut [f32], precision: Precision) {
    if precision == Precision::F16 {
        let mut stored = [f16::ZERO; ROUNDED];
        let stored = &mut stored[..values.len()];
        stored.convert_from_f32_slice(values);
        stored.convert_to_f32_slice(values);
    }
}
