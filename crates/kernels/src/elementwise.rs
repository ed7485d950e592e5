//! Functions of one or two inputs, element by element, and casts.

use crate::data::{BLOCK, Source, fill, integer_tensor, integers};
use crate::exp::{erf, sigmoid, tanh};
use crate::round::{ROUNDED, round};
use crate::walk::{Walk, broadcast_strides};
use crate::{KernelError, Precision};
use rayon::prelude::*;
use rockshard_graph::{Binary, Unary};
use rockshard_tensor::{DType, Tensor};

/// Apply a function to every real value.
fn map(
    op: &'static str,
    x: &Tensor,
    precision: Precision,
    apply: impl Fn(&mut [f32]) + Sync,
) -> Result<Tensor, KernelError> {
    let source = Source::new(op, 0, x, precision)?;
    Ok(fill(precision, x.shape().to_vec(), BLOCK, |start, out| {
        source.read(start, out);
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || apply(out),
        );
    }))
}

/// Turns a scalar expression into a loop over a slice that the compiler can vectorise.
macro_rules! each {
    (|$x:ident| $value:expr) => {
        |values: &mut [f32]| {
            for $x in values.iter_mut() {
                let $x: &mut f32 = $x;
                *$x = {
                    let $x = *$x;
                    $value
                };
            }
        }
    };
}

pub(crate) fn unary(
    op: &'static str,
    function: Unary,
    x: &Tensor,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    if !x.dtype().is_float() {
        return integer_unary(op, function, x);
    }
    match function {
        Unary::Neg => map(op, x, precision, each!(|v| -v)),
        Unary::Abs => map(op, x, precision, each!(|v| v.abs())),
        Unary::Sqrt => map(op, x, precision, each!(|v| v.sqrt())),
        Unary::Reciprocal => map(op, x, precision, each!(|v| 1.0 / v)),
        Unary::Exp => map(op, x, precision, each!(|v| v.exp())),
        Unary::Log => map(op, x, precision, each!(|v| v.ln())),
        Unary::Sin => map(op, x, precision, each!(|v| v.sin())),
        Unary::Cos => map(op, x, precision, each!(|v| v.cos())),
        Unary::Tanh => map(op, x, precision, each!(|v| v.tanh())),
        Unary::Sigmoid => map(op, x, precision, each!(|v| sigmoid(v))),
        Unary::Erf => map(op, x, precision, each!(|v| erf(v))),
        // A comparison, not `max`, so that NaN stays NaN.
        Unary::Relu => map(op, x, precision, each!(|v| if v < 0.0 { 0.0 } else { v })),
        Unary::LeakyRelu(slope) => {
            map(op, x, precision, each!(|v| if v < 0.0 { slope * v } else { v }))
        }
        Unary::Elu(alpha) => {
            map(op, x, precision, each!(|v| if v < 0.0 { alpha * v.exp_m1() } else { v }))
        }
        // Without overflow for large values.
        Unary::Softplus => map(op, x, precision, each!(|v| v.max(0.0) + (-v.abs()).exp().ln_1p())),
        Unary::HardSigmoid { alpha, beta } => {
            map(op, x, precision, each!(|v| (alpha * v + beta).clamp(0.0, 1.0)))
        }
        Unary::HardSwish => map(op, x, precision, each!(|v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0))),
        Unary::Floor => map(op, x, precision, each!(|v| v.floor())),
        Unary::Ceil => map(op, x, precision, each!(|v| v.ceil())),
        Unary::Round => map(op, x, precision, each!(|v| v.round_ties_even())),
        Unary::Sign => map(
            op,
            x,
            precision,
            each!(|v| if v > 0.0 {
                1.0
            } else if v < 0.0 {
                -1.0
            } else {
                v
            }),
        ),
        Unary::Not => Err(KernelError::Type { op, input: 0, found: x.dtype(), expected: "bool" }),
    }
}

fn integer_unary(op: &'static str, function: Unary, x: &Tensor) -> Result<Tensor, KernelError> {
    let apply: fn(i64) -> i64 = match function {
        Unary::Neg => i64::wrapping_neg,
        Unary::Abs => i64::wrapping_abs,
        Unary::Relu => |v| v.max(0),
        Unary::Floor | Unary::Ceil | Unary::Round => |v| v,
        Unary::Sign => i64::signum,
        Unary::Not if x.dtype() == DType::Bool => |v| 1 - v,
        _ => {
            return Err(KernelError::Type {
                op,
                input: 0,
                found: x.dtype(),
                expected: "real numbers",
            });
        }
    };
    Ok(integer_tensor(
        x.dtype(),
        x.shape().to_vec(),
        integers(op, 0, x)?.iter().map(|&v| apply(v)).collect(),
    ))
}

