//! Norms: those that graphs have themselves, and those that are written out in other operators.

use crate::Problem;
use crate::attributes::axis;
use crate::operators::Context;
use rockshard_graph::{Binary, Op, Reduce, Unary, ValueId};

/// Whether an operator of the standard domain is imported here.
pub(crate) fn is_one(op: &str) -> bool {
    matches!(
        op,
        "Softmax"
            | "LogSoftmax"
            | "LayerNormalization"
            | "RMSNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "BatchNormalization"
            | "LpNormalization"
            | "MeanVarianceNormalization"
    )
}

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "Softmax" => softmax(c, false),
        "LogSoftmax" => softmax(c, true),
        "LayerNormalization" => {
            let (x, gamma) = (c.input(0)?, c.input(1)?);
            let beta = c.optional(2);
            let out = layer_norm(c, x, gamma, beta)?;
            c.alias(out)
        }
        "RMSNormalization" => {
            let (x, gamma) = (c.input(0)?, c.input(1)?);
            let out = rms_norm(c, x, gamma, 1e-5)?;
            c.alias(out)
        }
        "InstanceNormalization" => instance_norm(c),
        "GroupNormalization" => group_norm(c),
        "BatchNormalization" => batch_norm(c),
        "LpNormalization" => lp_norm(c),
        _ => standardise(c),
    }
}

/// Before opset 13 the axes from the named one on are one.
fn softmax(c: &mut Context<'_, '_>, log: bool) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let old = c.opset < 13;
    let mut at = axis(c.attributes.int("axis", if old { 1 } else { -1 }), dims.len().max(1))?;
    let joined = old && at + 1 != dims.len();
    let mut value = x;
    if joined {
        value = c.reshaped(x, vec![dims[..at].iter().product(), dims[at..].iter().product()])?;
        at = 1;
    }
    let result = if log {
        log_softmax(c, value, at)?
    } else if joined {
        c.step("softmax", Op::Softmax { axis: at }, &[value])?
    } else {
        return c.finish(Op::Softmax { axis: at }, &[value]);
    };
    c.finish(Op::Reshape { shape: dims }, &[result])
}

/// `x - max - log(sum(exp(x - max)))`.
fn log_softmax(c: &mut Context<'_, '_>, x: ValueId, at: usize) -> Result<ValueId, Problem> {
    let over = |kind| Op::Reduce { kind, axes: vec![at], keep: true };
    let top = c.step("top", over(Reduce::Max), &[x])?;
    let below = c.binary("below", Binary::Sub, x, top)?;
    let powers = c.step("powers", Op::Unary(Unary::Exp), &[below])?;
    let sum = c.step("sum", over(Reduce::Sum), &[powers])?;
    let log = c.step("log", Op::Unary(Unary::Log), &[sum])?;
    c.binary("result", Binary::Sub, below, log)
}

/// Axes over which a norm goes, and how its mean is taken.
fn over(c: &Context<'_, '_>, x: ValueId) -> Result<(usize, Op), Problem> {
    let rank = c.rank(x);
    let at = axis(c.attributes.int("axis", -1), rank)?;
    Ok((at, Op::Reduce { kind: Reduce::Mean, axes: (at..rank).collect(), keep: true }))
}

/// Layer norm of a value, with its mean and the inverse of its deviation as further outputs. Scale and shift may broadcast.
pub(crate) fn layer_norm(
    c: &mut Context<'_, '_>,
    x: ValueId,
    gamma: ValueId,
    beta: Option<ValueId>,
) -> Result<ValueId, Problem> {
    let epsilon = c.attributes.float("epsilon", 1e-5);
    let (at, mean) = over(c, x)?;
    let tail = c.walk.shape(x)[at..].to_vec();
    if c.has_output(1) || c.has_output(2) {
        let mean = c.step("mean", mean, &[x])?;
        let inverse = inverse_deviation(c, x, mean, at, epsilon)?;
        c.bind_output(1, mean);
        c.bind_output(2, inverse);
    }
    let same = |c: &Context<'_, '_>, v: ValueId| c.walk.shape(v) == tail;
    if same(c, gamma) && beta.is_none_or(|b| same(c, b)) {
        let beta = match beta {
            Some(beta) => beta,
            None => c.filled(&tail, 0.0)?,
        };
        return c.step("normal", Op::LayerNorm { axis: at, epsilon }, &[x, gamma, beta]);
    }
    let (ones, zeros) = (c.filled(&tail, 1.0)?, c.filled(&tail, 0.0)?);
    let mut value = c.step("normal", Op::LayerNorm { axis: at, epsilon }, &[x, ones, zeros])?;
    value = c.binary("scaled", Binary::Mul, value, gamma)?;
    match beta {
        Some(beta) => c.binary("shifted", Binary::Add, value, beta),
        None => Ok(value),
    }
}

fn inverse_deviation(
    c: &mut Context<'_, '_>,
    x: ValueId,
    mean: ValueId,
    at: usize,
    epsilon: f32,
) -> Result<ValueId, Problem> {
    let axes = (at..c.rank(x)).collect();
    let difference = c.binary("difference", Binary::Sub, x, mean)?;
    let square = c.binary("square", Binary::Mul, difference, difference)?;
    let variance =
        c.step("variance", Op::Reduce { kind: Reduce::Mean, axes, keep: true }, &[square])?;
    let sum = c.with_number("sum", Binary::Add, variance, epsilon)?;
    let root = c.step("root", Op::Unary(Unary::Sqrt), &[sum])?;
    c.step("inverse", Op::Unary(Unary::Reciprocal), &[root])
}

