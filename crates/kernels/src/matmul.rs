//! Matrix products with numpy batch broadcasting.

use crate::data::Source;
use crate::product::{Factors, Size, product};
use crate::walk::{broadcast_strides, strides};
use crate::{KernelError, Precision};
use rockshard_graph::broadcast;
use rockshard_tensor::Tensor;
use std::ops::Range;

const OP: &str = "MatMul";

/// `a [.., M, K] x b [.., K, N] + bias [N]`, rounded once. Batch axes broadcast; a factor of one axis is a row (left) or a
/// column (right), and its axis is left out of the result.
///
/// # Errors
/// Shapes that do not fit, or inputs that hold no real numbers.
pub fn matmul(a: &Tensor, b: &Tensor, bias: Option<&Tensor>, precision: Precision) -> Result<Tensor, KernelError> {
    let misfit = || KernelError::shape(OP, format!("shapes {:?}, {:?} and bias {:?}", a.shape(), b.shape(), bias.map(Tensor::shape)));
    let mut left = a.shape().to_vec();
    let mut right = b.shape().to_vec();
    if left.is_empty() || right.is_empty() {
        return Err(misfit());
    }
    if left.len() == 1 {
        left.insert(0, 1);
    }
    if right.len() == 1 {
        right.push(1);
    }
    let (left_batch, left_matrix) = left.split_at(left.len() - 2);
    let (right_batch, right_matrix) = right.split_at(right.len() - 2);
    let ([rows, depth], [depth_right, columns]) = ([left_matrix[0], left_matrix[1]], [right_matrix[0], right_matrix[1]]);
    let batch = broadcast(left_batch, right_batch).filter(|_| depth == depth_right).ok_or_else(misfit)?;
    if bias.is_some_and(|bias| bias.shape() != [columns]) {
        return Err(misfit());
    }

    let mut shape = batch.clone();
    shape.extend((a.shape().len() > 1).then_some(rows));
    shape.extend((b.shape().len() > 1).then_some(columns));
    let bias = bias.map(|bias| Ok::<_, KernelError>(Source::new(OP, 2, bias, Precision::F32)?.vec(0, columns))).transpose()?;
    let (x, w) = (Source::new(OP, 0, a, precision)?, Source::new(OP, 1, b, precision)?);

    // One matrix on the right: the batches of the left are rows of one product.
    let stacked = right_batch.iter().all(|&n| n == 1) && left_batch == batch;
    let count = batch.iter().product::<usize>();
    let size = match stacked {
        true => Size { batch: 1, rows: count * rows, depth, columns },
        false => Size { batch: count, rows, depth, columns },
    };
    let steps = strides(&batch);
    let (left_steps, right_steps) = (broadcast_strides(left_batch, &batch), broadcast_strides(right_batch, &batch));
    let matrix = |index: usize, operand: &[usize]| -> usize {
        if stacked {
            return 0;
        }
        (0..batch.len()).map(|i| index / steps[i] % batch[i] * operand[i]).sum()
    };
    Ok(product(
        precision,
        shape,
        &size,
        &Factors {
            left: &|index, rows_: Range<usize>, panel: &mut [f32]| x.read((matrix(index, &left_steps) * rows + rows_.start) * depth, panel),
            right: &|index, range: Range<usize>, panel: &mut [f32]| {
                let base = matrix(index, &right_steps) * depth;
                read_columns(&w, base, columns, &range, panel);
            },
            finish: &|_, _, range: Range<usize>, sums: &mut [f32]| {
                if let Some(bias) = &bias {
                    for (sum, bias) in sums.iter_mut().zip(&bias[range]) {
                        *sum += bias;
                    }
                }
            },
        },
    ))
}

/// Fill `panel` with some columns of a matrix whose rows have `width` elements and begin with row `first_row` of `source`.
pub(crate) fn read_columns(source: &Source<'_>, first_row: usize, width: usize, columns: &Range<usize>, panel: &mut [f32]) {
    if columns.len() == width {
        source.read(first_row * width, panel);
    } else if !columns.is_empty() {
        for (row, out) in panel.chunks_mut(columns.len()).enumerate() {
            source.read((first_row + row) * width + columns.start, out);
        }
    }
}