/// `x * sigmoid(beta x)`.
pub(crate) fn swish(x: &Tensor, beta: f32, precision: Precision) -> Result<Tensor, KernelError> {
    map("Swish", x, precision, each!(|v| v * sigmoid(beta * v)))
}

/// `x/2 (1 + erf(x / sqrt 2))`, or with `tanh` `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, of which the NPU rounds every step.
pub(crate) fn gelu(x: &Tensor, tanh: bool, precision: Precision) -> Result<Tensor, KernelError> {
    if tanh && precision == Precision::F16 {
        map("Gelu", x, precision, |values| values.chunks_mut(ROUNDED).for_each(gelu_in_steps))
    } else if tanh {
        // x/2 (1 + tanh u) = x sigmoid(2u).
        map("Gelu", x, precision, each!(|v| v * sigmoid(1.595_769 * (v + 0.044_715 * v * v * v))))
    } else {
        map("Gelu", x, precision, each!(|v| 0.5 * v * (1.0 + erf(v / std::f32::consts::SQRT_2))))
    }
}

/// The tanh form of GELU as the vendor's compiler runs it, an operator a step, with its constants in float16.
fn gelu_in_steps(values: &mut [f32]) {
    let mut inner = [0.0; ROUNDED];
    let inner = &mut inner[..values.len()];
    let mut step = |apply: fn(f32, f32) -> f32| {
        inner.iter_mut().zip(&*values).for_each(|(u, &x)| *u = apply(*u, x));
        round(inner, Precision::F16);
    };
    step(|_, x| x * x * x);
    step(|u, _| u * 0.044_708_252);
    step(|u, x| u + x);
    step(|u, _| u * 0.797_851_56);
    step(|u, _| tanh(u));
    step(|u, _| u + 1.0);
    step(|u, x| u * x);
    values.iter_mut().zip(inner).for_each(|(x, u)| *x = 0.5 * *u);
}

pub(crate) fn clip(
    x: &Tensor,
    min: f32,
    max: f32,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    if x.dtype().is_float() {
        // Comparisons keep NaN and take any bounds.
        return map(
            "Clip",
            x,
            precision,
            each!(|v| {
                let v = if v < min { min } else { v };
                if v > max { max } else { v }
            }),
        );
    }
    let limited =
        integers("Clip", 0, x)?.iter().map(|&v| v.max(min as i64).min(max as i64)).collect();
    Ok(integer_tensor(x.dtype(), x.shape().to_vec(), limited))
}

pub(crate) fn cast(x: &Tensor, to: DType, precision: Precision) -> Result<Tensor, KernelError> {
    let float = if to == DType::F16 { DType::F16 } else { precision.dtype() };
    let failed = |e| KernelError::value("Cast", e);
    let shape = x.shape().to_vec();
    match (x.dtype().is_float(), to.is_float()) {
        (true, true) => x.to_float(float).map_err(failed),
        (false, true) => {
            let values = integers("Cast", 0, x)?.iter().map(|&v| v as f32).collect();
            Tensor::from_f32(shape, values).to_float(float).map_err(failed)
        }
        (false, false) => Ok(integer_tensor(to, shape, integers("Cast", 0, x)?.into_owned())),
        (true, false) => {
            let values = x.to_f32().map_err(failed)?;
            let whole = |v: f32| match to {
                DType::Bool => i64::from(v != 0.0),
                DType::I32 => i64::from(v as i32),
                _ => v as i64,
            };
            Ok(integer_tensor(to, shape, values.iter().map(|&v| whole(v)).collect()))
        }
    }
}

