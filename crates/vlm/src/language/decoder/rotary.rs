//! Rotary positions (Su et al. 2021), the halves of a head turned against each other as in Llama.

use super::shape::DecoderShape;
use rayon::prelude::*;

/// Cosines and sines of positions, a row of half a head's width each.
pub(super) struct Rotary {
    half: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Rotary {
    pub fn new(shape: &DecoderShape, positions: std::ops::Range<usize>) -> Self {
        let half = shape.head_width / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| shape.theta.powf(-((2 * i) as f32) / shape.head_width as f32))
            .collect();
        let angles = positions.flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (cosines, sines) = angles.map(|a| (a.cos(), a.sin())).unzip();
        Rotary { half, cosines, sines }
    }

    /// Turn the heads in the first `turned` values of each row.
    pub fn apply(&self, rows: &mut [f32], stride: usize, turned: usize) {
        let turns =
            self.cosines.par_chunks_exact(self.half).zip(self.sines.par_chunks_exact(self.half));
        let rows = rows.par_chunks_exact_mut(stride).zip(turns);
        rows.for_each(|(row, (cosines, sines))| {
            for head in row[..turned].chunks_exact_mut(2 * self.half) {
                let (low, high) = head.split_at_mut(self.half);
                for (((a, b), c), s) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        });
    }
}
