//! Type and shape of what an operator gives.

use crate::{Op, Value, Window};
use rockshard_tensor::DType;

/// Inputs an operator does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {problem}")]
pub struct ShapeError {
    /// Operator.
    pub op: &'static str,
    /// What does not fit.
    pub problem: String,
}

/// numpy broadcasting of two shapes; `None` when they do not fit.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (extent(a, i), extent(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

fn window_size(size: usize, w: &Window, axis: usize) -> Option<usize> {
    let reach = w.dilations[axis].checked_mul(w.kernel[axis].checked_sub(1)?)?.checked_add(1)?;
    let padded = size.checked_add(w.pads[axis])?.checked_add(w.pads[axis + 2])?;
    Some(padded.checked_sub(reach)? / w.strides[axis].max(1) + 1)
}

/// Extent that a transposed convolution gives.
fn spread_size(size: usize, w: &Window, more: usize, axis: usize) -> Option<usize> {
    let reach = w.dilations[axis].checked_mul(w.kernel[axis].checked_sub(1)?)?.checked_add(1)?;
    let whole = w.strides[axis].checked_mul(size.checked_sub(1)?)?.checked_add(reach)?;
    whole.checked_add(more)?.checked_sub(w.pads[axis])?.checked_sub(w.pads[axis + 2])
}

