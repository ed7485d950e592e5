//! ONNX operator to graph operators, one arm an operator.

use crate::attributes::{Attributes, axis};
use crate::order::node_name;
use crate::walk::Walk;
use crate::{Problem, movement, nan};
use rockshard_graph::{Binary, Op, Pool, Reduce, Unary, ValueId, Window};
use rockshard_onnx::schema::{NodeProto, tensor_proto::DataType};
use rockshard_tensor::{DType, Tensor};

/// A node being imported: its attributes and inputs.
pub(crate) struct Context<'a, 'b> {
    pub walk: &'a mut Walk<'b>,
    pub name: String,
    pub attributes: Attributes<'a>,
    /// Present inputs; `None` for an omitted optional one.
    pub inputs: Vec<Option<ValueId>>,
    pub output: &'a str,
}

impl Context<'_, '_> {
    pub fn input(&self, i: usize) -> Result<ValueId, Problem> {
        self.optional(i).ok_or_else(|| Problem::Form(format!("input {i} is missing")))
    }

    pub fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Emit an intermediate step.
    pub fn step(&mut self, suffix: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, Problem> {
        let name = self.walk.fresh(&format!("{}_{suffix}", self.output));
        self.walk.emit(&format!("{}_{suffix}", self.name), op, inputs, &name)
    }

    /// Emit the node's result.
    pub fn finish(&mut self, op: Op, inputs: &[ValueId]) -> Result<(), Problem> {
        let id = self.walk.emit(&self.name, op, inputs, self.output)?;
        self.walk.bind(self.output, id);
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), Problem> {
        let inputs = self.inputs.iter().flatten().copied().collect::<Vec<_>>();
        self.finish(op, &inputs)
    }

    pub fn rank(&self, id: ValueId) -> usize {
        self.walk.shape(id).len()
    }

    /// A constant for a norm's missing scale or bias.
    fn filled(&mut self, shape: &[usize], value: f32) -> Result<ValueId, Problem> {
        let name = self.walk.fresh(&format!("{}_fill", self.output));
        let count = shape.iter().product();
        self.walk.spend(count)?;
        Ok(self.walk.graph.add_constant(name, Tensor::from_f32(shape.to_vec(), vec![value; count])))
    }
}

pub(crate) fn import_node(walk: &mut Walk<'_>, node: &NodeProto) -> Result<(), Problem> {
    let domain = node.domain.as_deref().unwrap_or("");
    if !(domain.is_empty() || domain == "ai.onnx") {
        return Err(Problem::Domain(domain.to_owned()));
    }
    let op = node.op_type.as_deref().unwrap_or("");
    let inputs = node
        .input
        .iter()
        .map(|n| if n.is_empty() { Ok(None) } else { walk.get(n).map(Some) })
        .collect::<Result<_, _>>()?;
    let output = node
        .output
        .first()
        .map(String::as_str)
        .filter(|o| !o.is_empty())
        .ok_or_else(|| Problem::Form("has no output".into()))?;
    let opset = walk.model.opset();
    let mut c =
        Context { walk, name: node_name(node), attributes: Attributes(node), inputs, output };
    if let Some(unary) = unary(op, &c.attributes) {
        return c.apply(Op::Unary(unary));
    }
    if let Some(binary) = binary(op) {
        return match (op, c.inputs.len()) {
            ("Min" | "Max", 1) => alias(&mut c),
            ("Min" | "Max", 3..) => chain(&mut c, binary),
            ("Mod", _) if c.attributes.int("fmod", 0) != 0 => {
                Err(Problem::Form("fmod is not supported".into()))
            }
            ("Pow", _) => pow(&mut c),
            _ => c.apply(Op::Binary(binary)),
        };
    }
    match op {
        "Identity" | "Dropout" => alias(&mut c),
        "Constant" => constant(&mut c),
        "Cast" => cast(&mut c),
        "CastLike" => match c.walk.value(c.input(1)?).dtype {
            to if to == c.walk.value(c.input(0)?).dtype => alias(&mut c),
            to => {
                let x = c.input(0)?;
                c.finish(Op::Cast(to), &[x])
            }
        },
        "Sum" => chain(&mut c, Binary::Add),
        "MatMul" => c.apply(Op::MatMul),
        "Gemm" => gemm(&mut c),
        "Conv" => conv(&mut c),
        "MaxPool" => pool(&mut c, Pool::Max),
        "AveragePool" => {
            let count = c.attributes.int("count_include_pad", 0) != 0;
            pool(&mut c, Pool::Average(count))
        }
        "GlobalAveragePool" => reduce_over(&mut c, Reduce::Mean, Some(vec![2, 3]), true),
        "Clip" => clip(&mut c),
        "Where" => nan::choose(&mut c),
        "IsNaN" => nan::is_nan(&mut c),
        "Gelu" => {
            let tanh = c.attributes.text("approximate", "none") == "tanh";
            c.apply(Op::Gelu { tanh })
        }
        "Softmax" => {
            let x = c.input(0)?;
            let axis = axis(c.attributes.int("axis", -1), c.rank(x))?;
            c.apply(Op::Softmax { axis })
        }
        "LayerNormalization" => layer_norm(&mut c),
        "InstanceNormalization" => {
            let epsilon = c.attributes.float("epsilon", 1e-5);
            c.apply(Op::InstanceNorm { epsilon })
        }
        "GroupNormalization" => group_norm(&mut c),
        "ReduceMean" => reduce(&mut c, Reduce::Mean),
        "ReduceSum" => reduce(&mut c, Reduce::Sum),
        "ReduceMax" => reduce(&mut c, Reduce::Max),
        "ReduceMin" => reduce(&mut c, Reduce::Min),
        "ReduceProd" => reduce(&mut c, Reduce::Prod),
        "ArgMax" => {
            let x = c.input(0)?;
            if c.attributes.int("select_last_index", 0) != 0 {
                return Err(Problem::Form("select_last_index is not supported".into()));
            }
            let axis = axis(c.attributes.int("axis", 0), c.rank(x))?;
            let keep = c.attributes.int("keepdims", 1) != 0;
            c.apply(Op::ArgMax { axis, keep })
        }
        _ => movement::import(&mut c, op, opset),
    }
}

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
        "Floor" => Unary::Floor,
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

fn alias(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let x = c.input(0)?;
    c.walk.bind(c.output, x);
    Ok(())
}

fn chain(c: &mut Context<'_, '_>, binary: Binary) -> Result<(), Problem> {
    let mut sum = c.input(0)?;
    let count = c.inputs.len();
    if count == 1 {
        return alias(c);
    }
    for i in 1..count - 1 {
        let next = c.input(i)?;
        sum = c.step("part", Op::Binary(binary), &[sum, next])?;
    }
    let last = c.input(count - 1)?;
    c.finish(Op::Binary(binary), &[sum, last])
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
        _ => return Err(Problem::Form(format!("cast to element type {code} is not supported"))),
    };
    if c.walk.value(x).dtype == to { alias(c) } else { c.finish(Op::Cast(to), &[x]) }
}

