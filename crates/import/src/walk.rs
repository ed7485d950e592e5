//! From an ONNX graph to ours: one node after the other, constants folded on the way.

use crate::inline::inlined;
use crate::order::{node_name, running_order};
use crate::{
    Engine, Given, ImportError, ImportOptions, NEWEST_OPSET, Note, OLDEST_OPSET, Problem, given,
    operators,
};
use rockshard_graph::{Graph, Op, Value, ValueId, infer};
use rockshard_kernels::{Precision, evaluate};
use rockshard_onnx::schema::{
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use rockshard_onnx::{BlockLayout, Model};
use rockshard_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Largest result, in elements, that folding may make bigger than its inputs (a broadcast constant stays an operator).
const LARGEST_GROWTH: usize = 1 << 22;
/// Multiplications and element copies that all folding together may take, besides [`WORK_PER_WEIGHT`] for each stored weight.
/// What it does not pay for stays an operator, so that a small file can ask for neither much memory nor much time.
const WORK: u64 = 1 << 26;
const WORK_PER_WEIGHT: u64 = 8;
/// Most elements and axes of any value: products of extents and strides stay far from overflow.
const LARGEST_TENSOR: usize = 1 << 40;
pub(crate) const LARGEST_RANK: usize = 32;
/// Most entries of a constant that is read as a shape, a list of axes and the like.
const LONGEST_LIST: usize = 4096;

/// Accept a shape that can be computed with, even where an extent is 0.
pub(crate) fn check_shape(shape: &[usize]) -> Result<(), Problem> {
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    if shape.len() <= LARGEST_RANK && elements.is_some_and(|n| n <= LARGEST_TENSOR) {
        return Ok(());
    }
    let shown = &shape[..shape.len().min(LARGEST_RANK)];
    Err(Problem::Form(format!(
        "a shape of {} axes, {shown:?}, is over {LARGEST_TENSOR} elements or {LARGEST_RANK} axes",
        shape.len()
    )))
}

/// Multiplications and element copies that an operator takes to make `elements` elements.
fn work(op: &Op, inputs: &[&Value], elements: usize) -> u64 {
    let each = match op {
        Op::Reshape { .. } => return 0,
        Op::Conv { .. } => inputs[1].shape[1..].iter().product(),
        // Every value meets the whole kernel, and zeros between them.
        Op::ConvTranspose { .. } => inputs[1].count(),
        Op::MatMul => inputs[0].shape.last().copied().unwrap_or(1),
        Op::Pool { window, .. } => window.kernel[0].saturating_mul(window.kernel[1]),
        _ => 1,
    };
    let read: usize = inputs.iter().map(|v| v.count()).sum();
    (elements.saturating_mul(each.max(1)) as u64).saturating_add(read as u64)
}

/// A value's name, type and shape as a file has them.
pub(crate) fn declared(name: &str, dtype: DType, shape: &[usize]) -> ValueInfoProto {
    let code = match dtype {
        DType::F32 | DType::F16 => DataType::Float,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::Bool => DataType::Bool,
    };
    let extent = |&d: &usize| Dimension {
        value: Some(dimension::Value::DimValue(d as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(code as i32),
        shape: Some(TensorShapeProto { dim: shape.iter().map(extent).collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// The graph being made and the values known by their ONNX names.
pub(crate) struct Walk<'a> {
    pub model: &'a Model,
    pub engine: Option<Engine<'a>>,
    pub graph: Graph,
    /// What is given about inputs.
    pub given: &'a BTreeMap<String, Given>,
    pub notes: Vec<Note>,
    initializers: HashMap<&'a str, &'a TensorProto>,
    known: HashMap<String, ValueId>,
    fresh: usize,
    work: u64,
}

pub(crate) fn import(
    model: &Model,
    options: &ImportOptions,
    engine: Option<Engine<'_>>,
) -> Result<(Graph, Vec<Note>), ImportError> {
    let opset = model.opset();
    if !(OLDEST_OPSET..=NEWEST_OPSET).contains(&opset) {
        return Err(ImportError::Opset(opset));
    }
    let proto = model
        .proto
        .graph
        .as_ref()
        .ok_or_else(|| rockshard_onnx::OnnxError::NoGraph { path: model.path().to_owned() })?;
    let declared = proto.output.iter().filter_map(|o| o.name.clone());
    let outputs: Vec<String> =
        if options.outputs.is_empty() { declared.collect() } else { options.outputs.clone() };
    let inlined = inlined(&model.proto)?;
    let nodes = inlined.as_deref().unwrap_or(&proto.node);
    let mut walk = Walk {
        model,
        engine,
        graph: Graph::new(proto.name.clone().unwrap_or_default()),
        given: &options.given,
        notes: Vec::new(),
        initializers: proto
            .initializer
            .iter()
            .filter_map(|t| Some((t.name.as_deref()?, t)))
            .collect(),
        known: HashMap::new(),
        fresh: 0,
        work: WORK,
    };
    for input in &proto.input {
        let name = input.name.as_deref().unwrap_or_default();
        if !walk.initializers.contains_key(name) {
            let (dtype, shape) = input_type(input, options)?;
            walk.add_input(name, dtype, shape).map_err(|e| ImportError::Input {
                input: name.to_owned(),
                problem: e.to_string(),
            })?;
        }
    }
    for node in running_order(nodes, &outputs)? {
        operators::import_node(&mut walk, node).map_err(|problem| ImportError::Node {
            node: node_name(node),
            op: node.op_type.clone().unwrap_or_default(),
            opset,
            problem,
        })?;
    }
    for output in outputs {
        let id = walk.get(&output).map_err(|_| ImportError::Output(output.clone()))?;
        // A value that is already given under another name, or a constant, needs a node of its own to be an output.
        let direct = walk.graph.value(id).name == output && walk.graph.constant(id).is_none();
        let id = if direct { id } else { walk.copy(id, &output) };
        walk.graph.outputs.push(id);
    }
    let (mut graph, notes) = (walk.graph, walk.notes);
    graph.tidy().map_err(ImportError::Cycle)?;
    graph.verify()?;
    Ok((graph, notes))
}

/// A declared extent, where it is a number.
fn fixed_extent(dim: &Dimension) -> Option<usize> {
    match dim.value {
        Some(dimension::Value::DimValue(v)) => usize::try_from(v).ok(),
        _ => None,
    }
}

fn input_type(
    input: &ValueInfoProto,
    options: &ImportOptions,
) -> Result<(DType, Vec<usize>), ImportError> {
    let name = input.name.clone().unwrap_or_default();
    let fail =
        |problem: &str| ImportError::Input { input: name.clone(), problem: problem.to_owned() };
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err(fail("is not a tensor"));
    };
    let dtype = match DataType::try_from(tensor.elem_type.unwrap_or_default()) {
        Ok(DataType::Float | DataType::Float16 | DataType::Double | DataType::Bfloat16) => {
            DType::F32
        }
        Ok(DataType::Int64) => DType::I64,
        Ok(DataType::Int32) => DType::I32,
        Ok(DataType::Bool) => DType::Bool,
        _ => {
            return Err(fail(
                "has an element type that is not supported (use float, float16, int64, int32 or bool)",
            ));
        }
    };
    if let Some(shape) = options.shapes.get(&name) {
        return Ok((dtype, shape.clone()));
    }
    let dims = &tensor.shape.as_ref().ok_or_else(|| fail("has no declared rank"))?.dim;
    let known = options.dims.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none".to_owned() } else { known };
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        let dynamic = |dimension: &str| ImportError::Dynamic {
            input: name.clone(),
            axis,
            dimension: dimension.to_owned(),
            known: known.clone(),
            shape: dims.iter().map(fixed_extent).collect(),
        };
        shape.push(match &dim.value {
            Some(dimension::Value::DimValue(v)) => {
                usize::try_from(*v).map_err(|_| dynamic(&v.to_string()))?
            }
            Some(dimension::Value::DimParam(p)) => {
                *options.dims.get(p).ok_or_else(|| dynamic(p))?
            }
            None => return Err(dynamic("?")),
        });
    }
    Ok((dtype, shape))
}

impl Walk<'_> {
    /// An input of the graph, or the constant that it is given to be.
    fn add_input(&mut self, name: &str, dtype: DType, shape: Vec<usize>) -> Result<(), Problem> {
        check_shape(&shape)?;
        if self.given.get(name) == Some(&Given::Ones) {
            self.spend(shape.iter().product())?;
            let real = || Problem::Form("cannot be a mask of ones: its values are real".into());
            let ones = given::ones(dtype, &shape).ok_or_else(real)?;
            self.notes.push(Note::Ones { input: name.to_owned(), dtype, shape });
            return self.bind_constant(name, ones);
        }
        let id = self.graph.add_value(name, dtype, shape);
        self.bind(name, id);
        self.graph.inputs.push(id);
        Ok(())
    }

    /// Note that a product's weights were made of stored bits.
    pub fn note_dequantised(&mut self, layout: &BlockLayout) {
        let (stored, in_block) = (layout.bits, layout.block);
        for note in &mut self.notes {
            match note {
                Note::Dequantised { bits, block, products }
                    if (*bits, *block) == (stored, in_block) =>
                {
                    *products += 1;
                    return;
                }
                _ => {}
            }
        }
        self.notes.push(Note::Dequantised { bits: stored, block: in_block, products: 1 });
    }

    /// The value of an ONNX name; initializers enter the graph when first used.
    pub fn get(&mut self, name: &str) -> Result<ValueId, Problem> {
        if let Some(&id) = self.known.get(name) {
            return Ok(id);
        }
        let proto = self.initializers.get(name).ok_or_else(|| Problem::Missing(name.to_owned()))?;
        let tensor = self.model.tensor(proto)?;
        check_shape(tensor.shape())?;
        self.work = self.work.saturating_add(tensor.len() as u64 * WORK_PER_WEIGHT);
        let id = self.graph.add_constant(name, tensor);
        self.known.insert(name.to_owned(), id);
        Ok(id)
    }

    pub fn value(&self, id: ValueId) -> &Value {
        self.graph.value(id)
    }

    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.graph.value(id).shape
    }

    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.graph.constant(id)
    }

    /// Constant integers, e.g. a target shape; `what` names them in the error.
    pub fn integers(&self, id: ValueId, what: &'static str) -> Result<Vec<i64>, Problem> {
        let tensor = self.constant(id).ok_or(Problem::DataDependent(what))?;
        if tensor.len() > LONGEST_LIST {
            return Err(Problem::Form(format!("{what}: {} values", tensor.len())));
        }
        tensor
            .to_i64()
            .map(std::borrow::Cow::into_owned)
            .map_err(|e| Problem::Form(format!("{what}: {e}")))
    }

    /// The number of a constant of one element.
    pub fn number(&self, id: ValueId) -> Option<f64> {
        let tensor = self.constant(id).filter(|t| t.len() == 1)?;
        if tensor.dtype().is_float() {
            return tensor.to_f32().ok()?.first().map(|&v| f64::from(v));
        }
        tensor.to_i64().ok()?.first().map(|&v| v as f64)
    }

    /// The shape that the file declares for a value made by a node.
    pub fn declared_shape(&self, name: &str) -> Option<Vec<usize>> {
        let graph = self.model.proto.graph.as_ref()?;
        let mut known = graph.value_info.iter().chain(&graph.output);
        let info = known.find(|info| info.name.as_deref() == Some(name))?;
        let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()? else {
            return None;
        };
        tensor.shape.as_ref()?.dim.iter().map(fixed_extent).collect()
    }

    /// Let an ONNX name mean a value.
    pub fn bind(&mut self, name: &str, id: ValueId) {
        self.known.insert(name.to_owned(), id);
    }

    /// Make an ONNX name a constant.
    pub fn bind_constant(&mut self, name: &str, tensor: Tensor) -> Result<(), Problem> {
        check_shape(tensor.shape())?;
        let id = self.graph.add_constant(name, tensor);
        self.bind(name, id);
        Ok(())
    }

    /// Take some of the work that folding may do; `false`, and nothing taken, when too little is left.
    pub fn afford(&mut self, work: u64) -> bool {
        let left = self.work.checked_sub(work);
        self.work = left.unwrap_or(self.work);
        left.is_some()
    }

    /// As [`Walk::afford`], for elements that must be made.
    ///
    /// # Errors
    /// Too little is left.
    pub fn spend(&mut self, elements: usize) -> Result<(), Problem> {
        match self.afford(elements as u64) {
            true => Ok(()),
            false => Err(Problem::Fold(format!(
                "{elements} more elements are too many for a model of this size"
            ))),
        }
    }

    /// A name derived from another that no value has.
    pub fn fresh(&mut self, base: &str) -> String {
        self.fresh += 1;
        format!("{base}_{}", self.fresh)
    }

    /// Add an operator, or fold it when its inputs are constant. The output takes the name `output`.
    pub fn emit(
        &mut self,
        node: &str,
        op: Op,
        inputs: &[ValueId],
        output: &str,
    ) -> Result<ValueId, Problem> {
        let values: Vec<&Value> = inputs.iter().map(|&i| self.graph.value(i)).collect();
        let (dtype, shape) = infer(&op, &values)?;
        check_shape(&shape)?;
        let elements: usize = shape.iter().product();
        let largest = values.iter().map(|v| v.count()).max().unwrap_or(0);
        let work = work(&op, &values, elements);
        let foldable = values.iter().all(|v| v.constant.is_some())
            && (elements <= largest || elements <= LARGEST_GROWTH);
        if foldable && self.afford(work) {
            let constants: Vec<&Tensor> =
                inputs.iter().filter_map(|&i| self.graph.constant(i)).collect();
            let folded = match elements {
                0 => Tensor::new(dtype, shape, Default::default()).map_err(|e| e.to_string()),
                _ => evaluate(&op, &constants, Precision::F32).map_err(|e| e.to_string()),
            };
            return Ok(self.graph.add_constant(output, folded.map_err(Problem::Fold)?));
        }
        let id = self.graph.add_value(output, dtype, shape);
        self.graph.add_node(node, op, inputs.to_vec(), id);
        Ok(id)
    }

    /// Add an operator that is not folded.
    pub fn append(
        &mut self,
        node: &str,
        op: Op,
        inputs: &[ValueId],
        output: &str,
    ) -> Result<ValueId, Problem> {
        let values: Vec<&Value> = inputs.iter().map(|&i| self.graph.value(i)).collect();
        let (dtype, shape) = infer(&op, &values)?;
        let id = self.graph.add_value(output, dtype, shape);
        self.graph.add_node(node, op, inputs.to_vec(), id);
        Ok(id)
    }

    fn copy(&mut self, id: ValueId, name: &str) -> ValueId {
        if self.value(id).name == name {
            self.graph.value_mut(id).name = self.fresh(name);
        }
        let value = self.value(id);
        let (dtype, shape) = (value.dtype, value.shape.clone());
        let out = self.graph.add_value(name, dtype, shape.clone());
        self.graph.add_node(format!("copy_{name}"), Op::Reshape { shape }, vec![id], out);
        out
    }
}
