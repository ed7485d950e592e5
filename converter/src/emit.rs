//! Graph to ONNX: opset 17, IR version 8, the patterns that the vendor's compiler fuses, weights in the type they are stored in.

mod proto;

use proto::{data_type, described, float, int, ints, text, window_attributes};
use rockshard_graph::{Binary, Graph, HostOp, Op, Pool, Reduce, Resize, Unary, ValueId};
use rockshard_onnx::Weights;
use rockshard_onnx::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
    tensor_proto::DataType,
};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// Write a graph as ONNX, with its large weights in `FILE_data` beside it.
///
/// # Errors
/// Writing fails.
pub fn write_onnx(graph: &Graph, path: &Path) -> io::Result<()> {
    write_rounded(graph, &HashSet::new(), path, &|| ())
}

/// Write a graph as [`write_onnx`] does, some of its constants rounded to float16. `read` is told again and again that weights were read.
///
/// # Errors
/// Writing fails.
pub(crate) fn write_rounded(
    graph: &Graph,
    rounded: &HashSet<ValueId>,
    path: &Path,
    read: &dyn Fn(),
) -> io::Result<()> {
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or("model.onnx");
    let mut weights = Weights::default();
    let proto = to_model(graph, rounded, &mut weights, file);
    rockshard_onnx::save(&proto, &weights, path, read)
}

fn to_model(
    graph: &Graph,
    rounded: &HashSet<ValueId>,
    weights: &mut Weights,
    file: &str,
) -> ModelProto {
    let mut emit = Emit {
        graph,
        rounded,
        weights,
        file,
        proto: GraphProto { name: Some(graph.name.clone()), ..GraphProto::default() },
        used: HashSet::new(),
        fresh: 0,
    };
    for node in graph.nodes() {
        for &input in &node.inputs {
            emit.constant(input);
        }
    }
    for (node, name) in graph.nodes().iter().zip(unique_names(graph)) {
        emit.node(&name, &node.op, &node.inputs, node.output);
    }
    emit.proto.input = graph.inputs.iter().map(|&v| info(graph, v)).collect();
    emit.proto.output = graph.outputs.iter().map(|&v| info(graph, v)).collect();
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("rockshard".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
        graph: Some(emit.proto),
        ..ModelProto::default()
    }
}

fn unique_names(graph: &Graph) -> Vec<String> {
    let mut seen: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    let mut names = Vec::new();
    for node in graph.nodes() {
        let count = seen.entry(&node.name).or_default();
        *count += 1;
        names.push(if *count == 1 { node.name.clone() } else { format!("{}#{count}", node.name) });
    }
    names
}

fn info(graph: &Graph, id: ValueId) -> ValueInfoProto {
    let value = graph.value(id);
    described(&value.name, value.dtype, &value.shape)
}

struct Emit<'a> {
    graph: &'a Graph,
    rounded: &'a HashSet<ValueId>,
    weights: &'a mut Weights,
    file: &'a str,
    proto: GraphProto,
    used: HashSet<ValueId>,
    fresh: usize,
}

