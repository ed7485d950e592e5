//! Weights, and rows times weights, in the precisions that a decoder's file has.

use super::file::View;
use super::four::Four;
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix, QuantParams};
use rten_simd::SimdOp;
use rten_tensor::NdTensorView;
use rten_vecmath::Quantize;
use std::mem::MaybeUninit;

/// Kernels for this machine; they cost nothing to make, and do not go from one thread to another.
pub(super) struct Kernels {
    pub float: GemmExecutor<f32>,
    eight: GemmExecutor<u8, i8, i32>,
    /// The largest quantised value of a row, above the zero point; half of what a byte holds where pairs of products would saturate.
    reach: f32,
    /// Whether a single token is fed.
    single: bool,
}

impl Kernels {
    pub fn new(single: bool) -> Self {
        let eight = GemmExecutor::<u8, i8, i32>::new();
        let reach = if eight.may_saturate() { 63.0 } else { 127.0 };
        Kernels { float: GemmExecutor::new(), eight, reach, single }
    }

    /// Rows of weights as the kernel takes them.
    pub fn packed(&self, values: &[i8], outputs: usize, depth: usize) -> PackedBMatrix<i8> {
        let rows = NdTensorView::from_data([outputs, depth], values);
        self.eight.prepack_b(rows.transposed())
    }
}

/// Room that products share.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    sums: Vec<i32>,
}

/// A layer's weights: a row of `depth` values for each output.
pub(super) struct Matrix {
    pub outputs: usize,
    pub depth: usize,
    pub stored: Stored,
    /// For a single token, where these differ.
    pub single: Option<Four>,
}

pub(super) enum Stored {
    Float(View<f32>),
    /// Packed for this machine's kernel, a scale an output.
    Eight {
        values: PackedBMatrix<i8>,
        scales: View<f32>,
    },
}

impl Matrix {
    /// Rows times the weights.
    pub fn multiply(
        &self,
        kernels: &Kernels,
        scratch: &mut Scratch,
        rows: &[f32],
    ) -> Result<Vec<f32>, String> {
        let count = rows.len() / self.depth;
        if let (true, Some(four)) = (kernels.single, &self.single) {
            return Ok(four.multiply(rows, self.outputs));
        }
        match &self.stored {
            Stored::Float(values) => {
                let mut out = vec![0.0; count * self.outputs];
                let a = GemmInputA::Unpacked(NdTensorView::from_data([count, self.depth], rows));
                let b = NdTensorView::from_data([self.outputs, self.depth], values.get());
                let b = GemmInputB::Unpacked(b.transposed());
                let done = kernels.float.gemm(&mut out, a, b, GemmOptions::default());
                done.map_err(|e| e.to_string())?;
                Ok(out)
            }
            Stored::Eight { values, scales } => {
                self.eight(kernels, scratch, rows, (values, scales.get()))
            }
        }
    }

    fn eight(
        &self,
        kernels: &Kernels,
        scratch: &mut Scratch,
        rows: &[f32],
        (values, scales): (&PackedBMatrix<i8>, &[f32]),
    ) -> Result<Vec<f32>, String> {
        let count = rows.len() / self.depth;
        scratch.bytes.resize(scratch.bytes.len().max(rows.len()), 0);
        let bytes = &mut scratch.bytes[..rows.len()];
        let zero = kernels.reach as u8 + 1;
        let quantise = |(row, bytes): (&[f32], &mut [u8])| quantise(row, bytes, kernels.reach);
        let row_scales: Vec<f32> = if count == 1 {
            vec![quantise((rows, &mut *bytes))]
        } else {
            let pairs = rows.par_chunks(self.depth).zip(bytes.par_chunks_mut(self.depth));
            pairs.map(quantise).collect()
        };
        scratch.sums.resize(scratch.sums.len().max(count * self.outputs), 0);
        let sums = &mut scratch.sums[..count * self.outputs];
        let zeros = vec![zero; count];
        let a = GemmInputA::Unpacked(NdTensorView::from_data([count, self.depth], &bytes[..]));
        let b = GemmInputB::Packed(values);
        let a_quant = Some(QuantParams { zero_point: &zeros[..] });
        let options = GemmOptions { a_quant, ..GemmOptions::default() };
        kernels.eight.gemm(sums, a, b, options).map_err(|e| e.to_string())?;
        let mut out = vec![0.0; sums.len()];
        let scaled = |((out, sums), scale): ((&mut [f32], &[i32]), &f32)| {
            for ((out, &sum), weight) in out.iter_mut().zip(sums).zip(scales) {
                *out = sum as f32 * (scale * weight);
            }
        };
        if count == 1 {
            scaled(((&mut out, sums), &row_scales[0]));
        } else {
            let pairs = out.par_chunks_mut(self.outputs).zip(sums.par_chunks(self.outputs));
            pairs.zip(&row_scales).for_each(scaled);
        }
        Ok(out)
    }
}

/// A row as bytes around `reach + 1`; gives what a step of one stands for.
fn quantise(row: &[f32], bytes: &mut [u8], reach: f32) -> f32 {
    let most = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let scale = most / reach;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    let mut made = vec![MaybeUninit::new(0u8); row.len()];
    bytes.copy_from_slice(Quantize::new(row, &mut made, inverse, reach as u8 + 1).dispatch());
    scale
}
