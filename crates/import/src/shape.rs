//! Operators that read or make shapes, and other shapes for the same elements.

use crate::Problem;
use crate::attributes::axis;
use crate::operators::Context;
use crate::walk::{LARGEST_RANK, check_shape};
use rockshard_graph::Op;
use rockshard_tensor::{DType, Tensor};

/// Whether an operator of the standard domain is imported here.
pub(crate) fn is_one(op: &str) -> bool {
    matches!(
        op,
        "Shape"
            | "Size"
            | "ConstantOfShape"
            | "Range"
            | "Reshape"
            | "Flatten"
            | "Squeeze"
            | "Unsqueeze"
            | "Expand"
            | "EyeLike"
    )
}

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    match op {
        "Shape" => shape(c),
        "Size" => {
            let x = c.input(0)?;
            let count = c.walk.value(x).count() as i64;
            c.walk.bind_constant(c.output, Tensor::from_i64([], vec![count]))
        }
        "ConstantOfShape" => constant_of_shape(c),
        "Range" => range(c),
        "Reshape" => reshape(c),
        "Flatten" => flatten(c),
        "Squeeze" => squeeze(c),
        "Unsqueeze" => unsqueeze(c),
        "Expand" => expand(c),
        _ => eye_like(c),
    }
}

/// Ones on a diagonal.
fn eye_like(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let &[rows, columns] = c.walk.shape(x) else {
        return Err(Problem::Form("needs a matrix".into()));
    };
    c.walk.spend(rows.saturating_mul(columns))?;
    let k = c.attributes.int("k", 0);
    let one = |i: usize| i64::from((i % columns) as i64 - (i / columns) as i64 == k);
    let ones = (0..rows * columns).map(one);
    let dtype = match c.attributes.int("dtype", 0) {
        0 => c.walk.value(x).dtype,
        1 | 10 | 11 | 16 => DType::F32,
        9 => DType::Bool,
        6 => DType::I32,
        _ => DType::I64,
    };
    let tensor = match dtype {
        DType::F32 | DType::F16 => {
            Tensor::from_f32([rows, columns], ones.map(|v| v as f32).collect())
        }
        DType::Bool => Tensor::from_bool([rows, columns], ones.map(|v| v != 0).collect()),
        DType::I32 => Tensor::from_i32([rows, columns], ones.map(|v| v as i32).collect()),
        DType::I64 => Tensor::from_i64([rows, columns], ones.collect()),
    };
    c.walk.bind_constant(c.output, tensor)
}

fn flatten(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let at = match c.attributes.int("axis", 1) {
        a if a == dims.len() as i64 => dims.len(),
        a => axis(a, dims.len())?,
    };
    let shape = vec![dims[..at].iter().product(), dims[at..].iter().product()];
    c.finish(Op::Reshape { shape }, &[x])
}

fn shape(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims: Vec<i64> = c.walk.shape(x).iter().map(|&d| d as i64).collect();
    let bound = |v: i64| {
        (if v < 0 { v + dims.len() as i64 } else { v }).clamp(0, dims.len() as i64) as usize
    };
    let (start, end) =
        (bound(c.attributes.int("start", 0)), bound(c.attributes.int("end", dims.len() as i64)));
    let part = dims.get(start..end).unwrap_or(&[]).to_vec();
    c.walk.bind_constant(c.output, Tensor::from_i64([part.len()], part))
}

/// A constant of one element, to be broadcast.
fn constant_of_shape(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let target = target(c, 0, "the shape")?;
    let value = match c.attributes.tensor("value") {
        Some(proto) => {
            c.walk.model.tensor(proto)?.reshape([]).map_err(|e| Problem::Form(e.to_string()))?
        }
        None => Tensor::scalar(0.0),
    };
    let name = c.walk.fresh(c.output);
    let value = c.walk.graph.add_constant(name, value);
    c.finish(Op::Expand { shape: target }, &[value])
}

