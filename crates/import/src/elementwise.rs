//! Functions of one or more inputs, element by element.

use crate::attributes::Attributes;
use crate::operators::Context;
use crate::{Problem, given};
use rockshard_graph::{Binary, Op, Unary, ValueId};
use rockshard_onnx::schema::tensor_proto::DataType;
use rockshard_tensor::{DType, Tensor};

/// Whether an operator of the standard domain is imported here.
pub(crate) fn is_one(op: &str) -> bool {
    const OTHERS: [&str; 18] = [
        "Identity",
        "Dropout",
        "Constant",
        "Cast",
        "CastLike",
        "Sum",
        "Mean",
        "Clip",
        "Gelu",
        "PRelu",
        "Mish",
        "Selu",
        "Celu",
        "Swish",
        "Softsign",
        "ThresholdedRelu",
        "Xor",
        "Shrink",
    ];
    binary(op).is_some() || OTHERS.contains(&op) || UNARY.contains(&op)
}

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    if let Some(unary) = unary(op, &c.attributes) {
        return c.apply(Op::Unary(unary));
    }
    if let Some(binary) = binary(op) {
        return match (op, c.inputs.len()) {
            ("Min" | "Max", 1) => identity(c),
            ("Min" | "Max", 3..) => chain(c, binary),
            ("Mod", _) if c.attributes.int("fmod", 0) != 0 => truncated_rest(c),
            ("Pow", _) => pow(c),
            ("Equal", _) if given::is_empty_picture(c)? => Ok(()),
            _ => c.apply(Op::Binary(binary)),
        };
    }
    match op {
        "Identity" => identity(c),
        "Dropout" => dropout(c),
        "Constant" => constant(c),
        "Cast" => cast(c),
        "CastLike" => cast_like(c),
        "Sum" => chain(c, Binary::Add),
        "Mean" => mean(c),
        "Clip" => clip(c),
        "Xor" => xor(c),
        "Gelu" => {
            let tanh = c.attributes.text("approximate", "none") == "tanh";
            c.apply(Op::Gelu { tanh })
        }
        "Swish" => {
            let beta = c.attributes.float("alpha", 1.0);
            c.apply(Op::Swish { beta })
        }
        _ => activation(c, op),
    }
}

/// Activations that are written out in others.
fn activation(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    let x = c.input(0)?;
    match op {
        "PRelu" => {
            let slope = c.input(1)?;
            let zero = c.filled(&[], 0.0)?;
            let positive = c.step("positive", Op::Unary(Unary::Relu), &[x])?;
            let negative = c.binary("negative", Binary::Min, x, zero)?;
            let leak = c.binary("leak", Binary::Mul, negative, slope)?;
            c.finish(Op::Binary(Binary::Add), &[positive, leak])
        }
        "Mish" => {
            let soft = c.step("soft", Op::Unary(Unary::Softplus), &[x])?;
            let gate = c.step("gate", Op::Unary(Unary::Tanh), &[soft])?;
            c.finish(Op::Binary(Binary::Mul), &[x, gate])
        }
        "Selu" => {
            let alpha = c.attributes.float("alpha", 1.673_263_2);
            let gamma = c.attributes.float("gamma", 1.050_701);
            let unit = c.step("unit", Op::Unary(Unary::Elu(alpha)), &[x])?;
            let gamma = c.filled(&[], gamma)?;
            c.finish(Op::Binary(Binary::Mul), &[unit, gamma])
        }
        "Celu" => {
            let alpha = c.attributes.float("alpha", 1.0);
            let over = c.with_number("over", Binary::Div, x, alpha)?;
            let unit = c.step("unit", Op::Unary(Unary::Elu(1.0)), &[over])?;
            let alpha = c.filled(&[], alpha)?;
            c.finish(Op::Binary(Binary::Mul), &[unit, alpha])
        }
        "Softsign" => {
            let size = c.step("size", Op::Unary(Unary::Abs), &[x])?;
            let below = c.with_number("below", Binary::Add, size, 1.0)?;
            c.finish(Op::Binary(Binary::Div), &[x, below])
        }
        "ThresholdedRelu" => {
            let alpha = c.attributes.float("alpha", 1.0);
            let above = c.with_number("above", Binary::Greater, x, alpha)?;
            let zero = c.filled(&[], 0.0)?;
            c.finish(Op::Where, &[above, x, zero])
        }
        _ => shrink(c, x),
    }
}

