//! Random edits of an ONNX message that keep it a message.

use prost::Message;
use rockshard_onnx::schema::tensor_shape_proto::dimension::Value as Extent;
use rockshard_onnx::schema::type_proto::Value as Kind;
use rockshard_onnx::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

const OPERATORS: &str = "\
    Abs Add And ArgMax AveragePool Cast CastLike Clip Concat Constant ConstantOfShape Conv Cos Div Dropout Equal Erf Exp \
    Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool Greater GreaterOrEqual GroupNormalization Identity \
    InstanceNormalization IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Min Mod Mul Neg Not Or Pad Pow \
    Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Shape Sigmoid Sin Size Slice \
    Softmax Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where";
const ATTRIBUTES: &str = "\
    allowzero alpha approximate auto_pad axes axis beta ceil_mode coordinate_transformation_mode count_include_pad dilations \
    end epsilon fmod group keepdims kernel_shape mode nearest_mode noop_with_empty_axes num_groups num_outputs pads perm \
    select_last_index start strides to transA transB upper value value_float value_floats value_int value_ints";
const WORDS: &str =
    "asymmetric constant floor half_pixel linear nearest NOTSET SAME_LOWER SAME_UPPER tanh VALID";
const EDGES: &[i64] = &[
    0,
    0,
    1,
    1,
    1,
    2,
    2,
    3,
    4,
    8,
    -1,
    -1,
    -2,
    33,
    4096,
    1 << 22,
    1 << 31,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }

    fn of_mut<'a, T>(&mut self, list: &'a mut [T]) -> Option<&'a mut T> {
        let at = self.below(list.len());
        list.get_mut(at)
    }

    fn word(&mut self, list: &str) -> Option<String> {
        let at = self.below(list.split(' ').count());
        list.split(' ').nth(at).map(str::to_owned)
    }

    fn extent(&mut self) -> i64 {
        EDGES[self.below(EDGES.len())]
    }

    fn extents(&mut self, list: &mut Vec<i64>) {
        let value = self.extent();
        match self.below(4) {
            0 if list.len() < 8 => list.push(value),
            1 if !list.is_empty() => list.truncate(list.len() - 1),
            _ => {
                if let Some(extent) = self.of_mut(list) {
                    *extent = value;
                }
            }
        }
    }
}

/// The model with one to four edits; `None` without a graph.
pub fn message(model: &ModelProto, seed: u32) -> Option<Vec<u8>> {
    let mut model = model.clone();
    let mut random = Random(seed.into());
    for _ in 0..=random.below(4) {
        if random.below(16) == 0 {
            let opset = 14 + random.below(6) as i64;
            model.opset_import.iter_mut().for_each(|o| o.version = Some(opset));
        }
        edit(model.graph.as_mut()?, &mut random);
    }
    Some(model.encode_to_vec())
}

fn edit(graph: &mut GraphProto, random: &mut Random) {
    match random.below(10) {
        0 => add_node(graph, random),
        1 => {
            if let Some(node) = random.of_mut(&mut graph.node) {
                node.op_type = random.word(OPERATORS);
            }
        }
        2 | 3 => rewire(graph, random),
        4 | 5 => {
            if let Some(node) = random.of_mut(&mut graph.node) {
                attribute(node, random);
            }
        }
        6 | 7 => {
            if let Some(tensor) = random.of_mut(&mut graph.initializer) {
                constant(tensor, random);
            }
        }
        8 => add_constant(graph, random),
        _ => {
            if let Some(input) = random.of_mut(&mut graph.input) {
                declare(input, random);
            }
        }
    }
}

/// Names a node can read.
fn names(graph: &GraphProto) -> Vec<String> {
    let inputs = graph.input.iter().filter_map(|i| i.name.clone());
    let constants = graph.initializer.iter().filter_map(|t| t.name.clone());
    inputs
        .chain(constants)
        .chain(graph.node.iter().flat_map(|n| n.output.iter().cloned()))
        .collect()
}

