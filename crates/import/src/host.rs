//! Operators that neither graphs nor the NPU have and the host's engine has. With constant inputs the engine folds them; else they become
//! nodes that the host runs. What shape they give, the engine tells; in a file of ours it is declared.

use crate::Problem;
use crate::operators::Context;
use crate::walk::{check_shape, declared};
use rockshard_graph::{HostOp, Op, ValueId};
use rockshard_onnx::encode;
use rockshard_onnx::schema::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use rockshard_tensor::{DType, Tensor};
use std::sync::Arc;

/// The type of an output.
#[derive(Clone, Copy)]
enum Type {
    /// That of an input.
    Of(usize),
    Is(DType),
}
use Type::{Is, Of};

/// The operators and the types of their outputs.
const OPERATORS: [(&str, &[Type]); 27] = [
    ("Acos", &[Of(0)]),
    ("Acosh", &[Of(0)]),
    ("Asin", &[Of(0)]),
    ("Asinh", &[Of(0)]),
    ("Atan", &[Of(0)]),
    ("Atanh", &[Of(0)]),
    ("Cosh", &[Of(0)]),
    ("Sinh", &[Of(0)]),
    ("Tan", &[Of(0)]),
    ("IsInf", &[Is(DType::Bool)]),
    ("IsNaN", &[Is(DType::Bool)]),
    ("CumSum", &[Of(0)]),
    ("DFT", &[Of(0)]),
    ("GatherElements", &[Of(0)]),
    ("GatherND", &[Of(0)]),
    ("GridSample", &[Of(0)]),
    ("GRU", &[Of(0), Of(0)]),
    ("LSTM", &[Of(0), Of(0), Of(0)]),
    ("ReverseSequence", &[Of(0)]),
    ("Scatter", &[Of(0)]),
    ("ScatterElements", &[Of(0)]),
    ("ScatterND", &[Of(0)]),
    ("STFT", &[Of(0)]),
    ("Einsum", &[Of(0)]),
    ("TopK", &[Of(0), Is(DType::I64)]),
    ("NonMaxSuppression", &[Is(DType::I64)]),
    ("NonZero", &[Is(DType::I64)]),
];

/// Operators whose result's shape depends on the values of their inputs.
const DATA_DEPENDENT: [&str; 2] = ["NonMaxSuppression", "NonZero"];

/// Inputs that decide the shape of the result and must be constant.
const SHAPING: [(&str, usize); 4] = [("CumSum", 1), ("TopK", 1), ("DFT", 1), ("STFT", 1)];

/// Opset that host operators are run and written with.
const OPSET: i64 = 17;

pub(crate) fn import(c: &mut Context<'_, '_>, op: &str) -> Result<(), Problem> {
    let known = OPERATORS.iter().find(|(name, _)| *name == op).ok_or(Problem::Unsupported)?;
    let node = c.attributes.0;
    let given: Vec<ValueId> = c.inputs.iter().flatten().copied().collect();
    let constant = given.iter().all(|&v| c.walk.constant(v).is_some());
    if DATA_DEPENDENT.contains(&op) && !constant {
        return Err(Problem::DataDependent("its number of results"));
    }
    for (_, place) in SHAPING.iter().filter(|(name, _)| *name == op) {
        if c.optional(*place).is_some_and(|v| c.walk.constant(v).is_none()) {
            return Err(Problem::DataDependent("an input that shapes the result"));
        }
    }
    let types: Vec<DType> = known.1.iter().map(|t| type_of(c, *t)).collect::<Result<_, _>>()?;
    if node.output.len() > types.len() {
        return Err(Problem::Form(format!("has {} outputs", node.output.len())));
    }
    let tensors = evaluated(c, node, &given)?;
    if constant && let Some(tensors) = tensors {
        for ((name, tensor), dtype) in named(node).zip(tensors).zip(&types) {
            c.walk.spend(tensor.len())?;
            c.walk.bind_constant(name, retyped(tensor, *dtype)?)?;
        }
        return Ok(());
    }
    let shapes = match tensors {
        Some(tensors) => tensors.iter().map(|t| t.shape().to_vec()).collect(),
        None => declared_shapes(c, node)?,
    };
    let mut outputs: Vec<(DType, Vec<usize>)> = types.iter().map(|t| (*t, Vec::new())).collect();
    let places = node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()).map(|(i, _)| i);
    for (i, shape) in places.clone().zip(shapes) {
        check_shape(&shape)?;
        outputs[i].1 = shape;
    }
    let host = Arc::new(HostOp {
        name: known.0,
        attributes: encode(&NodeProto {
            attribute: node.attribute.clone(),
            ..NodeProto::default()
        }),
        places: c.inputs.iter().map(Option::is_some).collect(),
        inputs: given.iter().map(|&v| (c.walk.value(v).dtype, c.walk.shape(v).to_vec())).collect(),
        outputs,
    });
    for i in places {
        let name = &node.output[i];
        let id = c.walk.append(&c.name, Op::Host(host.clone(), i), &given, name)?;
        c.walk.bind(name, id);
    }
    Ok(())
}