/// Towards zero by the bias beyond a threshold, zero within it.
fn shrink(c: &mut Context<'_, '_>, x: ValueId) -> Result<(), Problem> {
    let (bias, lambda) = (c.attributes.float("bias", 0.0), c.attributes.float("lambd", 0.5));
    let below = c.with_number("below", Binary::Less, x, -lambda)?;
    let above = c.with_number("above", Binary::Greater, x, lambda)?;
    let (low, high) =
        (c.with_number("low", Binary::Add, x, bias)?, c.with_number("high", Binary::Sub, x, bias)?);
    let zero = c.filled(&[], 0.0)?;
    let upper = c.step("upper", Op::Where, &[above, high, zero])?;
    c.finish(Op::Where, &[below, low, upper])
}

/// Functions of one input that graphs have themselves.
const UNARY: [&str; 22] = [
    "Neg",
    "Abs",
    "Sqrt",
    "Reciprocal",
    "Exp",
    "Log",
    "Sin",
    "Cos",
    "Tanh",
    "Sigmoid",
    "Erf",
    "Relu",
    "LeakyRelu",
    "Elu",
    "Softplus",
    "HardSigmoid",
    "HardSwish",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Not",
];

fn unary(op: &str, attributes: &Attributes<'_>) -> Option<Unary> {
    Some(match op {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Tanh" => Unary::Tanh,
        "Sigmoid" => Unary::Sigmoid,
        "Erf" => Unary::Erf,
        "Relu" => Unary::Relu,
        "LeakyRelu" => Unary::LeakyRelu(attributes.float("alpha", 0.01)),
        "Elu" => Unary::Elu(attributes.float("alpha", 1.0)),
        "Softplus" => Unary::Softplus,
        "HardSigmoid" => Unary::HardSigmoid {
            alpha: attributes.float("alpha", 0.2),
            beta: attributes.float("beta", 0.5),
        },
        "HardSwish" => Unary::HardSwish,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Sign" => Unary::Sign,
        "Not" => Unary::Not,
        _ => return None,
    })
}

fn binary(op: &str) -> Option<Binary> {
    Some(match op {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        "Mod" => Binary::Mod,
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "And" => Binary::And,
        "Or" => Binary::Or,
        _ => return None,
    })
}

fn identity(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    c.alias(x)
}

/// The input as it is; its mask keeps everything.
fn dropout(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    if let Some(training) = c.optional(2)
        && c.walk.integers(training, "the training mode")?.first().is_some_and(|&t| t != 0)
    {
        return Err(Problem::Form("training mode has no meaning here".into()));
    }
    if c.has_output(1) && c.opset < 12 {
        return Err(Problem::Form("its mask is not supported before opset 12".into()));
    }
    if c.has_output(1) {
        let shape = c.walk.shape(x).to_vec();
        let count = shape.iter().product();
        c.walk.spend(count)?;
        let mask = c.constant("mask", Tensor::from_bool(shape, vec![true; count]));
        c.bind_output(1, mask);
    }
    c.alias(x)
}

fn chain(c: &mut Context<'_, '_>, binary: Binary) -> Result<(), Problem> {
    let mut sum = c.input(0)?;
    let count = c.inputs.len();
    if count == 1 {
        return identity(c);
    }
    for i in 1..count - 1 {
        let next = c.input(i)?;
        sum = c.step("part", Op::Binary(binary), &[sum, next])?;
    }
    let last = c.input(count - 1)?;
    c.finish(Op::Binary(binary), &[sum, last])
}

fn mean(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let mut sum = c.input(0)?;
    let count = c.inputs.len();
    for i in 1..count {
        let next = c.input(i)?;
        sum = c.binary("part", Binary::Add, sum, next)?;
    }
    let count = c.filled(&[], count as f32)?;
    c.finish(Op::Binary(Binary::Div), &[sum, count])
}

/// Whether two bools differ.
fn xor(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let same = c.binary("same", Binary::Equal, a, b)?;
    c.finish(Op::Unary(Unary::Not), &[same])
}

