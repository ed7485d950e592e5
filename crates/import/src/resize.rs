//! Interpolation. An axis at a time: picked elements are a Gather, weighted ones a product with a constant matrix; what the NPU resizes
//! itself stays one operator. The weights are those of the ONNX operator's specification.

use crate::Problem;
use crate::attributes::axis;
use crate::operators::Context;
use crate::shape::target;
use rockshard_graph::{Op, Resize, ValueId};
use rockshard_tensor::Tensor;

/// How an output's place becomes one of the input, and what is taken there.
struct Form<'a> {
    coordinates: &'a str,
    mode: &'a str,
    nearest: &'a str,
    antialias: bool,
    exclude_outside: bool,
    cubic: f32,
}

/// An axis that changes.
struct Axis {
    at: usize,
    from: usize,
    to: usize,
    scale: f32,
}

pub(crate) fn import(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let form = Form {
        coordinates: c.attributes.text("coordinate_transformation_mode", "half_pixel"),
        mode: c.attributes.text("mode", "nearest"),
        nearest: c.attributes.text("nearest_mode", "round_prefer_floor"),
        antialias: c.attributes.int("antialias", 0) != 0,
        exclude_outside: c.attributes.int("exclude_outside", 0) != 0,
        cubic: c.attributes.float("cubic_coeff_a", -0.75),
    };
    check(&form)?;
    let x = c.input(0)?;
    let axes = changed_axes(c, x)?;
    if let Some(op) = native(c.walk.shape(x), &axes, &form) {
        return c.finish(op, &[x]);
    }
    let mut value = x;
    for axis in &axes {
        value = match form.mode {
            "nearest" => picked(c, value, axis, &form)?,
            _ => weighted(c, value, axis, &form)?,
        };
    }
    c.alias(value)
}

fn check(form: &Form<'_>) -> Result<(), Problem> {
    let known = |what: &str, value: &str, all: &[&str]| match all.contains(&value) {
        true => Ok(()),
        false => Err(Problem::Form(format!("{what} {value} is not supported"))),
    };
    known("mode", form.mode, &["nearest", "linear", "cubic"])?;
    known(
        "nearest_mode",
        form.nearest,
        &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"],
    )?;
    known(
        "coordinate_transformation_mode",
        form.coordinates,
        &[
            "half_pixel",
            "pytorch_half_pixel",
            "half_pixel_symmetric",
            "align_corners",
            "asymmetric",
        ],
    )
}

/// The axes whose extent or scale is not one, with both.
fn changed_axes(c: &Context<'_, '_>, x: ValueId) -> Result<Vec<Axis>, Problem> {
    let dims = c.walk.shape(x);
    let named = c.attributes.ints("axes").map(<[i64]>::to_vec);
    let named = named.unwrap_or_else(|| (0..dims.len() as i64).collect());
    let named = named.into_iter().map(|a| axis(a, dims.len())).collect::<Result<Vec<_>, _>>()?;
    let some = |i: usize| c.optional(i).filter(|&id| c.walk.value(id).count() > 0);
    let (extents, scales): (Vec<usize>, Vec<f32>) = if some(3).is_some() {
        let sizes = target(c, 3, "the sizes")?;
        if sizes.len() != named.len() {
            return Err(Problem::Form(format!("size {sizes:?} for {} axes", named.len())));
        }
        sized(c.attributes.text("keep_aspect_ratio_policy", "stretch"), dims, &named, &sizes)?
    } else {
        let id = some(2).ok_or_else(|| Problem::Form("has neither sizes nor scales".into()))?;
        let scales = c.walk.constant(id).ok_or(Problem::DataDependent("the scales"))?;
        let scales = scales.to_f32().map_err(|e| Problem::Form(e.to_string()))?.into_owned();
        if scales.len() != named.len() || scales.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Problem::Form(format!("scales {scales:?} for {} axes", named.len())));
        }
        let extent = |(&a, &s): (&usize, &f32)| (f64::from(s) * dims[a] as f64).floor() as usize;
        (named.iter().zip(&scales).map(extent).collect(), scales)
    };
    let mut axes = Vec::new();
    for ((&at, to), scale) in named.iter().zip(extents).zip(scales) {
        let from = dims[at];
        if from == to && (scale - 1.0).abs() < f32::EPSILON {
            continue;
        }
        if from == 0 || to == 0 {
            return Err(Problem::Form(format!("axis {at} of shape {dims:?} to {to}")));
        }
        crate::walk::check_shape(&[from, to])?;
        axes.push(Axis { at, from, to, scale });
    }
    Ok(axes)
}

/// Extents and scales where sizes are asked for; a policy that keeps proportions has one scale for all axes.
fn sized(
    policy: &str,
    dims: &[usize],
    named: &[usize],
    sizes: &[usize],
) -> Result<(Vec<usize>, Vec<f32>), Problem> {
    let scales = named.iter().zip(sizes).map(|(&a, &s)| s as f32 / dims[a].max(1) as f32);
    let scale = match policy {
        "stretch" => return Ok((sizes.to_vec(), scales.collect())),
        "not_larger" => scales.fold(f32::INFINITY, f32::min),
        "not_smaller" => scales.fold(0.0, f32::max),
        other => {
            return Err(Problem::Form(format!(
                "keep_aspect_ratio_policy {other} is not supported"
            )));
        }
    };
    let extent = |&a: &usize| (f64::from(scale) * dims[a] as f64 + 0.5).floor() as usize;
    Ok((named.iter().map(extent).collect(), vec![scale; named.len()]))
}

