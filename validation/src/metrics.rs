//! How far a device's tensor is from the reference's.

use rockshard_tensor::{Tensor, TensorError};
use serde::{Deserialize, Serialize};

/// Smallest normal float16, 2^-14. Smaller magnitudes keep fewer significant bits, or none.
pub const F16_MIN_NORMAL: f32 = 6.103_515_6e-5;

/// The epsilon of a layer normalisation, as networks use it.
const NORM_EPSILON: f64 = 1e-5;

/// The comparison of one tensor with its reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Metrics {
    /// Of a real-valued tensor.
    Real(RealMetrics),
    /// Of an integer or bool tensor, which must be equal.
    Integer(IntegerMetrics),
}

/// Comparison of real-valued tensors. Shares are of all elements, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealMetrics {
    /// Cosine of the angle between both as vectors, in float64. 1 when both are all zero; 0 when only one is, and when either
    /// has a value that is infinite or not a number.
    pub cosine: f64,
    /// Largest absolute difference, in unscaled units, over the elements that are finite on both sides.
    pub max_abs_error: f64,
    /// Norm of the difference over the norm of the reference, over the elements that are finite on both sides; absent when the
    /// reference is all zero and the device is not.
    pub relative_l2: Option<f64>,
    /// Share of the device's values that are infinite or not a number.
    pub non_finite: f64,
    /// Share of the device's stored (scaled) values below float16's normal range: `0 < |x| < 2^-14`.
    pub subnormal: f64,
    /// Share of the device's values that are zero where the reference is not.
    pub flushed: f64,
}

/// Comparison of integer tensors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntegerMetrics {
    /// Share of elements that are exactly equal, from 0 to 1; 1 for tensors without elements.
    pub equal: f64,
}

impl Metrics {
    /// Cosine of real tensors, share of equal elements of integer ones.
    pub fn agreement(&self) -> f64 {
        match self {
            Metrics::Real(m) => m.cosine,
            Metrics::Integer(m) => m.equal,
        }
    }

    /// What [`Metrics::agreement`] is, in words.
    pub fn measure(&self) -> &'static str {
        match self {
            Metrics::Real(_) => "cosine",
            Metrics::Integer(_) => "equal share",
        }
    }

    /// Whether the tensors agree: a cosine of at least `threshold`, or all integers equal.
    pub fn passes(&self, threshold: f64) -> bool {
        match self {
            Metrics::Real(m) => m.cosine >= threshold,
            Metrics::Integer(m) => m.equal == 1.0,
        }
    }
}

/// Why two tensors cannot be compared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompareError {
    /// Shapes differ.
    #[error("the device gave shape {device:?}, the reference {reference:?}")]
    Shape {
        /// The device's shape.
        device: Vec<usize>,
        /// The reference's shape.
        reference: Vec<usize>,
    },
    /// One is real-valued and the other is not.
    #[error("device and reference are not of one kind: {0}")]
    Kind(#[from] TensorError),
}

/// Compare a device's stored tensor, which is `scale` times the value, with the unscaled reference.
///
/// # Errors
/// Shapes differ, or one is real-valued and the other is not.
pub fn compare(device: &Tensor, scale: f32, reference: &Tensor) -> Result<Metrics, CompareError> {
    same_shape(device, reference)?;
    if reference.dtype().is_float() {
        let (stored, wanted) = (device.to_f32()?, reference.to_f32()?);
        return Ok(Metrics::Real(compare_real(&stored, scale, &wanted)));
    }
    let (found, wanted) = (device.to_i64()?, reference.to_i64()?);
    let equal = found.iter().zip(wanted.iter()).filter(|(a, b)| a == b).count();
    Ok(Metrics::Integer(IntegerMetrics {
        equal: if found.is_empty() { 1.0 } else { equal as f64 / found.len() as f64 },
    }))
}

fn same_shape(device: &Tensor, reference: &Tensor) -> Result<(), CompareError> {
    if device.shape() == reference.shape() {
        return Ok(());
    }
    Err(CompareError::Shape {
        device: device.shape().to_vec(),
        reference: reference.shape().to_vec(),
    })
}

