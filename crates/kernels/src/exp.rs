//! An exponential and functions made of it that the compiler turns into vector code.

/// `e^x` to about 1e-7 relative: 0 below -86.9 (1.8e-38, next to the subnormals), infinity above 88.72, NaN for NaN.
///
/// To be called where [`pulp::Arch::dispatch`] has turned on the processor's fused multiply-adds; elsewhere each of them is a
/// call.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (value, n) = reduced(x);
    // n is within -125..=128 for every x that is kept; halving one factor keeps 2^128 finite.
    let value = value * power_of_two(n - 1) * 2.0;
    let value = if x < LOWEST { 0.0 } else { value };
    if x > 88.722_83 { f32::INFINITY } else { value }
}

/// [`exp`] of what is not above 0.
#[inline(always)]
pub(crate) fn exp_below_zero(x: f32) -> f32 {
    let (value, n) = reduced(x);
    let value = value * power_of_two(n);
    if x < LOWEST { 0.0 } else { value }
}

/// Below this `e^x` counts as 0.
const LOWEST: f32 = -86.9;

/// `e^x` as `value * 2^n`, `n` the nearest integer to `x / ln 2`: the rest is reduced in two steps and its exponential is a
/// Chebyshev fit of degree 6 (within ln 2 / 2 of 0, 2e-9 relative).
#[inline(always)]
fn reduced(x: f32) -> (f32, i32) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = r.mul_add(1.394_859_3e-3, 8.375_137e-3);
    let p = p.mul_add(r, 4.166_621_7e-2);
    let p = p.mul_add(r, 1.666_641_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    (p, shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32)
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(n.wrapping_add(127).wrapping_shl(23) as u32)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function to 1.2e-7 absolute, NaN for NaN. To be called as [`exp`].
///
/// Below 0.9 `x p(x^2)`; above `1 - e^(-x^2) q(t)` with `t = 1 / (1 + x/2)`. `p` and `q` are Chebyshev fits to
/// `erf(x) / x` (3e-10 relative) and `erfc(x) e^(x^2)` (1e-9 relative, up to 4.2, where erf rounds to 1).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    const P: [f32; 7] = [
        8.534_12e-5,
        -8.180_781e-4,
        5.204_331_6e-3,
        -2.686_070_8e-2,
        1.128_371_9e-1,
        -3.761_263_5e-1,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    const Q: [f32; 8] = [
        1.193_175_5e-1,
        -4.710_417_7e-1,
        5.629_483_5e-1,
        -1.032_683_1e-1,
        3.475_901_2e-1,
        2.597_642_2e-1,
        2.848_976_6e-1,
        -1.529_772_4e-4,
    ];
    let polynomial = |coefficients: &[f32], v: f32| {
        coefficients.iter().fold(0.0f32, |sum, &c| sum.mul_add(v, c))
    };
    let size = x.abs();
    // A comparison, so that NaN stays.
    let size = if size > 4.2 { 4.2 } else { size };
    let square = size * size;
    let near = size * polynomial(&P, square);
    let far = 1.0 - exp(-square) * polynomial(&Q, 1.0 / size.mul_add(0.5, 1.0));
    (if size < 0.9 { near } else { far }).copysign(x)
}

/// Hyperbolic tangent, to about 2e-7 of its value. To be called as [`exp`].
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
            let below = if x <= 0.0 { exp_below_zero(x) } else { exp(x) };
            worst = [exp(x), below]
                .iter()
                .fold(worst, |worst, &v| worst.max((f64::from(v) / exact - 1.0).abs()));
        }
        assert!(worst < 2.5e-7, "{worst}");
    }

    #[test]
    fn error_function_agrees_with_f64() {
        let mut worst = 0.0f64;
        for i in -1_200_000..=1_200_000 {
            let x = i as f32 * 5e-6;
            worst = worst.max((f64::from(erf(x)) - libm::erf(x.into())).abs());
        }
        assert!(worst < 1.2e-7, "{worst}");
        assert_eq!([erf(f32::INFINITY), erf(f32::NEG_INFINITY), erf(5.0)], [1.0, -1.0, 1.0]);
        assert_eq!(erf(-0.0).to_bits(), (-0.0f32).to_bits());
        assert!(erf(f32::NAN).is_nan());
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
        assert_eq!(
            [exp_below_zero(f32::NEG_INFINITY), exp_below_zero(-200.0), exp_below_zero(-1e30)],
            [0.0; 3]
        );
        assert!(exp_below_zero(f32::NAN).is_nan());
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(88.7).is_finite());
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
    }
}