impl Emit<'_> {
    /// An initializer; one stored as float16 comes with a Cast to float32.
    fn constant(&mut self, id: ValueId) {
        let value = self.graph.value(id);
        let Some(tensor) = &value.constant else { return };
        if !self.used.insert(id) {
            return;
        }
        let rounded = self.rounded.contains(&id);
        if rounded || tensor.dtype() == DType::F16 {
            let stored = format!("{}_f16", value.name);
            let initializer = match rounded {
                true => self.weights.narrow_initializer(&stored, tensor, self.file),
                false => self.weights.initializer(&stored, tensor, self.file),
            };
            self.proto.initializer.push(initializer);
            self.push(
                &format!("{}_cast", value.name),
                "Cast",
                vec![stored],
                value.name.clone(),
                vec![int("to", DataType::Float as i64)],
            );
        } else {
            self.proto.initializer.push(self.weights.initializer(&value.name, tensor, self.file));
        }
    }

    fn push(
        &mut self,
        name: &str,
        op: &str,
        inputs: Vec<String>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) {
        self.proto.node.push(NodeProto {
            name: Some(name.to_owned()),
            op_type: Some(op.to_owned()),
            input: inputs,
            output: vec![output],
            attribute,
            ..NodeProto::default()
        });
    }

    fn name(&self, id: ValueId) -> String {
        self.graph.value(id).name.clone()
    }

    fn unused(&mut self, base: &str) -> String {
        self.fresh += 1;
        format!("{base}~{}", self.fresh)
    }

    /// A new small initializer.
    fn literal(&mut self, base: &str, tensor: &Tensor) -> String {
        let name = self.unused(base);
        self.proto.initializer.push(self.weights.initializer(&name, tensor, self.file));
        name
    }

    fn scalar(&mut self, base: &str, value: f32) -> String {
        self.literal(base, &Tensor::scalar(value))
    }

    /// A limit in the type of the value that it is for.
    fn bound(&mut self, base: &str, limit: f32, of: ValueId) -> String {
        match self.graph.value(of).dtype {
            DType::I64 => self.literal(base, &Tensor::from_i64([], vec![limit as i64])),
            DType::I32 => self.literal(base, &Tensor::from_i32([], vec![limit as i32])),
            _ => self.scalar(base, limit),
        }
    }

    fn sizes(&mut self, base: &str, values: &[usize]) -> String {
        self.literal(
            base,
            &Tensor::from_i64([values.len()], values.iter().map(|&v| v as i64).collect()),
        )
    }

    /// An intermediate node of an operator that ONNX spells as several.
    fn step(
        &mut self,
        base: &str,
        op: &str,
        inputs: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = self.unused(base);
        self.push(&name.clone(), op, inputs, name.clone(), attribute);
        name
    }

    fn node(&mut self, name: &str, op: &Op, inputs: &[ValueId], output: ValueId) {
        let base = self.name(output);
        let names: Vec<String> = inputs.iter().map(|&v| self.name(v)).collect();
        let x = names[0].clone();
        let shape = |i: usize| self.graph.value(inputs[i]).shape.clone();
        let last = |emit: &mut Self, op: &str, inputs: Vec<String>, attribute| {
            emit.push(name, op, inputs, base.clone(), attribute)
        };
        match op {
            Op::Conv { window, group } => {
                let mut attribute = window_attributes(window);
                attribute
                    .extend([ints("dilations", &window.dilations), int("group", *group as i64)]);
                last(self, "Conv", names, attribute);
            }
            Op::Pool { kind, window } => {
                let mut attribute = window_attributes(window);
                if window.dilations != [1, 1] {
                    attribute.push(ints("dilations", &window.dilations));
                }
                if let Pool::Average(count) = kind {
                    attribute.push(int("count_include_pad", i64::from(*count)));
                }
                last(self, op.name(), names, attribute);
            }
            Op::ConvTranspose { window, group, more } => {
                let mut attribute = window_attributes(window);
                attribute.extend([
                    ints("dilations", &window.dilations),
                    int("group", *group as i64),
                    ints("output_padding", more),
                ]);
                last(self, "ConvTranspose", names, attribute);
            }
            Op::Unary(Unary::LeakyRelu(alpha) | Unary::Elu(alpha)) => {
                last(self, op.name(), names, vec![float("alpha", *alpha)])
            }
            Op::Unary(Unary::HardSigmoid { alpha, beta }) => {
                last(self, op.name(), names, vec![float("alpha", *alpha), float("beta", *beta)])
            }
            Op::Unary(Unary::Sign) if self.graph.value(inputs[0]).dtype == DType::F32 => {
                self.sign(name, &x, base);
            }
            Op::Binary(Binary::Add) => {
                let names = inputs.iter().map(|&v| self.whole_bias(v, inputs, &base)).collect();
                last(self, "Add", names, vec![]);
            }
            Op::MatMul | Op::Unary(_) | Op::Binary(_) | Op::Where => {
                last(self, op.name(), names, vec![])
            }
            Op::Clip { min, max } => {
                let bounds = [*min, *max].map(|bound| self.bound(&base, bound, inputs[0]));
                last(self, "Clip", [vec![x], bounds.to_vec()].concat(), vec![]);
            }
            Op::Softmax { axis } => last(self, "Softmax", names, vec![int("axis", *axis as i64)]),
            Op::LayerNorm { axis, epsilon } => {
                last(
                    self,
                    "LayerNormalization",
                    names,
                    vec![int("axis", *axis as i64), float("epsilon", *epsilon)],
                );
            }
            Op::InstanceNorm { epsilon } => {
                last(self, "InstanceNormalization", names, vec![float("epsilon", *epsilon)])
            }
            Op::GroupNorm { groups, epsilon } => {
                let dims = shape(0);
                let inner: usize = dims[1..].iter().product::<usize>() / groups;
                let by_channel: Vec<usize> =
                    std::iter::once(dims[1]).chain(dims[2..].iter().map(|_| 1)).collect();
                let target = self.sizes(&base, &[dims[0], *groups, inner]);
                let grouped = self.step(&base, "Reshape", vec![x, target], vec![]);
                let ones = self.literal(&base, &Tensor::from_f32([*groups], vec![1.0; *groups]));
                let zeros = self.literal(&base, &Tensor::from_f32([*groups], vec![0.0; *groups]));
                let normal = self.step(
                    &base,
                    "InstanceNormalization",
                    vec![grouped, ones, zeros],
                    vec![float("epsilon", *epsilon)],
                );
                let target = self.sizes(&base, &dims);
                let back = self.step(&base, "Reshape", vec![normal, target], vec![]);
                let gamma = self.reshaped(inputs[1], &by_channel, &base);
                let scaled = self.step(&base, "Mul", vec![back, gamma], vec![]);
                let beta = self.reshaped(inputs[2], &by_channel, &base);
                last(self, "Add", vec![scaled, beta], vec![]);
            }
            Op::Attention { scale } => {
                let scores = self.step(&base, "MatMul", vec![x, names[1].clone()], vec![]);
                let factor = self.scalar(&base, *scale);
                let mut scores = self.step(&base, "Mul", vec![scores, factor], vec![]);
                if let Some(mask) = names.get(3) {
                    scores = self.step(&base, "Add", vec![scores, mask.clone()], vec![]);
                }
                let weights = self.step(&base, "Softmax", vec![scores], vec![int("axis", -1)]);
                last(self, "MatMul", vec![weights, names[2].clone()], vec![]);
            }
            Op::Swish { beta } => {
                let argument = if *beta == 1.0 {
                    x.clone()
                } else {
                    let factor = self.scalar(&base, *beta);
                    self.step(&base, "Mul", vec![x.clone(), factor], vec![])
                };
                let gate = self.step(&base, "Sigmoid", vec![argument], vec![]);
                last(self, "Mul", vec![x, gate], vec![]);
            }
            Op::Gelu { tanh } => {
                let gate = if *tanh { self.tanh_gate(&base, &x) } else { self.erf_gate(&base, &x) };
                let one = self.scalar(&base, 1.0);
                let sum = self.step(&base, "Add", vec![gate, one], vec![]);
                let product = self.step(&base, "Mul", vec![x, sum], vec![]);
                let half = self.scalar(&base, 0.5);
                last(self, "Mul", vec![product, half], vec![]);
            }
            Op::Reshape { shape } => {
                let target = self.sizes(&base, shape);
                let attribute = if shape.contains(&0) { vec![int("allowzero", 1)] } else { vec![] };
                last(self, "Reshape", vec![x, target], attribute);
            }
            Op::Expand { shape } => {
                let target = self.sizes(&base, shape);
                last(self, "Expand", vec![x, target], vec![]);
            }
            Op::Transpose { perm } => last(self, "Transpose", names, vec![ints("perm", perm)]),
            Op::Concat { axis } => last(self, "Concat", names, vec![int("axis", *axis as i64)]),
            Op::Slice { begin, end, step } => {
                let dims = shape(0);
                let axes: Vec<usize> = (0..dims.len())
                    .filter(|&i| begin[i] != 0 || end[i] != dims[i] || step[i] != 1)
                    .collect();
                let pick = |list: &[usize]| axes.iter().map(|&a| list[a]).collect::<Vec<_>>();
                let lists = [pick(begin), pick(end), axes.clone(), pick(step)];
                let mut all = vec![x];
                for list in lists {
                    all.push(self.sizes(&base, &list));
                }
                last(self, "Slice", all, vec![]);
            }
            Op::Gather { axis } => last(self, "Gather", names, vec![int("axis", *axis as i64)]),
            Op::Resize { mode, size } => {
                let dims = shape(0);
                let sizes = self.sizes(&base, &[dims[0], dims[1], size[0], size[1]]);
                let attribute = match mode {
                    Resize::Nearest => {
                        vec![
                            text("mode", "nearest"),
                            text("coordinate_transformation_mode", "asymmetric"),
                            text("nearest_mode", "floor"),
                        ]
                    }
                    Resize::Linear => vec![
                        text("mode", "linear"),
                        text("coordinate_transformation_mode", "half_pixel"),
                    ],
                };
                last(self, "Resize", vec![x, String::new(), String::new(), sizes], attribute);
            }
            Op::Pad { before, after, value } => {
                let pads = self.sizes(&base, &[before.clone(), after.clone()].concat());
                let value = self.scalar(&base, *value);
                last(self, "Pad", vec![x, pads, value], vec![]);
            }
            Op::Reduce { kind: Reduce::Sum, axes, keep } => {
                let axes = self.sizes(&base, axes);
                last(self, "ReduceSum", vec![x, axes], vec![int("keepdims", i64::from(*keep))]);
            }
            Op::Reduce { axes, keep, .. } => last(
                self,
                op.name(),
                names,
                vec![ints("axes", axes), int("keepdims", i64::from(*keep))],
            ),
            Op::ArgMax { axis, keep } => {
                self.first_largest(name, inputs[0], *axis, *keep, base);
            }
            Op::Cast(to) => {
                last(self, "Cast", names, vec![int("to", data_type(*to) as i64)]);
            }
            Op::Host(host, _) => self.host(name, host, inputs, names),
        }
    }

    /// An operator of the host's engine, once for all its outputs. What they are is written down, as whoever reads the file could not tell.
    fn host(&mut self, name: &str, host: &Arc<HostOp>, inputs: &[ValueId], names: Vec<String>) {
        let same = |op: &Op| matches!(op, Op::Host(other, _) if Arc::ptr_eq(other, host));
        let mut output = vec![String::new(); host.outputs.len()];
        for node in self.graph.nodes().iter().filter(|n| same(&n.op) && n.inputs == inputs) {
            if let Op::Host(_, index) = node.op {
                output[index] = self.name(node.output);
            }
        }
        let first = output.iter().find(|o| !o.is_empty());
        if self.proto.value_info.iter().any(|known| known.name.as_ref() == first) {
            return;
        }
        let forms = output.iter().zip(&host.outputs).filter(|(o, _)| !o.is_empty());
        let known = forms.map(|(o, (dtype, shape))| described(o, *dtype, shape));
        self.proto.value_info.extend(known);
        let mut given = names.into_iter();
        let place =
            |&there: &bool| if there { given.next().unwrap_or_default() } else { "".into() };
        let kept = rockshard_onnx::decode_node(&host.attributes);
        self.proto.node.push(NodeProto {
            name: Some(name.to_owned()),
            op_type: Some(host.name.to_owned()),
            input: host.places.iter().map(place).collect(),
            output,
            attribute: kept.attribute,
            ..NodeProto::default()
        });
    }

    /// A constant under another shape: as a constant where it is one.
    fn reshaped(&mut self, id: ValueId, shape: &[usize], base: &str) -> String {
        match self.graph.constant(id).and_then(|t| t.to_float(DType::F32).ok()?.reshape(shape).ok())
        {
            Some(tensor) => self.literal(base, &tensor.detached()),
            None => {
                let target = self.sizes(base, shape);
                self.step(base, "Reshape", vec![self.name(id), target], vec![])
            }
        }
    }

    /// The sign of real numbers, 0 of 0.
    fn sign(&mut self, name: &str, x: &str, output: String) {
        let zero = self.scalar(&output, 0.0);
        let float = || vec![int("to", DataType::Float as i64)];
        let mut sides = Vec::new();
        for op in ["Greater", "Less"] {
            let side = self.step(&output, op, vec![x.to_owned(), zero.clone()], vec![]);
            sides.push(self.step(&output, "Cast", vec![side], float()));
        }
        self.push(name, "Sub", sides, output, vec![]);
    }

    /// ArgMax of whichever engine: of the places that hold the largest element, the first.
    fn first_largest(&mut self, name: &str, x: ValueId, axis: usize, keep: bool, output: String) {
        let shape = &self.graph.value(x).shape;
        let count = shape[axis];
        let along: Vec<usize> =
            (0..shape.len()).map(|a| if a == axis { count } else { 1 }).collect();
        let axes = || ints("axes", &[axis]);
        let attributes = vec![axes(), int("keepdims", 1)];
        let top = self.step(&output, "ReduceMax", vec![self.name(x)], attributes);
        let largest = self.step(&output, "Equal", vec![self.name(x), top], vec![]);
        let places = Tensor::from_i64(along, (0..count as i64).collect());
        let places = self.literal(&output, &places);
        // Where nothing is equal, which NaN makes so, the last place.
        let last = self.literal(&output, &Tensor::from_i64([], vec![count as i64 - 1]));
        let candidates = self.step(&output, "Where", vec![largest, places, last], vec![]);
        let attributes = vec![axes(), int("keepdims", i64::from(keep))];
        self.push(name, "ReduceMin", vec![candidates], output, attributes);
    }

    /// A single number added to a product, one for each column: rten joins the two and takes no other bias.
    fn whole_bias(&mut self, id: ValueId, inputs: &[ValueId], base: &str) -> String {
        let product =
            |&v: &ValueId| self.graph.nodes().iter().any(|n| n.output == v && n.op == Op::MatMul);
        let columns = inputs.iter().find(|v| product(v)).map(|&v| self.graph.value(v));
        match (columns.and_then(|c| c.shape.last()), self.graph.scalar(id)) {
            (Some(&columns), Some(value)) if self.graph.value(id).shape.len() < 2 => {
                self.literal(base, &Tensor::from_f32([columns], vec![value; columns]))
            }
            _ => self.name(id),
        }
    }

    fn erf_gate(&mut self, base: &str, x: &str) -> String {
        let root = self.scalar(base, std::f32::consts::SQRT_2);
        let quotient = self.step(base, "Div", vec![x.to_owned(), root], vec![]);
        self.step(base, "Erf", vec![quotient], vec![])
    }

    fn tanh_gate(&mut self, base: &str, x: &str) -> String {
        let three = self.scalar(base, 3.0);
        let cube = self.step(base, "Pow", vec![x.to_owned(), three], vec![]);
        let coefficient = self.scalar(base, 0.044715);
        let cubic = self.step(base, "Mul", vec![cube, coefficient], vec![]);
        let sum = self.step(base, "Add", vec![x.to_owned(), cubic], vec![]);
        let root =
            self.scalar(base, std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
        let argument = self.step(base, "Mul", vec![sum, root], vec![]);
        self.step(base, "Tanh", vec![argument], vec![])
    }
}
