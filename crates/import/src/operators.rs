//! ONNX operator to graph operators: what each import function works with, and which one imports what.

use crate::attributes::Attributes;
use crate::order::node_name;
use crate::walk::Walk;
use crate::{
    Note, Problem, attention, contrib, control, convolution, einsum, elementwise, host, indexing,
    is_quantised,
};
use crate::{movement, nan, norm, reduce, resize, shape};
use rockshard_graph::{Binary, Op, ValueId};
use rockshard_onnx::schema::NodeProto;
use rockshard_tensor::{DType, Tensor};

/// A node being imported: its attributes and inputs.
pub(crate) struct Context<'a, 'b> {
    pub walk: &'a mut Walk<'b>,
    pub name: String,
    pub attributes: Attributes<'a>,
    /// Present inputs; `None` for an omitted optional one.
    pub inputs: Vec<Option<ValueId>>,
    /// Name of the first output.
    pub output: &'a str,
    pub opset: i64,
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

    /// Emit an intermediate step on two values.
    pub fn binary(
        &mut self,
        suffix: &str,
        binary: Binary,
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, Problem> {
        self.step(suffix, Op::Binary(binary), &[a, b])
    }

    /// Emit an intermediate step with a number on the right.
    pub fn with_number(
        &mut self,
        suffix: &str,
        binary: Binary,
        a: ValueId,
        number: f32,
    ) -> Result<ValueId, Problem> {
        let number = self.filled(&[], number)?;
        self.binary(suffix, binary, a, number)
    }

    /// A value under another shape.
    pub fn reshaped(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId, Problem> {
        if self.walk.shape(x) == shape {
            return Ok(x);
        }
        self.step("reshaped", Op::Reshape { shape }, &[x])
    }

    /// A value with its axes in another order.
    pub fn transposed(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId, Problem> {
        if perm.is_sorted() {
            return Ok(x);
        }
        self.step("transposed", Op::Transpose { perm }, &[x])
    }

    /// Elements `begin..end` of an axis.
    pub fn part(
        &mut self,
        x: ValueId,
        axis: usize,
        begin: usize,
        end: usize,
        step: usize,
    ) -> Result<ValueId, Problem> {
        let dims = self.walk.shape(x).to_vec();
        let (mut first, mut stop, mut steps) = (vec![0; dims.len()], dims, vec![1; self.rank(x)]);
        (first[axis], stop[axis], steps[axis]) = (begin, end, step);
        self.step("part", Op::Slice { begin: first, end: stop, step: steps }, &[x])
    }

    /// Emit the node's result.
    pub fn finish(&mut self, op: Op, inputs: &[ValueId]) -> Result<(), Problem> {
        let id = self.walk.emit(&self.name, op, inputs, self.output)?;
        self.walk.bind(self.output, id);
        Ok(())
    }

    /// Let the node's result be a value that there is.
    pub fn alias(&mut self, x: ValueId) -> Result<(), Problem> {
        self.walk.bind(self.output, x);
        Ok(())
    }

    /// Let a further output be a value; nothing where nobody names it.
    pub fn bind_output(&mut self, i: usize, x: ValueId) {
        let node: &NodeProto = self.attributes.0;
        if let Some(name) = node.output.get(i).filter(|n| !n.is_empty()) {
            self.walk.bind(name, x);
        }
    }

    /// Whether somebody names an output.
    pub fn has_output(&self, i: usize) -> bool {
        self.attributes.0.output.get(i).is_some_and(|n| !n.is_empty())
    }

    pub fn apply(&mut self, op: Op) -> Result<(), Problem> {
        let inputs = self.inputs.iter().flatten().copied().collect::<Vec<_>>();
        self.finish(op, &inputs)
    }

    pub fn rank(&self, id: ValueId) -> usize {
        self.walk.shape(id).len()
    }

    /// A constant of one value throughout.
    pub fn filled(&mut self, shape: &[usize], value: f32) -> Result<ValueId, Problem> {
        let count = shape.iter().product();
        self.walk.spend(count)?;
        Ok(self.constant("fill", Tensor::from_f32(shape.to_vec(), vec![value; count])))
    }

    /// A new constant.
    pub fn constant(&mut self, suffix: &str, tensor: Tensor) -> ValueId {
        let name = self.walk.fresh(&format!("{}_{suffix}", self.output));
        self.walk.graph.add_constant(name, tensor)
    }

    /// Indices as integers, with a note where they are real numbers.
    pub fn indices(&mut self, id: ValueId) -> Result<ValueId, Problem> {
        if self.walk.value(id).dtype.is_float() {
            let input = self.inputs.iter().position(|&i| i == Some(id)).unwrap_or(0);
            let (node, output) = (self.name.clone(), self.output.to_owned());
            self.walk.notes.push(Note::RealIndices { node, output, input });
            return self.step("indices", Op::Cast(DType::I64), &[id]);
        }
        Ok(id)
    }
}

/// Import a node. What is not known here, or not in this form, the host's engine folds where all inputs are constant; operators that only it
/// has become its nodes.
pub(crate) fn import_node(walk: &mut Walk<'_>, node: &NodeProto) -> Result<(), Problem> {
    let inputs: Vec<Option<ValueId>> = node
        .input
        .iter()
        .map(|n| if n.is_empty() { Ok(None) } else { walk.get(n).map(Some) })
        .collect::<Result<_, _>>()?;
    let output = node
        .output
        .iter()
        .find(|o| !o.is_empty())
        .map(String::as_str)
        .ok_or_else(|| Problem::Form("has no output".into()))?;
    let first = node.output.first().map(String::as_str).filter(|o| !o.is_empty());
    let opset = walk.model.opset();
    let mut c = Context {
        walk,
        name: node_name(node),
        attributes: Attributes(node),
        inputs,
        output: first.unwrap_or(output),
        opset,
    };
    let op = node.op_type.as_deref().unwrap_or("");
    let outcome = match node.domain.as_deref().unwrap_or("") {
        "" | "ai.onnx" => import_standard(&mut c, op),
        contrib::DOMAIN => contrib::import(&mut c, op),
        other => Err(Problem::Domain(other.to_owned())),
    };
    match outcome {
        Err(Problem::Unsupported) => host::import(&mut c, op),
        other => other,
    }
}

fn import_standard(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    if elementwise::is_one(op) {
        return elementwise::import(c, op);
    }
    match op {
        "If" => control::choose_branch(c),
        "Where" => nan::choose(c),
        "IsNaN" => nan::is_nan(c),
        "MatMul" => convolution::matmul(c),
        "Gemm" => convolution::gemm(c),
        "Einsum" => einsum::import(c),
        "Attention" => attention::attention(c),
        "RotaryEmbedding" => attention::rotary(c, [0, 1, 2, 3]),
        "Resize" | "Upsample" => resize::import(c),
        // ONNX Runtime writes it without its domain.
        "SimplifiedLayerNormalization" => contrib::import(c, op),
        _ if is_quantised(op) => Err(Problem::Quantised),
        _ if reduce::is_one(op) => reduce::import(c, op),
        _ if norm::is_one(op) => norm::import(c, op),
        _ if convolution::is_one(op) => convolution::import(c, op),
        _ if shape::is_one(op) => shape::import(c, op),
        _ if indexing::is_one(op) => indexing::import(c, op),
        _ => movement::import(c, op),
    }
}
