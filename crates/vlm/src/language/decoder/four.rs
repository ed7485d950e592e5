//! Weights of 4 bits, and one row times them.
//!
//! Outputs are in groups of 32, which fill the lanes of a register, so that their sums need no adding up across lanes and their scales are read as vectors. The
//! order of the values: group, block of 32 inputs, four inputs of the block, output of the group; a word holds an output's weights for these four inputs, the first
//! in its lowest bits. What is stored as `u` stands for `(u - 8) * scale`, with a float16 scale for each output and block.

use super::file::View;
use half::f16;
use rayon::prelude::*;
use rten_simd::ops::{BitOps, Extend, IntOps, NumOps, ToFloat};
use rten_simd::{Isa, Simd, SimdOp};

/// Inputs that share a scale.
pub(super) const BLOCK: usize = 32;
/// Outputs side by side.
pub(super) const GROUP: usize = 32;
/// Inputs of an output in a word.
const IN_WORD: usize = 4;
const WORDS: usize = BLOCK / IN_WORD * GROUP;

/// A layer's weights, as a file holds them.
pub(super) struct Four {
    pub words: View<i16>,
    pub scales: View<u16>,
}

/// Shape of the words of a matrix, and of its scales.
pub(super) fn shapes(outputs: usize, depth: usize) -> [Vec<usize>; 2] {
    let (groups, blocks) = (outputs.div_ceil(GROUP), depth / BLOCK);
    [vec![groups, blocks, BLOCK / IN_WORD, GROUP], vec![groups, blocks, GROUP]]
}

/// Words and scales of rows of `depth` values: the value of a block that is furthest from zero becomes -8, whatever its sign (as in llama.cpp's Q4_0).
pub(super) fn pack(values: &[f32], depth: usize) -> (Vec<u16>, Vec<f16>) {
    let blocks = depth / BLOCK;
    let groups = (values.len() / depth).div_ceil(GROUP);
    // Outputs that only fill the last group are zero.
    let mut words = vec![0x8888u16; groups * blocks * WORDS];
    let mut scales = vec![f16::ZERO; groups * blocks * GROUP];
    for (output, row) in values.chunks_exact(depth).enumerate() {
        let (group, lane) = (output / GROUP, output % GROUP);
        for (number, block) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = group * blocks + number;
            let most =
                block.iter().fold(0.0f32, |most, &v| if v.abs() > most.abs() { v } else { most });
            let scale = f16::from_f32(most / -8.0);
            let inverse = if scale.to_f32() == 0.0 { 0.0 } else { scale.to_f32().recip() };
            let stored = |v: &f32| ((v * inverse).round_ties_even() + 8.0).clamp(0.0, 15.0) as u16;
            scales[at * GROUP + lane] = scale;
            let words = words[at * WORDS..].iter_mut().skip(lane).step_by(GROUP);
            for (word, four) in words.zip(block.as_chunks::<IN_WORD>().0) {
                *word = four.iter().rev().fold(0, |word, v| word << 4 | stored(v));
            }
        }
    }
    (words, scales)
}

/// One row's inputs in 8 bits, with a scale a block.
struct Row {
    values: Vec<i16>,
    blocks: Vec<RowBlock>,
}

struct RowBlock {
    scale: f32,
    /// What the weights' zero of 8 adds to a sum of products.
    zero: i32,
}

impl Row {
    fn new(row: &[f32]) -> Self {
        let mut values = Vec::with_capacity(row.len());
        let mut blocks = Vec::with_capacity(row.len() / BLOCK);
        for block in row.as_chunks::<BLOCK>().0 {
            let most = block.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
            let start = values.len();
            values.extend(block.iter().map(|v| (v * inverse).round_ties_even() as i16));
            let sum: i32 = values[start..].iter().map(|&v| i32::from(v)).sum();
            blocks.push(RowBlock { scale: most / 127.0, zero: 8 * sum });
        }
        Row { values, blocks }
    }
}

impl Four {
    /// A row of inputs times the weights.
    pub fn multiply(&self, row: &[f32], outputs: usize) -> Vec<f32> {
        multiply(&Row::new(row), self.words.get(), self.scales.get(), outputs)
    }
}

fn multiply(row: &Row, words: &[i16], scales: &[u16], outputs: usize) -> Vec<f32> {
    let (words_each, scales_each) = (row.blocks.len() * WORDS, row.blocks.len() * GROUP);
    let mut out = vec![0.0; outputs.next_multiple_of(GROUP)];
    let share = (out.len() / GROUP).div_ceil(2 * rayon::current_num_threads());
    let shares = words
        .par_chunks(share * words_each)
        .zip(scales.par_chunks(share * scales_each))
        .zip(out.par_chunks_mut(share * GROUP));
    shares.for_each(|((words, scales), out)| Product { row, words, scales, out }.dispatch());
    out.truncate(outputs);
    out
}

/// A row times the weights of some groups.
struct Product<'a> {
    row: &'a Row,
    words: &'a [i16],
    scales: &'a [u16],
    out: &'a mut [f32],
}