/// `x / sqrt(mean(x^2) + epsilon) gamma`; the second of several outputs is what the norm multiplies by.
pub(crate) fn rms_norm(
    c: &mut Context<'_, '_>,
    x: ValueId,
    gamma: ValueId,
    epsilon: f32,
) -> Result<ValueId, Problem> {
    let epsilon = c.attributes.float("epsilon", epsilon);
    let (_, mean) = over(c, x)?;
    let square = c.with_number("square", Binary::Pow, x, 2.0)?;
    let mean = c.step("mean", mean, &[square])?;
    let sum = c.with_number("sum", Binary::Add, mean, epsilon)?;
    let root = c.step("root", Op::Unary(Unary::Sqrt), &[sum])?;
    let normal = c.binary("normal", Binary::Div, x, root)?;
    c.binary("scaled", Binary::Mul, normal, gamma)
}

fn instance_norm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let epsilon = c.attributes.float("epsilon", 1e-5);
    c.apply(Op::InstanceNorm { epsilon })
}

/// Opset 18 gives one scale and bias a group; they are spread over the group's channels.
fn group_norm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let groups = usize::try_from(c.attributes.int("num_groups", 0)).unwrap_or(0);
    let channels = c.walk.shape(x).get(1).copied().unwrap_or(0);
    if groups == 0 || channels % groups != 0 {
        return Err(Problem::Form(format!("{groups} groups of {channels} channels")));
    }
    let epsilon = c.attributes.float("epsilon", 1e-5);
    let mut inputs = vec![x];
    for i in 1..3 {
        let mut id = c.input(i)?;
        if c.walk.shape(id) == [groups] && groups != channels {
            let column = c.step("column", Op::Reshape { shape: vec![groups, 1] }, &[id])?;
            let spread =
                c.step("spread", Op::Expand { shape: vec![groups, channels / groups] }, &[column])?;
            id = c.step("channels", Op::Reshape { shape: vec![channels] }, &[spread])?;
        }
        inputs.push(id);
    }
    c.finish(Op::GroupNorm { groups, epsilon }, &inputs)
}

/// `x gain + shift` by channel; the gain and the shift of constant statistics are folded.
fn batch_norm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    if c.attributes.int("training_mode", 0) != 0 {
        return Err(Problem::Form(
            "training_mode has no meaning here; export the model in eval mode".into(),
        ));
    }
    let (x, scale, bias) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (mean, variance) = (c.input(3)?, c.input(4)?);
    let epsilon = c.attributes.float("epsilon", 1e-5);
    let sum = c.with_number("sum", Binary::Add, variance, epsilon)?;
    let root = c.step("root", Op::Unary(Unary::Sqrt), &[sum])?;
    let gain = c.binary("gain", Binary::Div, scale, root)?;
    let moved = c.binary("moved", Binary::Mul, mean, gain)?;
    let shift = c.binary("shift", Binary::Sub, bias, moved)?;
    let channels = c.walk.value(gain).count();
    let tail = vec![1; c.rank(x).saturating_sub(2)];
    let by_channel = [vec![channels], tail].concat();
    let gain = c.reshaped(gain, by_channel.clone())?;
    let shift = c.reshaped(shift, by_channel)?;
    let scaled = c.binary("scaled", Binary::Mul, x, gain)?;
    c.finish(Op::Binary(Binary::Add), &[scaled, shift])
}

/// `x / |x|`, by the sum of magnitudes or the root of the sum of squares.
fn lp_norm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let axes = vec![axis(c.attributes.int("axis", -1), c.rank(x))?];
    let sum = Op::Reduce { kind: Reduce::Sum, axes, keep: true };
    let size = match c.attributes.int("p", 2) {
        1 => {
            let sizes = c.step("sizes", Op::Unary(Unary::Abs), &[x])?;
            c.step("size", sum, &[sizes])?
        }
        2 => {
            let squares = c.binary("squares", Binary::Mul, x, x)?;
            let total = c.step("total", sum, &[squares])?;
            c.step("size", Op::Unary(Unary::Sqrt), &[total])?
        }
        p => return Err(Problem::Form(format!("p of {p} is not supported"))),
    };
    // Zeros stay zeros, in float16 too.
    let size = c.step("not_zero", Op::Clip { min: SMALLEST, max: f32::INFINITY }, &[size])?;
    c.finish(Op::Binary(Binary::Div), &[x, size])
}

/// float16's smallest number.
const SMALLEST: f32 = 5.960_464_5e-8;

/// `(x - mean) / deviation` over the axes.
fn standardise(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let axes = c.attributes.ints("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let axes = axes.into_iter().map(|a| axis(a, c.rank(x))).collect::<Result<Vec<_>, _>>()?;
    let over = Op::Reduce { kind: Reduce::Mean, axes, keep: true };
    let mean = c.step("mean", over.clone(), &[x])?;
    let difference = c.binary("difference", Binary::Sub, x, mean)?;
    let squares = c.binary("squares", Binary::Mul, difference, difference)?;
    let variance = c.step("variance", over, &[squares])?;
    let root = c.step("root", Op::Unary(Unary::Sqrt), &[variance])?;
    let sum = c.with_number("sum", Binary::Add, root, 1e-9)?;
    c.finish(Op::Binary(Binary::Div), &[difference, sum])
}
