//! Rounding in the middle of a kernel, where the NPU's compiler makes several operators of one.

use crate::Precision;
use crate::convert::{narrow, widen};
use half::f16;

/// Values that are rounded at a time.
pub(crate) const ROUNDED: usize = 1024;

/// Round at most [`ROUNDED`] values to what `precision` stores.
pub(crate) fn round(values: &mut [f32], precision: Precision) {
    if precision == Precision::F16 {
        let mut stored = [f16::ZERO; ROUNDED];
        let stored = &mut stored[..values.len()];
        narrow(values, stored);
        widen(stored, values);
    }
}