fn gemm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (mut a, mut b) = (c.input(0)?, c.input(1)?);
    if c.rank(a) != 2 || c.rank(b) != 2 {
        return Err(Problem::Form(format!(
            "shapes {:?} and {:?} are not matrices",
            c.walk.shape(a),
            c.walk.shape(b)
        )));
    }
    if c.attributes.int("transA", 0) != 0 {
        a = c.step("transposed", Op::Transpose { perm: vec![1, 0] }, &[a])?;
    }
    if c.attributes.int("transB", 0) != 0 {
        b = c.step("transposed", Op::Transpose { perm: vec![1, 0] }, &[b])?;
    }
    let (alpha, beta) = (c.attributes.float("alpha", 1.0), c.attributes.float("beta", 1.0));
    let bias = c.optional(2).filter(|_| beta != 0.0);
    if alpha != 1.0 {
        let factor = c.filled(&[], alpha)?;
        a = c.step("scaled", Op::Binary(Binary::Mul), &[a, factor])?;
    }
    let Some(mut bias) = bias else { return c.finish(Op::MatMul, &[a, b]) };
    if beta != 1.0 {
        let factor = c.filled(&[], beta)?;
        bias = c.step("scaled", Op::Binary(Binary::Mul), &[bias, factor])?;
    }
    let product = c.step("product", Op::MatMul, &[a, b])?;
    c.finish(Op::Binary(Binary::Add), &[product, bias])
}