/// What the NPU resizes itself: height and width, whole factors of nearest pixels, linear between pixel centres.
fn native(dims: &[usize], axes: &[Axis], form: &Form<'_>) -> Option<Op> {
    if dims.len() != 4 || axes.iter().any(|a| a.at < 2) || form.mode == "cubic" {
        return None;
    }
    let size = [2, 3].map(|at| axes.iter().find(|a| a.at == at).map_or(dims[at], |a| a.to));
    if form.mode == "nearest" {
        let plain = |a: &Axis| (0..a.to).all(|i| a.nearest(i, form) == i * a.from / a.to);
        return axes.iter().all(plain).then_some(Op::Resize { mode: Resize::Nearest, size });
    }
    let centred = |a: &Axis| match form.coordinates {
        "half_pixel" => true,
        "pytorch_half_pixel" => a.to > 1,
        _ => false,
    };
    let exact = |a: &Axis| (a.scale - a.to as f32 / a.from as f32).abs() <= a.scale * f32::EPSILON;
    let smooth = |a: &Axis| !form.antialias || a.scale >= 1.0;
    let plain = axes.iter().all(|a| centred(a) && exact(a) && smooth(a));
    (plain && !form.exclude_outside).then_some(Op::Resize { mode: Resize::Linear, size })
}

impl Axis {
    /// Where an output's place lies in the input.
    fn place(&self, i: usize, form: &Form<'_>) -> f32 {
        let (x, from, to) = (i as f32, self.from as f32, self.to as f32);
        let centred = (x + 0.5) / self.scale - 0.5;
        match form.coordinates {
            "align_corners" if self.to == 1 => 0.0,
            "align_corners" => x * (from - 1.0) / (to - 1.0),
            "asymmetric" => x / self.scale,
            "pytorch_half_pixel" if self.to == 1 => 0.0,
            "half_pixel_symmetric" => from / 2.0 * (1.0 - to / (self.scale * from)) + centred,
            _ => centred,
        }
    }

    fn nearest(&self, i: usize, form: &Form<'_>) -> usize {
        let place = self.place(i, form);
        let half = place - place.floor() == 0.5;
        let whole = match form.nearest {
            "floor" => place.floor(),
            "ceil" => place.ceil(),
            "round_prefer_floor" if half => place.floor(),
            "round_prefer_ceil" if half => place.ceil(),
            _ => place.round(),
        };
        (whole.max(0.0) as usize).min(self.from - 1)
    }

    /// The input's places that an output is made of, and their weights. Places beyond the ends stand for the ends.
    fn taps(&self, i: usize, form: &Form<'_>) -> Vec<(usize, f32)> {
        let place = self.place(i, form);
        let base = place.floor();
        let ratio = place - base;
        let radius = if form.mode == "linear" { 1.0 } else { 2.0 };
        let stretch = if form.antialias { self.scale.min(1.0) } else { 1.0 };
        let start = (-radius / stretch).floor() as i64 + 1;
        let count = 2 * (radius as i64 - start);
        let weight = |tap: i64| {
            let distance = ((tap as f32 - ratio) * stretch).abs();
            if form.mode == "linear" {
                (1.0 - distance).max(0.0)
            } else {
                cubic(distance, form.cubic)
            }
        };
        let taps = (start..start + count).map(|tap| (base as i64 + tap, weight(tap)));
        let inside = |at: i64| (0..self.from as i64).contains(&at);
        let taps: Vec<(i64, f32)> =
            taps.filter(|&(at, _)| !form.exclude_outside || inside(at)).collect();
        let total: f32 = taps.iter().map(|t| t.1).sum();
        let total = if form.exclude_outside || form.antialias { total } else { 1.0 };
        let end = self.from as i64 - 1;
        taps.into_iter().map(|(at, w)| (at.clamp(0, end) as usize, w / total)).collect()
    }
}

/// Keys' cubic convolution kernel.
fn cubic(x: f32, a: f32) -> f32 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

fn picked(
    c: &mut Context<'_, '_>,
    x: ValueId,
    axis: &Axis,
    form: &Form<'_>,
) -> Result<ValueId, Problem> {
    c.walk.spend(axis.to)?;
    let places = (0..axis.to).map(|i| axis.nearest(i, form) as i64).collect();
    let places = c.constant("places", Tensor::from_i64([axis.to], places));
    c.step("picked", Op::Gather { axis: axis.at }, &[x, places])
}

fn weighted(
    c: &mut Context<'_, '_>,
    x: ValueId,
    axis: &Axis,
    form: &Form<'_>,
) -> Result<ValueId, Problem> {
    let dims = c.walk.shape(x).to_vec();
    let last = axis.at + 1 == dims.len();
    c.walk.spend(axis.from.saturating_mul(axis.to))?;
    let mut matrix = vec![0.0; axis.from * axis.to];
    for i in 0..axis.to {
        for (at, weight) in axis.taps(i, form) {
            matrix[if last { at * axis.to + i } else { i * axis.from + at }] += weight;
        }
    }
    if last {
        let matrix = c.constant("weights", Tensor::from_f32([axis.from, axis.to], matrix));
        return c.step("weighted", Op::MatMul, &[x, matrix]);
    }
    let matrix = c.constant("weights", Tensor::from_f32([axis.to, axis.from], matrix));
    let (before, after) = (dims[..axis.at].to_vec(), dims[axis.at + 1..].iter().product());
    let rows = c.reshaped(x, [before.clone(), vec![axis.from, after]].concat())?;
    let product = c.step("weighted", Op::MatMul, &[matrix, rows])?;
    c.reshaped(product, [before, vec![axis.to], dims[axis.at + 1..].to_vec()].concat())
}