impl SimdOp for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (short, long, float, half) = (isa.i16(), isa.i32(), isa.f32(), isa.f16());
        let mask = short.splat(15);
        let blocks = self.row.blocks.len();
        let inputs = self.row.values.as_chunks::<BLOCK>().0;
        let groups = self.words.chunks_exact(blocks * WORDS);
        let groups = groups.zip(self.scales.chunks_exact(blocks * GROUP));
        for ((words, scales), out) in groups.zip(self.out.as_chunks_mut::<GROUP>().0) {
            let words = words.as_chunks::<WORDS>().0;
            let scales = scales.as_chunks::<GROUP>().0;
            for lanes in (0..GROUP).step_by(short.len()) {
                let mut sums = [float.zero(); 2];
                let weights = words.iter().zip(scales);
                for ((words, scales), (inputs, block)) in
                    weights.zip(inputs.iter().zip(&self.row.blocks))
                {
                    // 16 products of at most 15 * 127 each.
                    let mut partial = [short.zero(); 2];
                    let words = words.as_chunks::<GROUP>().0;
                    for (words, x) in words.iter().zip(inputs.as_chunks::<IN_WORD>().0) {
                        let word = short.load(&words[lanes..]);
                        let add = |sum, word, x| {
                            short.mul_add(short.and(word, mask), short.splat(x), sum)
                        };
                        partial[0] = add(partial[0], word, x[0]);
                        partial[1] = add(partial[1], short.shift_right::<4>(word), x[1]);
                        partial[0] = add(partial[0], short.shift_right::<8>(word), x[2]);
                        partial[1] = add(partial[1], short.shift_right::<12>(word), x[3]);
                    }
                    let zero = long.splat(block.zero);
                    let scales = half.from_bits(isa.u16().load(&scales[lanes..]).to_bits());
                    let [a, b] = partial;
                    let whole = [
                        (
                            long.add(short.extend_low(a), short.extend_low(b)),
                            half.extend_low(scales),
                        ),
                        (
                            long.add(short.extend_high(a), short.extend_high(b)),
                            half.extend_high(scales),
                        ),
                    ];
                    let input_scale = float.splat(block.scale);
                    for (sum, (products, scale)) in sums.iter_mut().zip(whole) {
                        let products = long.to_float(long.sub(products, zero));
                        *sum = float.mul_add(products, float.mul(scale, input_scale), *sum);
                    }
                }
                let out = &mut out[lanes..];
                float.store(sums[0], out);
                float.store(sums[1], &mut out[float.len()..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 that look random.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// What a weight stands for, read back out of the order of a file.
    fn weight(words: &[u16], scales: &[f16], blocks: usize, output: usize, input: usize) -> f64 {
        let block = output / GROUP * blocks + input / BLOCK;
        let at = input % BLOCK;
        let word = words[block * WORDS + at / IN_WORD * GROUP + output % GROUP];
        let stored = f64::from(word >> (4 * (at % IN_WORD)) & 15);
        (stored - 8.0) * scales[block * GROUP + output % GROUP].to_f64()
    }

    #[test]
    fn products_are_those_of_the_stored_weights() {
        for (outputs, depth) in [(1, 32), (31, 96), (32, 64), (33, 32), (200, 576)] {
            let values = numbers(outputs * depth, outputs);
            let (words, scales) = pack(&values, depth);
            let row = Row::new(&numbers(depth, 5));
            let found = multiply(
                &row,
                bytemuck::cast_slice(&words),
                bytemuck::cast_slice(&scales),
                outputs,
            );
            assert_eq!(found.len(), outputs);
            for (output, found) in found.into_iter().enumerate() {
                let term = |input: usize| {
                    let x =
                        f64::from(row.values[input]) * f64::from(row.blocks[input / BLOCK].scale);
                    weight(&words, &scales, depth / BLOCK, output, input) * x
                };
                let expected: f64 = (0..depth).map(term).sum();
                assert!((f64::from(found) - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }

    /// The sums of 16 products stay within 16 bits at the ends of both ranges.
    #[test]
    fn the_largest_products_fit() {
        for sign in [1.0, -1.0] {
            let values = vec![sign; GROUP * BLOCK];
            let (words, scales) = pack(&values, BLOCK);
            let row = Row::new(&[-1.0; BLOCK]);
            let found =
                multiply(&row, bytemuck::cast_slice(&words), bytemuck::cast_slice(&scales), GROUP);
            assert!(found.iter().all(|v| (v + sign * BLOCK as f32).abs() < 0.05), "{found:?}");
        }
    }

    #[test]
    fn weights_are_within_a_step_of_what_they_were() {
        let values = numbers(33 * 64, 3);
        let (words, scales) = pack(&values, 64);
        for (at, value) in values.iter().enumerate() {
            let found = weight(&words, &scales, 2, at / 64, at % 64);
            // A step is an eighth of the largest; its opposite end is one step short.
            assert!((found - f64::from(*value)).abs() < 0.13, "{found} {value}");
        }
    }
}