/// Put a new node between an output and what makes it.
fn add_node(graph: &mut GraphProto, random: &mut Random) {
    if graph.node.len() > 24 {
        return;
    }
    let names = names(graph);
    let fresh = format!("n{}", graph.node.len());
    let Some(node) = random.of_mut(&mut graph.node) else { return };
    let Some(output) = node.output.first_mut() else { return };
    let made = std::mem::replace(output, fresh.clone());
    let mut input = vec![fresh];
    for _ in 0..random.below(4) {
        input.extend(random.of(&names).cloned());
    }
    let op_type = random.word(OPERATORS);
    graph.node.push(NodeProto { op_type, input, output: vec![made], ..NodeProto::default() });
}

fn rewire(graph: &mut GraphProto, random: &mut Random) {
    let names = names(graph);
    let Some(node) = random.of_mut(&mut graph.node) else { return };
    match random.below(6) {
        0 => node.input.extend(random.of(&names).cloned()),
        1 => drop(node.input.pop()),
        2 => {
            let (a, b) = (random.below(node.input.len()), random.below(node.input.len()));
            if !node.input.is_empty() {
                node.input.swap(a, b);
            }
        }
        _ => {
            if let (Some(input), Some(name)) = (random.of_mut(&mut node.input), random.of(&names)) {
                input.clone_from(name);
            }
        }
    }
}

fn attribute(node: &mut NodeProto, random: &mut Random) {
    if random.below(3) == 0 {
        let name = random.word(ATTRIBUTES);
        node.attribute.push(AttributeProto {
            name,
            i: Some(random.extent()),
            ints: vec![random.extent(); random.below(5)],
            ..AttributeProto::default()
        });
    }
    let Some(attribute) = random.of_mut(&mut node.attribute) else { return };
    match random.below(4) {
        0 => attribute.i = Some(random.extent()),
        1 => attribute.s = random.word(WORDS).map(|w| w.into_bytes().into()),
        2 if attribute.t.is_some() => {
            if let Some(tensor) = &mut attribute.t {
                constant(tensor, random);
            }
        }
        _ => random.extents(&mut attribute.ints),
    }
}

/// Change a constant's values, its shape or its type.
fn constant(tensor: &mut TensorProto, random: &mut Random) {
    const INT64: i32 = 7;
    match random.below(4) {
        0 => random.extents(&mut tensor.dims),
        1 => tensor.data_type = Some(random.below(17) as i32),
        // Enough zeros for the shape, where that is little.
        2 => {
            let count = tensor
                .dims
                .iter()
                .try_fold(8i64, |n, &d| n.checked_mul(d))
                .filter(|n| (0..512).contains(n));
            tensor.raw_data = count.map(|n| vec![0; n as usize].into());
        }
        _ => {
            let mut bytes = tensor.raw_data.take().unwrap_or_default().to_vec();
            if tensor.data_type == Some(INT64) {
                let at = random.below(bytes.len() / 8) * 8;
                if let Some(place) = bytes.get_mut(at..at + 8) {
                    place.copy_from_slice(&random.extent().to_le_bytes());
                }
            } else if let Some(byte) = random.of_mut(&mut bytes) {
                *byte = random.next() as u8;
            }
            tensor.raw_data = Some(bytes.into());
        }
    }
}

/// A list of integers that operators can read as a shape, axes and the like.
fn add_constant(graph: &mut GraphProto, random: &mut Random) {
    if graph.initializer.len() > 24 {
        return;
    }
    let values: Vec<i64> = (0..random.below(6)).map(|_| random.extent()).collect();
    let name = Some(format!("c{}", graph.initializer.len()));
    let raw_data = Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into());
    graph.initializer.push(TensorProto {
        name: name.clone(),
        dims: vec![values.len() as i64],
        data_type: Some(7),
        raw_data,
        ..TensorProto::default()
    });
    if let (Some(node), Some(name)) = (random.of_mut(&mut graph.node), name) {
        let at = random.below(node.input.len() + 1);
        match node.input.get_mut(at) {
            Some(input) => *input = name,
            None => node.input.push(name),
        }
    }
}

fn declare(input: &mut ValueInfoProto, random: &mut Random) {
    let Some(Kind::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
    else {
        return;
    };
    if random.below(4) == 0 {
        tensor.elem_type = Some([1, 6, 7, 9, 10][random.below(5)]);
    }
    if let Some(dim) = tensor.shape.as_mut().and_then(|s| random.of_mut(&mut s.dim)) {
        dim.value = Some(Extent::DimValue(random.extent()));
    }
}
