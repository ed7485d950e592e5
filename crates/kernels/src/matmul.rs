//! Matrix products with numpy batch broadcasting.

use crate::data::Source;
use crate::product::{Factors, MAX_PANELS, Size, product};
use crate::tile::{COLUMNS, Line};
use crate::walk::{broadcast_strides, strides};
use crate::{KernelError, Precision};
use rockshard_graph::broadcast;
use rockshard_tensor::Tensor;
use std::ops::Range;

const OP: &str = "MatMul";

/// `a [.., M, K] x b [.., K, N] + bias [N]`, rounded at each of the `cuts` of K and at the end. Batch axes broadcast; a factor of one axis is a row (left) or a
/// column (right), and its axis is left out of the result.
///
/// # Errors
/// Shapes that do not fit, or inputs that hold no real numbers.
pub(crate) fn matmul(
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    cuts: &[usize],
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let misfit = || {
        KernelError::shape(
            OP,
            format!(
                "shapes {:?}, {:?} and bias {:?}",
                a.shape(),
                b.shape(),
                bias.map(Tensor::shape)
            ),
        )
    };
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
    let ([rows, depth], [depth_right, columns]) =
        ([left_matrix[0], left_matrix[1]], [right_matrix[0], right_matrix[1]]);
    let batch =
        broadcast(left_batch, right_batch).filter(|_| depth == depth_right).ok_or_else(misfit)?;
    if bias.is_some_and(|bias| bias.shape() != [columns]) {
        return Err(misfit());
    }

    let mut shape = batch.clone();
    shape.extend((a.shape().len() > 1).then_some(rows));
    shape.extend((b.shape().len() > 1).then_some(columns));
    let bias = bias
        .map(|bias| Ok::<_, KernelError>(Source::new(OP, 2, bias, Precision::F32)?.vec(0, columns)))
        .transpose()?;
    let (x, w) = (Source::new(OP, 0, a, precision)?, Source::new(OP, 1, b, precision)?);

    // One matrix on the right: the batches of the left are rows of one product.
    let stacked = right_batch.iter().all(|&n| n == 1) && left_batch == batch;
    let count = batch.iter().product::<usize>();
    let size = match stacked {
        true => Size { batch: 1, rows: count * rows, depth, columns },
        false => Size { batch: count, rows, depth, columns },
    };
    let steps = strides(&batch);
    let (left_steps, right_steps) =
        (broadcast_strides(left_batch, &batch), broadcast_strides(right_batch, &batch));
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
            cuts,
            left: &|index, row, depths: Range<usize>, out: &mut [f32]| {
                x.read((matrix(index, &left_steps) * rows + row) * depth + depths.start, out);
            },
            right: &|index, depths: Range<usize>, range: Range<usize>, panels: &mut [Line]| {
                read_columns(
                    &w,
                    matrix(index, &right_steps) * depth,
                    depths,
                    columns,
                    &range,
                    panels,
                );
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

/// Fill panels with some rows and columns of a matrix whose rows have `width` elements and begin with row `base` of `source`.
pub(crate) fn read_columns(
    source: &Source<'_>,
    base: usize,
    rows: Range<usize>,
    width: usize,
    columns: &Range<usize>,
    panels: &mut [Line],
) {
    // A row at a time: what lies together is read together.
    let mut whole = [[0.0; COLUMNS]; MAX_PANELS];
    let lines = &mut whole[..columns.len().div_ceil(COLUMNS)];
    for (i, row) in rows.clone().enumerate() {
        source.read(
            (base + row) * width + columns.start,
            &mut lines.as_flattened_mut()[..columns.len()],
        );
        panels[i..].iter_mut().step_by(rows.len()).zip(&*lines).for_each(|(to, line)| *to = *line);
    }
}
