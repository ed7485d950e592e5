//! Operators on values too large for the memory: strip by strip, with the result in a file.

use crate::ConvertError;
use crate::passes::constant_part;
use bytes::Bytes;
use rockshard_graph::{Graph, Node, Op, ValueId, Window, infer};
use rockshard_tensor::{DType, MappedFile, Tensor};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that a strip may have of its largest value.
const STRIP: usize = 12 << 20;

/// What a strip takes of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    Whole,
    Range { axis: usize, from: usize, to: usize },
}

/// A part of a node's result along an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Strip {
    pub from: usize,
    pub to: usize,
    pub op: Op,
    pub inputs: Vec<Take>,
}

/// The strips of a node's result and their axis; none for operators that are not made so.
pub(super) fn strips(graph: &Graph, node: &Node) -> Option<(usize, Vec<Strip>)> {
    let shape = &graph.value(node.output).shape;
    let &[_, channels, height, _] = &shape[..] else { return None };
    let values = node.inputs.iter().filter(|&&v| graph.constant(v).is_none()).chain([&node.output]);
    let largest = values.map(|&v| graph.value(v).count() * size_of::<f32>()).max()?;
    let count = largest.div_ceil(STRIP);
    let bounds = |extent: usize, unit: usize| {
        let units = extent / unit;
        let count = count.clamp(1, units);
        (0..count).map(move |i| (units * i / count * unit, units * (i + 1) / count * unit))
    };
    // Along the channels, with the inputs that have them.
    let by_channels = |unit: usize, of: &dyn Fn(usize) -> Op| {
        let take = |v: &ValueId, from, to| {
            let own = &graph.value(*v).shape;
            let axis = if own.len() == 1 { Some(0) } else { (own.len() + 1).checked_sub(4) };
            let axis = axis.filter(|&a| own.get(a) == Some(&channels) && channels > 1);
            axis.map_or(Take::Whole, |axis| Take::Range { axis, from, to })
        };
        let strip = |(from, to)| {
            let inputs = node.inputs.iter().map(|v| take(v, from, to)).collect();
            Strip { from, to, op: of(to - from), inputs }
        };
        (1, bounds(channels, unit).map(strip).collect::<Vec<_>>())
    };
    match &node.op {
        Op::Conv { window, group: 1 } => {
            let rows = graph.value(node.inputs[0]).shape[2];
            let strip = |(from, to)| conv_rows(window, rows, node.inputs.len(), from, to);
            Some((2, bounds(height, 1).map(strip).collect()))
        }
        Op::GroupNorm { groups, epsilon } => {
            let (unit, epsilon) = (channels / groups, *epsilon);
            Some(by_channels(unit, &|n| Op::GroupNorm { groups: n / unit, epsilon }))
        }
        Op::InstanceNorm { .. }
        | Op::Unary(_)
        | Op::Swish { .. }
        | Op::Gelu { .. }
        | Op::Clip { .. }
        | Op::Resize { .. } => Some(by_channels(1, &|_| node.op.clone())),
        // A vector that a binary operator broadcasts runs along the last axis, not the channels.
        Op::Binary(_) if node.inputs.iter().all(|&v| graph.value(v).shape.len() != 1) => {
            Some(by_channels(1, &|_| node.op.clone()))
        }
        _ => None,
    }
}

/// Rows of a convolution's result, from the rows of its input that they need.
fn conv_rows(window: &Window, rows: usize, inputs: usize, from: usize, to: usize) -> Strip {
    let (stride, above) = (window.strides[0], window.pads[0]);
    let reach = (window.kernel[0] - 1) * window.dilations[0] + 1;
    let (first, last) = (from * stride, (to - 1) * stride + reach);
    let pads = [
        above.saturating_sub(first),
        window.pads[1],
        last.saturating_sub(rows + above),
        window.pads[3],
    ];
    let range =
        Take::Range { axis: 2, from: first.saturating_sub(above), to: (last - above).min(rows) };
    let mut takes = vec![Take::Whole; inputs];
    takes[0] = range;
    let op = Op::Conv { window: Window { pads, ..window.clone() }, group: 1 };
    Strip { from, to, op, inputs: takes }
}

