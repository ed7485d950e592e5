//! Between f16 and f32 a slice at a time: sixteen elements an instruction where the processor has AVX-512, else as the `half`
//! crate does it. Both round to nearest even and keep infinities and NaN.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// `to[i] = from[i]`, exactly.
pub(crate) fn widen(from: &[f16], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let pulp::x86::Arch::V4(simd) = pulp::x86::Arch::new() {
        return simd.vectorize(
            #[inline(always)]
            || {
                let (wide, rest) = to.as_chunks_mut::<16>();
                let (narrow, tail) = from.as_chunks::<16>();
                for (wide, narrow) in wide.iter_mut().zip(narrow) {
                    *wide = pulp::cast(simd.avx512f._mm512_cvtph_ps(pulp::cast(*narrow)));
                }
                rest.iter_mut().zip(tail).for_each(|(wide, narrow)| *wide = narrow.to_f32());
            },
        );
    }
    from.convert_to_f32_slice(to);
}

/// `to[i] = from[i]`, rounded to nearest even; beyond 65504 infinite.
pub(crate) fn narrow(from: &[f32], to: &mut [f16]) {
    #[cfg(target_arch = "x86_64")]
    if let pulp::x86::Arch::V4(simd) = pulp::x86::Arch::new() {
        /// To nearest even, whatever the thread's rounding mode.
        const NEAREST: i32 = 0;
        return simd.vectorize(
            #[inline(always)]
            || {
                let (narrow, rest) = to.as_chunks_mut::<16>();
                let (wide, tail) = from.as_chunks::<16>();
                for (narrow, wide) in narrow.iter_mut().zip(wide) {
                    *narrow =
                        pulp::cast(simd.avx512f._mm512_cvtps_ph::<NEAREST>(pulp::cast(*wide)));
                }
                rest.iter_mut().zip(tail).for_each(|(narrow, wide)| *narrow = f16::from_f32(*wide));
            },
        );
    }
    to.convert_from_f32_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float16_survives() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        for length in [all.len(), all.len() - 5] {
            let all = &all[..length];
            let (mut wide, mut back) = (vec![0.0; length], vec![f16::ZERO; length]);
            widen(all, &mut wide);
            narrow(&wide, &mut back);
            for ((&v, &w), &b) in all.iter().zip(&wide).zip(&back) {
                assert!(
                    v.is_nan() && w.is_nan() && b.is_nan()
                        || w.to_bits() == v.to_f32().to_bits() && b.to_bits() == v.to_bits(),
                    "{v:?}"
                );
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        let values: Vec<f32> =
            (0..1 << 20).map(|i| f32::from_bits(0x3300_0000 + i * 0x101)).collect();
        let mut rounded = vec![f16::ZERO; values.len()];
        narrow(&values, &mut rounded);
        values.iter().zip(rounded).for_each(|(v, r)| assert_eq!(r, f16::from_f32(*v), "{v}"));
        let mut edges = [f16::ZERO; 16];
        narrow(
            &[
                2049.0,
                2051.0,
                65519.9,
                65520.0,
                -65520.0,
                2f32.powi(-25),
                3.0 * 2f32.powi(-25),
                0.0,
            ]
            .repeat(2),
            &mut edges,
        );
        let edges = edges.map(f16::to_f32);
        assert_eq!(
            edges[..8],
            [2048.0, 2052.0, 65504.0, f32::INFINITY, f32::NEG_INFINITY, 0.0, 2f32.powi(-23), 0.0]
        );
        assert_eq!(edges[..8], edges[8..]);
    }
}
