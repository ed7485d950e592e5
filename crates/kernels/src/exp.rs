//! An exponential that the compiler turns into vector code.

/// `e^x` to about 1e-7 relative: 0 below -86.9 (1.8e-38, next to the subnormals), infinity above 88.72, NaN for NaN.
///
/// `2^n * e^r` with `n` the nearest integer to `x / ln 2`, `r` reduced in two steps and `e^r` by its Taylor polynomial
/// of degree 7 (|r| <= ln 2 / 2, truncation 5e-9).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // n is within -125..=128 for every x that is kept; halving one factor keeps 2^128 finite.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power = f32::from_bits(exponent.wrapping_add(126).wrapping_shl(23) as u32);
    let value = p * power * 2.0;
    let value = if x < -86.9 { 0.0 } else { value };
    if x > 88.722_83 { f32::INFINITY } else { value }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, to about 2e-7 of its value.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // Near zero the difference cancels; the Taylor polynomial is off by 1e-9 of the value at 0.1.
    let square = x * x;
    let near = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if square < 0.01 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_f64_over_the_whole_range() {
        let mut worst = 0.0f64;
        for i in 0..=1_756_000 {
            let x = -86.9 + i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
    }

    #[test]
    fn tanh_agrees_with_f64() {
        let worst = (-200_000..=200_000).map(|i| i as f32 * 1e-4).filter(|&x| x != 0.0).map(|x| {
            let exact = f64::from(x).tanh();
            (f64::from(tanh(x)) / exact - 1.0).abs()
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2e-6, "{worst}");
        assert_eq!((tanh(0.0), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (0.0, 1.0, -1.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(88.7).is_finite());
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
    }
}