/// The numbers of two rows of equal length.
pub(crate) fn compare_real(stored: &[f32], scale: f32, wanted: &[f32]) -> RealMetrics {
    let mut angle = Angle::default();
    let (mut max_abs_error, mut error) = (0f64, 0f64);
    let (mut non_finite, mut subnormal, mut flushed) = (0usize, 0usize, 0usize);
    for (&s, &b) in stored.iter().zip(wanted) {
        let (a, b) = (f64::from(s) / f64::from(scale), f64::from(b));
        non_finite += usize::from(!s.is_finite());
        subnormal += usize::from(s != 0.0 && s.abs() < F16_MIN_NORMAL);
        flushed += usize::from(s == 0.0 && b != 0.0);
        if angle.add(a, b) {
            max_abs_error = max_abs_error.max((a - b).abs());
            error += (a - b) * (a - b);
        }
    }
    let relative_l2 = match (error, angle.reference) {
        (0.0, _) => Some(0.0),
        (_, 0.0) => None,
        (error, reference) => Some((error / reference).sqrt()),
    };
    let share =
        |count: usize| if stored.is_empty() { 0.0 } else { count as f64 / stored.len() as f64 };
    RealMetrics {
        cosine: angle.cosine(),
        max_abs_error,
        relative_l2,
        non_finite: share(non_finite),
        subnormal: share(subnormal),
        flushed: share(flushed),
    }
}

/// Running sums of a cosine.
#[derive(Default)]
struct Angle {
    dot: f64,
    device: f64,
    reference: f64,
    broken: bool,
}

impl Angle {
    /// Count a pair; `false` when it is left out of the sums because a side is not finite.
    fn add(&mut self, a: f64, b: f64) -> bool {
        if !(a.is_finite() && b.is_finite()) {
            self.broken = true;
            return false;
        }
        self.dot += a * b;
        self.device += a * a;
        self.reference += b * b;
        true
    }

    fn cosine(&self) -> f64 {
        match (self.broken, self.device == 0.0, self.reference == 0.0) {
            (true, ..) => 0.0,
            (_, true, true) => 1.0,
            (_, true, _) | (_, _, true) => 0.0,
            _ => (self.dot / (self.device.sqrt() * self.reference.sqrt())).clamp(-1.0, 1.0),
        }
    }
}

/// Cosine after each row along the last axis was brought to zero mean and unit variance, `(x - mean) / sqrt(variance + 1e-5)`.
///
/// One huge row (token), or a large mean that both sides share, can carry the plain cosine of a residual stream close to 1 while
/// everything else is wrong. A layer normalisation that follows gives each row the same weight and takes the mean away, and so
/// does this. It does not see through a large channel within a row. `None` for integer tensors.
///
/// # Errors
/// Shapes differ, or one is real-valued and the other is not.
pub fn after_norm_cosine(
    device: &Tensor,
    scale: f32,
    reference: &Tensor,
) -> Result<Option<f64>, CompareError> {
    same_shape(device, reference)?;
    if !reference.dtype().is_float() {
        return Ok(None);
    }
    let (stored, wanted) = (device.to_f32()?, reference.to_f32()?);
    let row = reference.shape().last().copied().unwrap_or(1).max(1);
    let mut angle = Angle::default();
    for (s, b) in stored.chunks(row).zip(wanted.chunks(row)) {
        let (mean_a, norm_a) = moments(s, 1.0 / f64::from(scale));
        let (mean_b, norm_b) = moments(b, 1.0);
        for (&s, &b) in s.iter().zip(b) {
            angle.add(
                (f64::from(s) / f64::from(scale) - mean_a) / norm_a,
                (f64::from(b) - mean_b) / norm_b,
            );
        }
    }
    Ok(Some(angle.cosine()))
}