/// The graph of one strip: its flowing inputs in the node's order, then its constants.
pub(super) fn strip_graph(graph: &Graph, node: &Node, strip: &Strip) -> Graph {
    let mut out = Graph::new("strip");
    let mut ids = Vec::new();
    for (&v, take) in node.inputs.iter().zip(&strip.inputs) {
        let value = graph.value(v);
        let name = format!("{}.{}", value.name, ids.len());
        ids.push(match (&value.constant, *take) {
            (Some(tensor), Take::Whole) => out.add_constant(name, tensor.clone()),
            (Some(tensor), Take::Range { axis, from, to }) => {
                out.add_constant(name, constant_part(tensor, axis, from, to))
            }
            (None, take) => {
                let mut shape = value.shape.clone();
                if let Take::Range { axis, from, to } = take {
                    shape[axis] = to - from;
                }
                let id = out.add_value(name, value.dtype, shape);
                out.inputs.push(id);
                id
            }
        });
    }
    let values: Vec<_> = ids.iter().map(|&v| out.value(v)).collect();
    let (dtype, shape) =
        infer(&strip.op, &values).unwrap_or_else(|e| panic!("strip of {}: {e}", node.name));
    let output = out.add_value(format!("{}.strip", node.name), dtype, shape);
    out.add_node(node.name.clone(), strip.op.clone(), ids, output);
    out.outputs.push(output);
    out
}

/// A part of a tensor along an axis.
pub(super) fn taken(tensor: &Tensor, take: Take) -> Result<Tensor, ConvertError> {
    let Take::Range { axis, from, to } = take else { return Ok(tensor.clone()) };
    let mut shape = tensor.shape().to_vec();
    let (inner, extent) = (row_bytes(tensor.dtype(), &shape, axis), shape[axis]);
    let outer: usize = shape[..axis].iter().product();
    shape[axis] = to - from;
    let piece = |i: usize| (i * extent + from) * inner..(i * extent + to) * inner;
    let bytes = if outer == 1 {
        tensor.bytes().slice(piece(0))
    } else {
        let mut all = Vec::with_capacity(outer * (to - from) * inner);
        (0..outer).for_each(|i| all.extend_from_slice(&tensor.bytes()[piece(i)]));
        Bytes::from(all)
    };
    Tensor::new(tensor.dtype(), shape, bytes).map_err(ConvertError::tensor("a strip"))
}

fn row_bytes(dtype: DType, shape: &[usize], axis: usize) -> usize {
    shape[axis + 1..].iter().product::<usize>() * dtype.size()
}

/// A value that is written strip by strip, and then read from its file.
pub(super) struct Large {
    file: File,
    shape: Vec<usize>,
    axis: usize,
}

impl Large {
    pub fn create(path: &Path, shape: &[usize], axis: usize) -> Result<Self, ConvertError> {
        let file = File::create(path).map_err(ConvertError::io(path))?;
        Ok(Large { file, shape: shape.to_vec(), axis })
    }

    /// Put a strip where it belongs.
    pub fn put(&self, strip: &Tensor, from: usize, path: &Path) -> Result<(), ConvertError> {
        let inner = row_bytes(strip.dtype(), &self.shape, self.axis);
        let piece = (strip.shape()[self.axis] * inner).max(1);
        for (i, part) in strip.bytes().chunks(piece).enumerate() {
            let at = (i * self.shape[self.axis] + from) * inner;
            self.file.write_all_at(part, at as u64).map_err(ConvertError::io(path))?;
        }
        Ok(())
    }

    /// The value. Its file has no name any more and ends with it.
    pub fn finish(self, path: &Path) -> Result<Held, ConvertError> {
        let map = MappedFile::open(path).map_err(ConvertError::io(path))?;
        std::fs::remove_file(path).map_err(ConvertError::io(path))?;
        let tensor = Tensor::new(DType::F32, self.shape, map.bytes().clone());
        Ok(Held { tensor: tensor.map_err(ConvertError::tensor("a value"))?, map: Some(map) })
    }
}

/// A value between pieces: in memory, or in a file.
#[derive(Clone)]
pub(super) struct Held {
    pub tensor: Tensor,
    map: Option<MappedFile>,
}