/// Extents that are constant.
pub(crate) fn target(
    c: &Context<'_, '_>,
    input: usize,
    what: &'static str,
) -> Result<Vec<usize>, Problem> {
    let values = c.walk.integers(c.input(input)?, what)?;
    let negative = |_| Problem::Form(format!("{what} {values:?} has a negative extent"));
    values.iter().map(|&v| usize::try_from(v)).collect::<Result<_, _>>().map_err(negative)
}

fn range(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    const LARGEST: f64 = 1e7;
    let number = |i: usize| -> Result<f64, Problem> {
        c.walk.number(c.input(i)?).ok_or(Problem::DataDependent("a bound"))
    };
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    if count > LARGEST {
        return Err(Problem::Form(format!(
            "from {start} to {limit} by {delta} is not a finite range below {LARGEST}"
        )));
    }
    c.walk.spend(count as usize)?;
    let values = (0..count as usize).map(|i| start + i as f64 * delta);
    let tensor = match c.walk.value(c.input(0)?).dtype {
        DType::F32 => Tensor::from_f32([count as usize], values.map(|v| v as f32).collect()),
        DType::I32 => Tensor::from_i32([count as usize], values.map(|v| v as i32).collect()),
        _ => Tensor::from_i64([count as usize], values.map(|v| v as i64).collect()),
    };
    c.walk.bind_constant(c.output, tensor)
}

fn reshape(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let wanted = c.walk.integers(c.input(1)?, "the target shape")?;
    let keep_zero = c.attributes.int("allowzero", 0) != 0;
    let bad = || Problem::Form(format!("{dims:?} to {wanted:?}"));
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &w) in wanted.iter().enumerate() {
        shape.push(match w {
            -1 if open.replace(i).is_none() => 1,
            0 if !keep_zero => *dims.get(i).ok_or_else(bad)?,
            _ => usize::try_from(w).map_err(|_| bad())?,
        });
    }
    check_shape(&shape)?;
    if let Some(i) = open {
        let rest: usize = shape.iter().product();
        shape[i] = dims.iter().product::<usize>().checked_div(rest).ok_or_else(bad)?;
    }
    c.finish(Op::Reshape { shape }, &[x])
}

fn axes(c: &Context<'_, '_>, rank: usize) -> Result<Option<Vec<usize>>, Problem> {
    let given = match c.optional(1) {
        Some(id) => Some(c.walk.integers(id, "axes")?),
        None => c.attributes.ints("axes").map(<[i64]>::to_vec),
    };
    given.map(|list| list.into_iter().map(|a| axis(a, rank)).collect()).transpose()
}

fn squeeze(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let axes = axes(c, dims.len())?;
    let gone = |i: usize| axes.as_ref().map_or(dims[i] == 1, |a| a.contains(&i));
    let shape = (0..dims.len()).filter(|&i| !gone(i)).map(|i| dims[i]).collect();
    c.finish(Op::Reshape { shape }, &[x])
}

fn unsqueeze(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let dims = c.walk.shape(x).to_vec();
    let count = match c.optional(1) {
        Some(id) => c.walk.value(id).count(),
        None => c.attributes.ints("axes").map_or(0, <[i64]>::len),
    };
    let rank = dims.len() + count;
    check_shape(&vec![1; rank.min(LARGEST_RANK + 1)])?;
    let axes = axes(c, rank)?.unwrap_or_default();
    let mut rest = dims.into_iter();
    let shape =
        (0..rank).map(|i| if axes.contains(&i) { 1 } else { rest.next().unwrap_or(1) }).collect();
    c.finish(Op::Reshape { shape }, &[x])
}

fn expand(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    let target = target(c, 1, "the target shape")?;
    let shape = rockshard_graph::broadcast(c.walk.shape(x), &target)
        .ok_or_else(|| Problem::Form(format!("{:?} to {target:?}", c.walk.shape(x))))?;
    if shape == c.walk.shape(x) {
        c.walk.bind(c.output, x);
        return Ok(());
    }
    c.finish(Op::Expand { shape }, &[x])
}