fn moments(row: &[f32], factor: f64) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = row.iter().map(|&v| f64::from(v) * factor).sum::<f64>() / count;
    let variance = row.iter().map(|&v| (f64::from(v) * factor - mean).powi(2)).sum::<f64>() / count;
    (mean, (variance + NORM_EPSILON).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(device: Vec<f32>, scale: f32, reference: Vec<f32>) -> RealMetrics {
        let shape = [device.len()];
        match compare(&Tensor::from_f32(shape, device), scale, &Tensor::from_f32(shape, reference))
            .unwrap()
        {
            Metrics::Real(m) => m,
            Metrics::Integer(_) => panic!("real tensors give real metrics"),
        }
    }

    #[test]
    fn cosine_of_degenerate_vectors() {
        for (device, reference, cosine) in [
            (vec![0.0, 0.0], vec![0.0, 0.0], 1.0),
            (vec![0.0, 0.0], vec![0.0, 1.0], 0.0),
            (vec![1.0, 1.0], vec![0.0, 0.0], 0.0),
            (vec![f32::NAN, 1.0], vec![1.0, 1.0], 0.0),
            (vec![f32::INFINITY, 1.0], vec![f32::INFINITY, 1.0], 0.0),
            (vec![1.0, 0.0], vec![-1.0, 0.0], -1.0),
            (vec![], vec![], 1.0),
        ] {
            assert_eq!(
                real(device.clone(), 1.0, reference.clone()).cosine,
                cosine,
                "{device:?} {reference:?}"
            );
        }
    }

    #[test]
    fn errors_are_in_unscaled_units_and_shares_in_stored_ones() {
        let m =
            real(vec![2.0, 4.0, 3e-5, 0.0, f32::INFINITY], 2.0, vec![1.0, 2.5, 1.5e-5, 1e-9, 7.0]);
        assert_eq!((m.max_abs_error, m.non_finite, m.subnormal, m.flushed), (0.5, 0.2, 0.2, 0.2));
        assert!((m.relative_l2.unwrap() - 0.5 / (1f64 + 6.25).sqrt()).abs() < 1e-6);
        assert_eq!(m.cosine, 0.0);
        assert_eq!(real(vec![1.0], 1.0, vec![0.0]).relative_l2, None);
        assert_eq!(real(vec![6.103_515_6e-5], 1.0, vec![1.0]).subnormal, 0.0);
    }

    #[test]
    fn one_huge_row_or_a_shared_mean_does_not_hide_the_rest() {
        let shape = [64, 64];
        let tensor = |f: &dyn Fn(usize) -> f32| Tensor::from_f32(shape, (0..4096).map(f).collect());
        let (sin, cos) = (|i: usize| (i as f32).sin(), |i: usize| (i as f32 * 1.7).cos());
        let huge_row =
            |f: fn(usize) -> f32| tensor(&|i| if i < 64 { 5000.0 * sin(i) } else { f(i) });
        let mean = |f: fn(usize) -> f32| tensor(&|i| 500.0 + f(i));
        for (device, reference) in [(huge_row(sin), huge_row(cos)), (mean(sin), mean(cos))] {
            assert!(compare(&device, 1.0, &reference).unwrap().agreement() > 0.9999);
            assert!(
                (after_norm_cosine(&reference, 1.0, &reference).unwrap().unwrap() - 1.0).abs()
                    < 1e-12
            );
            assert!(after_norm_cosine(&device, 1.0, &reference).unwrap().unwrap() < 0.5);
        }
    }

    #[test]
    fn integers_must_be_equal() {
        let m = compare(
            &Tensor::from_i64([4], vec![1, 2, 3, 4]),
            1.0,
            &Tensor::from_i64([4], vec![1, 2, 3, 5]),
        )
        .unwrap();
        assert_eq!(m, Metrics::Integer(IntegerMetrics { equal: 0.75 }));
        assert!(!m.passes(0.5));
        assert!(compare(&Tensor::from_i64([1], vec![1]), 1.0, &Tensor::scalar(1.0)).is_err());
    }
}