impl Held {
    pub fn in_memory(tensor: Tensor) -> Self {
        Held { tensor, map: None }
    }

    /// Put a value of this many bytes and more in a file.
    pub fn kept(tensor: Tensor, least: usize, path: &Path) -> Result<Self, ConvertError> {
        if tensor.dtype() != DType::F32 || tensor.bytes().len() < least {
            return Ok(Held::in_memory(tensor));
        }
        let file = Large::create(path, tensor.shape(), 0)?;
        file.put(&tensor, 0, path)?;
        file.finish(path)
    }

    pub fn release(&self) {
        self.map.iter().for_each(MappedFile::release_pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rockshard_graph::Binary;
    use rockshard_kernels::{Precision, evaluate};

    /// A node over a large value, in strips, is the node.
    #[test]
    fn strips_are_the_whole() {
        let side = 900;
        let window = |kernel, stride, pads| Window {
            kernel: [kernel; 2],
            strides: [stride; 2],
            pads,
            dilations: [1; 2],
        };
        let conv = |k, s, pads| Op::Conv { window: window(k, s, pads), group: 1 };
        let weight = |k: usize| Tensor::from_f32([2, 16, k, k], vec![0.25; 32 * k * k]);
        let vector = |n: usize| Tensor::from_f32([n], (0..n).map(|i| i as f32 - 3.5).collect());
        let wide = Tensor::from_f32([16, 1, 1], (0..16).map(|i| i as f32).collect());
        let table: Vec<(Op, Vec<Tensor>)> = vec![
            (conv(3, 1, [1; 4]), vec![weight(3), vector(2)]),
            (conv(3, 2, [0, 0, 1, 1]), vec![weight(3)]),
            (conv(1, 1, [0; 4]), vec![weight(1)]),
            (Op::GroupNorm { groups: 4, epsilon: 1e-5 }, vec![vector(16), vector(16)]),
            (Op::Binary(Binary::Mul), vec![wide]),
            (Op::Binary(Binary::Add), vec![Tensor::scalar(2.0).reshape([1, 1]).unwrap()]),
            (Op::Swish { beta: 1.0 }, vec![]),
        ];
        let elements = 16 * side * side;
        let x = (0..elements).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect();
        let x = Tensor::from_f32([1, 16, side, side], x);
        let folder = tempfile::tempdir().unwrap();
        for (op, constants) in table {
            let mut graph = Graph::new("large");
            let mut inputs = vec![graph.add_value("x", DType::F32, x.shape().to_vec())];
            graph.inputs = inputs.clone();
            let named = constants.iter().enumerate();
            inputs.extend(named.map(|(i, t)| graph.add_constant(format!("c{i}"), t.clone())));
            let values: Vec<_> = inputs.iter().map(|&v| graph.value(v)).collect();
            let (dtype, shape) = infer(&op, &values).unwrap();
            let y = graph.add_value("y", dtype, shape.clone());
            graph.add_node("node", op.clone(), inputs, y);
            let node = &graph.nodes()[0];
            let all: Vec<&Tensor> = [&x].into_iter().chain(&constants).collect();
            let expected = evaluate(&op, &all, Precision::F32).unwrap();
            let (axis, strips) = strips(&graph, node).unwrap();
            assert!(strips.len() > 1, "{op:?}");
            let path = folder.path().join("y");
            let large = Large::create(&path, &shape, axis).unwrap();
            for strip in &strips {
                let alone = strip_graph(&graph, node, strip);
                alone.verify().unwrap();
                let part = taken(&x, strip.inputs[0]).unwrap();
                let given = alone.nodes()[0].inputs.iter();
                let given = given.map(|&v| alone.constant(v).unwrap_or(&part));
                let made = evaluate(&strip.op, &given.collect::<Vec<_>>(), Precision::F32).unwrap();
                large.put(&made, strip.from, &path).unwrap();
            }
            let found = large.finish(&path).unwrap().tensor;
            let (found, expected) = (found.to_f32().unwrap(), expected.to_f32().unwrap());
            let differences = found.iter().zip(expected.iter()).map(|(a, b)| (a - b).abs());
            let worst = differences.fold(0.0, f32::max);
            assert!(worst < 1e-4, "{op:?}: {worst}");
        }
    }
}