/// The remainder with the sign of the dividend: that of the magnitudes, with its sign.
fn truncated_rest(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let (size, by) =
        (c.step("size", Op::Unary(Unary::Abs), &[a])?, c.step("by", Op::Unary(Unary::Abs), &[b])?);
    let rest = c.binary("rest", Binary::Mod, size, by)?;
    let opposite = c.step("opposite", Op::Unary(Unary::Neg), &[rest])?;
    let zero = match c.walk.value(a).dtype {
        DType::I64 => Tensor::from_i64([], vec![0]),
        DType::I32 => Tensor::from_i32([], vec![0]),
        _ => Tensor::scalar(0.0),
    };
    let zero = c.constant("zero", zero);
    let negative = c.binary("negative", Binary::Less, a, zero)?;
    c.finish(Op::Where, &[negative, opposite, rest])
}

/// The exponent may have another type than the base; the result has the base's.
fn pow(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (base, mut exponent) = (c.input(0)?, c.input(1)?);
    let to = c.walk.value(base).dtype;
    if c.walk.value(exponent).dtype != to {
        exponent = c.step("exponent", Op::Cast(to), &[exponent])?;
    }
    c.finish(Op::Binary(Binary::Pow), &[base, exponent])
}

fn constant(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let attribute = c.attributes.value().ok_or_else(|| Problem::Form("has no value".into()))?;
    let tensor = match attribute.name.as_deref().unwrap_or_default() {
        "value" => c.walk.model.tensor(
            attribute.t.as_ref().ok_or_else(|| Problem::Form("value is no tensor".into()))?,
        )?,
        "value_float" => Tensor::scalar(attribute.f.unwrap_or_default()),
        "value_floats" => Tensor::from_f32([attribute.floats.len()], attribute.floats.clone()),
        "value_int" => Tensor::from_i64([], vec![attribute.i.unwrap_or_default()]),
        "value_ints" => Tensor::from_i64([attribute.ints.len()], attribute.ints.clone()),
        other => return Err(Problem::Form(format!("{other} is not supported"))),
    };
    c.walk.bind_constant(c.output, tensor)
}

/// A cast between real types disappears: all real values are float32, and the NPU decides where they are rounded.
fn cast(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let code = c.attributes.int("to", 0);
    let to = match i32::try_from(code).ok().and_then(|v| DataType::try_from(v).ok()) {
        Some(DataType::Float | DataType::Float16 | DataType::Double | DataType::Bfloat16) => {
            DType::F32
        }
        Some(DataType::Int64) => DType::I64,
        Some(DataType::Int32) => DType::I32,
        Some(DataType::Bool) => DType::Bool,
        // Small integers hold what a bool is; of other values the cast would have to wrap.
        Some(
            DataType::Uint8
            | DataType::Int8
            | DataType::Int16
            | DataType::Uint16
            | DataType::Uint32,
        ) if c.walk.value(x).dtype == DType::Bool || c.walk.constant(x).is_some() => DType::I32,
        _ => return Err(Problem::Form(format!("cast to element type {code} is not supported"))),
    };
    if c.walk.value(x).dtype == to { c.alias(x) } else { c.finish(Op::Cast(to), &[x]) }
}

fn cast_like(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (x, to) = (c.input(0)?, c.walk.value(c.input(1)?).dtype);
    if to == c.walk.value(x).dtype { c.alias(x) } else { c.finish(Op::Cast(to), &[x]) }
}

/// Limits that are constant numbers; others as a maximum and a minimum.
fn clip(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let bound = |c: &Context<'_, '_>, id: Option<ValueId>, default: f32| match id {
        None => Some(default),
        Some(id) => c.walk.number(id).map(|v| v as f32),
    };
    let (low, high) = (c.optional(1), c.optional(2));
    if let (Some(min), Some(max)) =
        (bound(c, low, f32::NEG_INFINITY), bound(c, high, f32::INFINITY))
    {
        return c.finish(Op::Clip { min, max }, &[x]);
    }
    let mut value = x;
    for (limit, binary) in [(low, Binary::Max), (high, Binary::Min)] {
        if let Some(limit) = limit {
            value = c.binary("limited", binary, value, limit)?;
        }
    }
    c.alias(value)
}