fn window(c: &Context<'_, '_>, x: ValueId, kernel: [usize; 2]) -> Result<Window, Problem> {
    let pair = |name: &str, default: usize| match c.attributes.sizes(name)?.as_deref() {
        None => Ok([default; 2]),
        Some(&[a, b]) => Ok([a, b]),
        Some(other) => Err(Problem::Form(format!("{name} {other:?} is not two-dimensional"))),
    };
    let (strides, dilations) = (pair("strides", 1)?, pair("dilations", 1)?);
    if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
        return Err(Problem::Form("a stride, dilation or kernel extent is zero".into()));
    }
    let pads = match c.attributes.text("auto_pad", "NOTSET") {
        "NOTSET" => match c.attributes.sizes("pads")?.as_deref() {
            None => [0; 4],
            Some(&[t, l, b, r]) => [t, l, b, r],
            Some(other) => return Err(Problem::Form(format!("pads {other:?} are not four"))),
        },
        "VALID" => [0; 4],
        same @ ("SAME_UPPER" | "SAME_LOWER") => {
            let shape = c.walk.shape(x);
            let total = |axis: usize| {
                let size = shape.get(axis + 2).copied().unwrap_or(1);
                let last =
                    (size.div_ceil(strides[axis]).saturating_sub(1)).saturating_mul(strides[axis]);
                let reach = (kernel[axis] - 1)
                    .saturating_mul(dilations[axis])
                    .saturating_add(last)
                    .saturating_add(1);
                reach.saturating_sub(size)
            };
            let first =
                |axis| if same == "SAME_UPPER" { total(axis) / 2 } else { total(axis).div_ceil(2) };
            [first(0), first(1), total(0) - first(0), total(1) - first(1)]
        }
        other => return Err(Problem::Form(format!("auto_pad {other} is not supported"))),
    };
    Ok(Window { kernel, strides, pads, dilations })
}

fn conv(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (x, weight) = (c.input(0)?, c.input(1)?);
    let &[_, _, kh, kw] = c.walk.shape(weight) else {
        return Err(Problem::Form(format!(
            "weight shape {:?} is not two-dimensional convolution's",
            c.walk.shape(weight)
        )));
    };
    let window = window(c, x, [kh, kw])?;
    let group = usize::try_from(c.attributes.int("group", 1))
        .map_err(|_| Problem::Form("negative group".into()))?;
    let filters = c.walk.shape(weight)[0];
    if group > filters.max(1) {
        return Err(Problem::Form(format!("{group} groups of {filters} filters")));
    }
    c.apply(Op::Conv { window, group })
}

fn pool(c: &mut Context<'_, '_>, kind: Pool) -> Result<(), Problem> {
    let x = c.input(0)?;
    let kernel = match c.attributes.sizes("kernel_shape")?.as_deref() {
        Some(&[h, w]) => [h, w],
        other => {
            return Err(Problem::Form(format!("kernel_shape {other:?} is not two-dimensional")));
        }
    };
    if c.attributes.int("ceil_mode", 0) != 0 {
        return Err(Problem::Form("ceil_mode is not supported".into()));
    }
    let window = window(c, x, kernel)?;
    c.apply(Op::Pool { kind, window })
}

fn clip(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let bound = |id: Option<ValueId>, default: f32| match id {
        None => Ok(default),
        Some(id) => c.walk.graph.scalar(id).ok_or(Problem::DataDependent("a bound")),
    };
    let (min, max) =
        (bound(c.optional(1), f32::NEG_INFINITY)?, bound(c.optional(2), f32::INFINITY)?);
    let x = c.input(0)?;
    c.finish(Op::Clip { min, max }, &[x])
}

fn layer_norm(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let (x, gamma) = (c.input(0)?, c.input(1)?);
    let axis = axis(c.attributes.int("axis", -1), c.rank(x))?;
    let epsilon = c.attributes.float("epsilon", 1e-5);
    let tail = c.walk.shape(x)[axis..].to_vec();
    let beta = match c.optional(2) {
        Some(beta) => beta,
        None => c.filled(&tail, 0.0)?,
    };
    c.finish(Op::LayerNorm { axis, epsilon }, &[x, gamma, beta])
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

fn reduce(c: &mut Context<'_, '_>, kind: Reduce) -> Result<(), Problem> {
    let axes = match c.optional(1) {
        Some(axes) => Some(c.walk.integers(axes, "axes")?),
        None => c.attributes.ints("axes").map(<[i64]>::to_vec),
    };
    let keep = c.attributes.int("keepdims", 1) != 0;
    if axes.as_ref().is_none_or(Vec::is_empty) && c.attributes.int("noop_with_empty_axes", 0) != 0 {
        return alias(c);
    }
    reduce_over(c, kind, axes.filter(|a| !a.is_empty()), keep)
}

fn reduce_over(
    c: &mut Context<'_, '_>,
    kind: Reduce,
    axes: Option<Vec<i64>>,
    keep: bool,
) -> Result<(), Problem> {
    let x = c.input(0)?;
    let rank = c.rank(x);
    let mut axes = match axes {
        None => (0..rank).collect(),
        Some(axes) => axes.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?,
    };
    axes.sort_unstable();
    axes.dedup();
    c.finish(Op::Reduce { kind, axes, keep }, &[x])
}