fn named(node: &NodeProto) -> impl Iterator<Item = &String> {
    node.output.iter().filter(|o| !o.is_empty())
}

fn type_of(c: &Context<'_, '_>, kind: Type) -> Result<DType, Problem> {
    Ok(match kind {
        Of(i) => c.walk.value(c.input(i)?).dtype,
        Is(dtype) => dtype,
    })
}

fn retyped(tensor: Tensor, dtype: DType) -> Result<Tensor, Problem> {
    let shape = tensor.shape().to_vec();
    let whole = tensor.to_i64().map(|v| v.into_owned());
    Ok(match (dtype, whole) {
        (DType::I64, Ok(values)) => Tensor::from_i64(shape, values),
        (DType::I32, Ok(values)) => {
            Tensor::from_i32(shape, values.into_iter().map(|v| v as i32).collect())
        }
        (DType::Bool, Ok(values)) => {
            Tensor::from_bool(shape, values.into_iter().map(|v| v != 0).collect())
        }
        (DType::F32 | DType::F16, Err(_)) => tensor,
        _ => return Err(Problem::Engine(format!("gave {:?}", tensor.dtype()))),
    })
}

/// What the engine makes of constants, and of zeros in place of what is not constant. `None` without an engine.
fn evaluated(
    c: &Context<'_, '_>,
    node: &NodeProto,
    given: &[ValueId],
) -> Result<Option<Vec<Tensor>>, Problem> {
    let Some(engine) = c.walk.engine else { return Ok(None) };
    let mut inputs: Vec<(&str, Tensor)> = Vec::new();
    let mut info: Vec<ValueInfoProto> = Vec::new();
    let names = node.input.iter().filter(|n| !n.is_empty());
    for (name, &id) in names.zip(given) {
        if inputs.iter().any(|(known, _)| known == name) {
            continue;
        }
        let value = c.walk.value(id);
        let tensor = match &value.constant {
            Some(tensor) => tensor.clone(),
            None => zeros(value.dtype, &value.shape),
        };
        info.push(declared(name, value.dtype, &value.shape));
        inputs.push((name, tensor));
    }
    let outputs: Vec<&str> = named(node).map(String::as_str).collect();
    let output = outputs
        .iter()
        .map(|name| ValueInfoProto { name: Some((*name).to_owned()), ..ValueInfoProto::default() });
    let graph = GraphProto {
        node: vec![node.clone()],
        input: info,
        output: output.collect(),
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(OPSET) }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (*n, t)).collect();
    engine(&encode(&model), &inputs, &outputs).map(Some).map_err(Problem::Engine)
}

fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    match dtype {
        DType::F32 | DType::F16 => Tensor::from_f32(shape, vec![0.0; count]),
        DType::I64 => Tensor::from_i64(shape, vec![0; count]),
        DType::I32 => Tensor::from_i32(shape, vec![0; count]),
        DType::Bool => Tensor::from_bool(shape, vec![false; count]),
    }
}

/// Operators whose result has the shape of their first input.
const ALIKE: [&str; 12] = [
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan", "IsInf", "IsNaN",
    "CumSum",
];

/// Shapes without an engine: the first input's, or those that the file declares, in a graph whose shapes are all fixed.
fn declared_shapes(c: &Context<'_, '_>, node: &NodeProto) -> Result<Vec<Vec<usize>>, Problem> {
    if ALIKE.contains(&node.op_type.as_deref().unwrap_or_default()) {
        return Ok(vec![c.walk.shape(c.input(0)?).to_vec()]);
    }
    let known = |name: &String| {
        c.walk
            .declared_shape(name)
            .ok_or_else(|| Problem::Form(format!("the shape of {name:?} is not declared")))
    };
    named(node).map(known).collect()
}
