//! What every operator means, on tensors: in f32, and in f16 the way the NPU computes.
//!
//! [`evaluate`] runs one operator. In [`Precision::F16`] an operator reads f16 values, computes in f32 and rounds once, to
//! nearest even, at its output; values beyond 65504 become infinite. Biases, and scale and shift of group norms, are not rounded.
//! Group and instance norms and the tanh form of GELU round in between, as the NPU's compiler makes several operators of them. Operators that only move data keep the storage type
//! and every bit. Integer and bool tensors are computed in i64 and keep their type.
//!
//! The heavy operators (convolution, matrix product, attention) widen f16 a panel at a time and never hold a whole weight
//! or score matrix in f32. Work is cut the same way whatever the number of threads, so results do not depend on it.

mod attention;
mod conv;
mod convert;
mod data;
mod elementwise;
mod error;
mod exp;
mod matmul;
mod movement;
mod norm;
mod pool;
mod product;
mod reduce;
mod reuse;
mod round;
mod tile;
mod transposed;
mod walk;
mod winograd;

pub use error::KernelError;

use rockshard_graph::{Op, Value, infer};
use rockshard_tensor::{DType, Tensor, element_count};

/// How real numbers are computed and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Computed and given as float32; float16 inputs are widened, which is exact.
    F32,
    /// The NPU: inputs are taken as float16 (float32 ones are rounded), computed in f32, and rounded once at the output.
    F16,
}

impl Precision {
    /// Storage type of real values.
    pub const fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
        }
    }
}

/// Largest number of elements of an output: what 4 GiB of float16, the largest tensor of the NPU, holds.
const MAX_ELEMENTS: usize = 1 << 31;

/// Run one operator.
///
/// The output has the shape that [`rockshard_graph::infer`] gives. Its type is the inferred one, where real values are
/// stored as `precision` says, except that operators which only move data (reshape, transpose, slice, gather, expand,
/// and concatenation, selection and padding of one storage type) keep the storage type of their input.
///
/// # Errors
/// The inputs do not suit the operator: their number, shapes, types or, for indices and integer divisors, values.
pub fn evaluate(op: &Op, inputs: &[&Tensor], precision: Precision) -> Result<Tensor, KernelError> {
    let values: Vec<Value> = inputs.iter().map(|t| described(t)).collect();
    let (dtype, shape) = infer(op, &values.iter().collect::<Vec<_>>())?;
    let name = op.name();
    match element_count(&shape) {
        Some(n) if n <= MAX_ELEMENTS => {}
        _ => return Err(KernelError::TooLarge { op: name, shape }),
    }
    match op {
        Op::Conv { window, group } => conv::conv(inputs, window, *group, &[], shape, precision),
        Op::ConvTranspose { window, group, .. } => {
            transposed::conv_transpose(inputs, window, *group, shape, precision)
        }
        Op::MatMul => matmul::matmul(inputs[0], inputs[1], None, &[], precision),
        Op::Attention { scale } => attention::attention(inputs, *scale, shape, precision),
        Op::Unary(function) => elementwise::unary(name, *function, inputs[0], precision),
        Op::Binary(function) => {
            elementwise::binary(name, *function, inputs[0], inputs[1], dtype, shape, precision)
        }
        Op::Clip { min, max } => elementwise::clip(inputs[0], *min, *max, precision),
        Op::Swish { beta } => elementwise::swish(inputs[0], *beta, precision),
        Op::Gelu { tanh } => elementwise::gelu(inputs[0], *tanh, precision),
        Op::Cast(to) => elementwise::cast(inputs[0], *to, precision),
        Op::Softmax { axis } => norm::softmax(inputs[0], *axis, precision),
        Op::LayerNorm { epsilon, .. } => norm::layer(inputs, *epsilon, precision),
        Op::InstanceNorm { epsilon } => norm::instance(inputs, *epsilon, precision),
        Op::GroupNorm { groups, epsilon } => norm::group(inputs, *groups, *epsilon, precision),
        Op::Reshape { .. } => inputs[0].reshape(shape).map_err(|e| KernelError::value(name, e)),
        Op::Transpose { perm } => movement::transpose(inputs[0], perm),
        Op::Concat { axis } => movement::concat(inputs, *axis, shape, precision),
        Op::Slice { begin, step, .. } => movement::slice(inputs[0], begin, step, shape),
        Op::Gather { axis } => movement::gather(inputs[0], inputs[1], *axis, shape),
        Op::Expand { .. } => movement::expand(name, inputs[0], &shape),
        Op::Where => movement::select(inputs, shape, precision),
        Op::Pad { before, value, .. } => movement::pad(inputs[0], before, *value, shape),
        Op::Reduce { kind, axes, .. } => {
            reduce::reduce(name, inputs[0], *kind, axes, shape, precision)
        }
        Op::ArgMax { axis, .. } => reduce::arg_max(inputs[0], *axis, shape),
        Op::Pool { kind, window } => pool::pool(name, inputs[0], *kind, window, shape, precision),
        Op::Resize { mode, .. } => pool::resize(inputs[0], *mode, shape, precision),
        Op::Host(..) => Err(KernelError::Host(name)),
    }
}

/// Run a convolution or a matrix product with a bias, as the NPU runs one by a constant: where the depth is cut (at channels of
/// the input, ascending), the sum so far is rounded and added, rounded again, to that of the pieces before. The bias goes
/// with the first piece.
///
/// # Errors
/// As [`evaluate`], another operator, or cuts that do not lie within the channels in order.
pub fn evaluate_weighted(
    op: &Op,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cuts: &[usize],
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    let axis = if *op == Op::MatMul { weight.shape().len().checked_sub(2) } else { Some(1) };
    let channels = axis.and_then(|axis| weight.shape().get(axis)).copied().unwrap_or(0);
    if !cuts.is_sorted_by(|a, b| a < b) || cuts.iter().any(|cut| !(1..channels).contains(cut)) {
        return Err(KernelError::shape(
            op.name(),
            format!("cuts at {cuts:?} of {channels} channels"),
        ));
    }
    match op {
        Op::Conv { window, group } => {
            let values: Vec<Value> = inputs.iter().map(|t| described(t)).collect();
            let (_, shape) = infer(op, &values.iter().collect::<Vec<_>>())?;
            conv::conv(&inputs, window, *group, cuts, shape, precision)
        }
        Op::MatMul => matmul::matmul(x, weight, bias, cuts, precision),
        _ => Err(KernelError::shape(op.name(), "no convolution or matrix product".to_owned())),
    }
}

fn described(tensor: &Tensor) -> Value {
    let dtype = if tensor.dtype().is_float() { DType::F32 } else { tensor.dtype() };
    Value { name: String::new(), dtype, shape: tensor.shape().to_vec(), constant: None }
}