/// Type and shape of an operator's output.
///
/// # Errors
/// The number, types or shapes of the inputs do not suit the operator.
pub fn infer(op: &Op, inputs: &[&Value]) -> Result<(DType, Vec<usize>), ShapeError> {
    let fail = |problem: String| Err(ShapeError { op: op.name(), problem });
    let arity = match op {
        Op::Conv { .. } | Op::ConvTranspose { .. } => 2..=3,
        Op::Attention { .. } => 3..=4,
        Op::MatMul | Op::Binary(_) | Op::Gather { .. } => 2..=2,
        Op::Where | Op::LayerNorm { .. } | Op::InstanceNorm { .. } | Op::GroupNorm { .. } => 3..=3,
        Op::Concat { .. } => 1..=usize::MAX,
        Op::Host(host, _) => host.inputs.len()..=host.inputs.len(),
        _ => 1..=1,
    };
    if !arity.contains(&inputs.len()) {
        return fail(format!("takes {arity:?} inputs, got {}", inputs.len()));
    }
    if let Op::Host(host, output) = op {
        let alike = |(value, (dtype, shape)): (&&Value, &(DType, Vec<usize>))| {
            value.dtype == *dtype && value.shape == *shape
        };
        return match host.outputs.get(*output) {
            Some(form) if inputs.iter().zip(&host.inputs).all(alike) => Ok(form.clone()),
            _ => fail(format!("was made for inputs {:?}", host.inputs)),
        };
    }
    let shapes: Vec<&[usize]> = inputs.iter().map(|v| v.shape.as_slice()).collect();
    let x = shapes[0];
    let dtype = inputs[0].dtype;
    let shape = match op {
        Op::Conv { window, group } => {
            let w = shapes[1];
            let fits = x.len() == 4
                && w.len() == 4
                && *group > 0
                && x[1] == w[1] * group
                && w[0].is_multiple_of(*group)
                && w[2..] == window.kernel;
            if !fits || shapes.get(2).is_some_and(|b| *b != [w[0]]) {
                return fail(format!("shapes {shapes:?} with {group} groups"));
            }
            match (window_size(x[2], window, 0), window_size(x[3], window, 1)) {
                (Some(h), Some(w_out)) => vec![x[0], w[0], h, w_out],
                _ => {
                    return fail(format!(
                        "kernel {:?} is larger than the padded input {x:?}",
                        window.kernel
                    ));
                }
            }
        }
        Op::ConvTranspose { window, group, more } => {
            let w = shapes[1];
            let fits = x.len() == 4
                && w.len() == 4
                && *group > 0
                && x[1] == w[0]
                && x[1].is_multiple_of(*group)
                && w[2..] == window.kernel;
            let filters = w.get(1).copied().unwrap_or(0).checked_mul(*group);
            let (Some(filters), true) = (filters, fits) else {
                return fail(format!("shapes {shapes:?} with {group} groups"));
            };
            let spread = |axis| spread_size(x[axis + 2], window, more[axis], axis);
            match (spread(0), spread(1)) {
                (Some(h), Some(w_out)) if shapes.get(2).is_none_or(|b| **b == [filters]) => {
                    vec![x[0], filters, h, w_out]
                }
                _ => return fail(format!("shapes {shapes:?} and padding {:?}", window.pads)),
            }
        }
        Op::Pool { window, .. } => {
            if x.len() != 4 {
                return fail(format!("shape {x:?} has not 4 axes"));
            }
            match (window_size(x[2], window, 0), window_size(x[3], window, 1)) {
                (Some(h), Some(w)) => vec![x[0], x[1], h, w],
                _ => {
                    return fail(format!(
                        "kernel {:?} is larger than the padded input {x:?}",
                        window.kernel
                    ));
                }
            }
        }
        Op::MatMul => match matmul(x, shapes[1]) {
            Some(shape) => shape,
            None => return fail(format!("shapes {x:?} and {:?}", shapes[1])),
        },
        Op::Attention { .. } => {
            let scores = matmul(x, shapes[1]);
            let masked = scores
                .as_ref()
                .is_some_and(|s| shapes.get(3).is_none_or(|m| broadcast(s, m).as_ref() == Some(s)));
            match scores.filter(|_| masked).and_then(|s| matmul(&s, shapes[2])) {
                Some(shape) => shape,
                None => return fail(format!("shapes {shapes:?}")),
            }
        }
        Op::Binary(_) => match broadcast(x, shapes[1]) {
            Some(shape) => shape,
            None => return fail(format!("shapes {x:?} and {:?} do not broadcast", shapes[1])),
        },
        Op::Where => match broadcast(x, shapes[1]).and_then(|s| broadcast(&s, shapes[2])) {
            Some(shape) => shape,
            None => return fail(format!("shapes {shapes:?} do not broadcast")),
        },
        Op::Softmax { axis } if *axis >= x.len() => {
            return fail(format!("axis {axis} of shape {x:?}"));
        }
        Op::LayerNorm { axis, .. } => {
            let tail = x.get(*axis..).unwrap_or(&[]);
            if tail.is_empty() || shapes[1] != tail || shapes[2] != tail {
                return fail(format!("axis {axis} with shapes {shapes:?}"));
            }
            x.to_vec()
        }
        Op::InstanceNorm { .. } | Op::GroupNorm { .. } => {
            let groups = if let Op::GroupNorm { groups, .. } = op { *groups } else { 1 };
            if x.len() < 2
                || shapes[1] != [x[1]]
                || shapes[2] != [x[1]]
                || groups == 0
                || !x[1].is_multiple_of(groups)
            {
                return fail(format!("{groups} groups with shapes {shapes:?}"));
            }
            x.to_vec()
        }
        Op::Reshape { shape } => {
            let count = |s: &[usize]| s.iter().product::<usize>();
            if count(shape) != count(x) {
                return fail(format!("{x:?} to {shape:?}"));
            }
            shape.clone()
        }
        Op::Expand { shape } => match broadcast(x, shape) {
            Some(full) if full == *shape => full,
            _ => return fail(format!("{x:?} to {shape:?}")),
        },
        Op::Transpose { perm } => {
            let mut seen = vec![false; x.len()];
            let valid = perm.len() == x.len()
                && perm.iter().all(|&p| p < x.len() && !std::mem::replace(&mut seen[p], true));
            if !valid {
                return fail(format!("permutation {perm:?} of shape {x:?}"));
            }
            perm.iter().map(|&p| x[p]).collect()
        }
        Op::Concat { axis } => {
            let mut out = x.to_vec();
            if *axis >= x.len() {
                return fail(format!("axis {axis} of shape {x:?}"));
            }
            for s in &shapes[1..] {
                let alike = s.len() == x.len() && (0..x.len()).all(|i| i == *axis || s[i] == x[i]);
                if !alike {
                    return fail(format!("shapes {shapes:?} along axis {axis}"));
                }
                out[*axis] += s[*axis];
            }
            out
        }
        Op::Slice { begin, end, step } => {
            let n = x.len();
            let valid = begin.len() == n && end.len() == n && step.len() == n;
            if !valid || (0..n).any(|i| begin[i] > end[i] || end[i] > x[i] || step[i] == 0) {
                return fail(format!("{begin:?}..{end:?} by {step:?} of shape {x:?}"));
            }
            (0..n).map(|i| (end[i] - begin[i]).div_ceil(step[i])).collect()
        }
        Op::Gather { axis } => {
            if *axis >= x.len() || inputs[1].dtype.is_float() {
                return fail(format!("axis {axis} of shape {x:?}, indices {}", inputs[1].dtype));
            }
            [&x[..*axis], shapes[1], &x[axis + 1..]].concat()
        }
        Op::Resize { size, .. } => {
            if x.len() != 4 || size.contains(&0) {
                return fail(format!("shape {x:?} to {size:?}"));
            }
            vec![x[0], x[1], size[0], size[1]]
        }
        Op::Pad { before, after, .. } => {
            if before.len() != x.len() || after.len() != x.len() {
                return fail(format!("{before:?} and {after:?} around shape {x:?}"));
            }
            (0..x.len()).map(|i| before[i] + x[i] + after[i]).collect()
        }
        Op::Reduce { axes, keep, .. } => {
            if axes.iter().any(|&a| a >= x.len()) {
                return fail(format!("axes {axes:?} of shape {x:?}"));
            }
            reduced(x, axes, *keep)
        }
        Op::ArgMax { axis, keep } => {
            if *axis >= x.len() {
                return fail(format!("axis {axis} of shape {x:?}"));
            }
            reduced(x, &[*axis], *keep)
        }
        _ => x.to_vec(),
    };
    let dtype = match op {
        Op::Binary(b) if b.is_logic() => DType::Bool,
        Op::Where => inputs[1].dtype,
        Op::ArgMax { .. } => DType::I64,
        Op::Cast(to) => *to,
        _ => dtype,
    };
    Ok((dtype, shape))
}

fn reduced(x: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let kept = |i: &usize| !axes.contains(i);
    if keep {
        (0..x.len()).map(|i| if kept(&i) { x[i] } else { 1 }).collect()
    } else {
        (0..x.len()).filter(kept).map(|i| x[i]).collect()
    }
}

fn matmul(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let left = if a.len() == 1 { [&[1], a].concat() } else { a.to_vec() };
    let right = if b.len() == 1 { [b, &[1]].concat() } else { b.to_vec() };
    let (m, k) = (left[left.len() - 2], left[left.len() - 1]);
    let (k2, n) = (right[right.len() - 2], right[right.len() - 1]);
    if k != k2 {
        return None;
    }
    let mut out = broadcast(&left[..left.len() - 2], &right[..right.len() - 2])?;
    if a.len() > 1 {
        out.push(m);
    }
    if b.len() > 1 {
        out.push(n);
    }
    Some(out)
}