/// Two inputs that broadcast to `shape`; `dtype` is the inferred output type.
pub(crate) fn binary(
    op: &'static str,
    function: Binary,
    a: &Tensor,
    b: &Tensor,
    dtype: DType,
    shape: Vec<usize>,
    precision: Precision,
) -> Result<Tensor, KernelError> {
    let walk = Walk::new(
        &shape,
        [broadcast_strides(a.shape(), &shape), broadcast_strides(b.shape(), &shape)],
    );
    let count: usize = shape.iter().product();
    if !a.dtype().is_float() && !b.dtype().is_float() {
        let (a, b) = (integers(op, 0, a)?, integers(op, 1, b)?);
        let mut out = Vec::with_capacity(count);
        let mut failed = None;
        walk.visit(0, count, |_, n, [i, j]| {
            for k in 0..n {
                match integer_binary(function, a[i + k * walk.step[0]], b[j + k * walk.step[1]]) {
                    Ok(value) => out.push(value),
                    Err(problem) => {
                        failed = Some(problem);
                        out.push(0);
                    }
                }
            }
        });
        return match failed {
            Some(problem) => Err(KernelError::value(op, problem)),
            None => Ok(integer_tensor(dtype, shape, out)),
        };
    }
    // ONNX lets the exponent of a real power be an integer.
    let exponent;
    let b = match function {
        Binary::Pow if !b.dtype().is_float() => {
            exponent = cast(b, DType::F32, precision)?;
            &exponent
        }
        _ => b,
    };
    let (x, y) = (Source::new(op, 0, a, precision)?, Source::new(op, 1, b, precision)?);
    let block = |start: usize, out: &mut [f32]| {
        let mut right = [0.0f32; 1024];
        walk.visit(start, out.len(), |done, n, [i, j]| {
            for from in (0..n).step_by(right.len()) {
                let n = (n - from).min(right.len());
                let (out, right) = (&mut out[done + from..][..n], &mut right[..n]);
                load(&x, i + from * walk.step[0], walk.step[0], out);
                load(&y, j + from * walk.step[1], walk.step[1], right);
                float_binary(function, out, right);
            }
        });
    };
    if !function.is_logic() {
        return Ok(fill(precision, shape, BLOCK, block));
    }
    let mut out = vec![false; count];
    out.par_chunks_mut(BLOCK).enumerate().for_each_init(Vec::new, |scratch, (i, out)| {
        scratch.resize(out.len(), 0.0);
        block(i * BLOCK, scratch);
        out.iter_mut().zip(scratch).for_each(|(out, v)| *out = *v != 0.0);
    });
    Ok(Tensor::from_bool(shape, out))
}

/// Fill `out` with values that lie `step` elements apart.
fn load(source: &Source<'_>, at: usize, step: usize, out: &mut [f32]) {
    match step {
        0 => out.fill(source.get(at)),
        1 => source.read(at, out),
        _ => out.iter_mut().enumerate().for_each(|(k, v)| *v = source.get(at + k * step)),
    }
}

/// `left[i] = f(left[i], right[i])`; comparisons give 1 or 0.
fn float_binary(function: Binary, left: &mut [f32], right: &[f32]) {
    fn zip(left: &mut [f32], right: &[f32], f: impl Fn(f32, f32) -> f32) {
        left.iter_mut().zip(right).for_each(|(a, &b)| *a = f(*a, b));
    }
    let truth = |v: bool| f32::from(u8::from(v));
    match function {
        Binary::Add => zip(left, right, |a, b| a + b),
        Binary::Sub => zip(left, right, |a, b| a - b),
        Binary::Mul => zip(left, right, |a, b| a * b),
        Binary::Div => zip(left, right, |a, b| a / b),
        Binary::Pow => zip(left, right, power),
        // Comparisons, so that a NaN on the left stays and one on the right is taken.
        Binary::Min => zip(left, right, |a, b| if a < b || a.is_nan() { a } else { b }),
        Binary::Max => zip(left, right, |a, b| if a > b || a.is_nan() { a } else { b }),
        // The remainder takes the divisor's sign.
        Binary::Mod => zip(left, right, |a, b| {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }),
        Binary::Equal => zip(left, right, |a, b| truth(a == b)),
        Binary::Less => zip(left, right, |a, b| truth(a < b)),
        Binary::LessOrEqual => zip(left, right, |a, b| truth(a <= b)),
        Binary::Greater => zip(left, right, |a, b| truth(a > b)),
        Binary::GreaterOrEqual => zip(left, right, |a, b| truth(a >= b)),
        Binary::And => zip(left, right, |a, b| truth(a != 0.0 && b != 0.0)),
        Binary::Or => zip(left, right, |a, b| truth(a != 0.0 || b != 0.0)),
    }
}

/// Power with the common exponents exact.
fn power(a: f32, b: f32) -> f32 {
    match b {
        1.0 => a,
        2.0 => a * a,
        3.0 => a * a * a,
        0.5 => a.sqrt(),
        -1.0 => 1.0 / a,
        _ => a.powf(b),
    }
}

/// Integer arithmetic wraps; division truncates; the remainder takes the divisor's sign (ONNX `Mod` with `fmod = 0`).
fn integer_binary(function: Binary, a: i64, b: i64) -> Result<i64, &'static str> {
    if b == 0 && matches!(function, Binary::Div | Binary::Mod) {
        return Err("division of an integer by zero");
    }
    Ok(match function {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div => a.wrapping_div(b),
        Binary::Mod => {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
        Binary::Pow => {
            a.wrapping_pow(u32::try_from(b).map_err(|_| "a negative power of an integer")?)
        }
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Equal => i64::from(a == b),
        Binary::Less => i64::from(a < b),
        Binary::LessOrEqual => i64::from(a <= b),
        Binary::Greater => i64::from(a > b),
        Binary::GreaterOrEqual => i64::from(a >= b),
        Binary::And => i64::from(a != 0 && b != 0),
        Binary::Or => i64::from(a != 0 || b != 0),
    })
}
