//! Reads the tables of `examples/operators.rs`: every row becomes a graph of one operator with its epilogues.

use rockshard_graph::{Binary, Graph, Op, Resize, Unary, ValueId, Window};
use rockshard_tensor::{DType, Tensor};

/// A model: its operators with their number, and a graph of nothing but its inputs and outputs.
pub struct Table {
    pub rows: Vec<(usize, Graph)>,
    pub boundary: Graph,
}

pub fn read(text: &str) -> Table {
    let mut table = Table { rows: Vec::new(), boundary: Graph::new("boundary") };
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("model ") {
            Some(ends) => {
                let (inputs, outputs) = ends.split_once(" = ").unwrap();
                table.boundary.inputs =
                    inputs.split(' ').map(|s| value(&mut table.boundary, s)).collect();
                table.boundary.outputs =
                    outputs.split(' ').map(|s| value(&mut table.boundary, s)).collect();
            }
            None => {
                let (count, row) = line.split_once(' ').unwrap();
                table.rows.push((count.parse().unwrap(), operator(row)));
            }
        }
    }
    table
}

fn extents(text: &str) -> Vec<usize> {
    if text == "." { Vec::new() } else { text.split('x').map(|n| n.parse().unwrap()).collect() }
}

fn value(graph: &mut Graph, text: &str) -> ValueId {
    let name = format!("v{}", graph.values().len());
    match text.strip_prefix('*') {
        // Only shapes matter: a scalar stands for the elements.
        Some(shape) => {
            let id = graph.add_constant(name, Tensor::from_f32([1], vec![2.0]));
            graph.value_mut(id).shape = extents(shape);
            id
        }
        None => graph.add_value(name, DType::F32, extents(text)),
    }
}

fn operator(row: &str) -> Graph {
    let mut graph = Graph::new(row);
    let (left, right) = row.split_once(" = ").unwrap();
    let mut left = left.split(' ');
    let head = left.next().unwrap();
    let inputs: Vec<ValueId> = left.map(|s| value(&mut graph, s)).collect();
    let mut right = right.split(' ');
    let shape = extents(right.next().unwrap());
    let mut last = node(&mut graph, op(head, &shape), inputs, &shape);
    for epilogue in right {
        let channel = if head.starts_with("Conv") {
            format!("*{}x1x1", shape[1])
        } else {
            format!("*{}", shape[shape.len() - 1])
        };
        let residual = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        last = match epilogue {
            "+bias" | "+residual" => {
                let other =
                    value(&mut graph, if epilogue == "+bias" { &channel } else { &residual });
                node(&mut graph, Op::Binary(Binary::Add), vec![last, other], &shape)
            }
            activation => node(&mut graph, op(&activation[1..], &shape), vec![last], &shape),
        };
    }
    graph.outputs = vec![last];
    graph
}

fn node(graph: &mut Graph, op: Op, inputs: Vec<ValueId>, shape: &[usize]) -> ValueId {
    let name = format!("n{}", graph.nodes().len());
    let out = graph.add_value(name.clone(), DType::F32, shape.to_vec());
    graph.add_node(name, op, inputs, out);
    out
}

/// An operator of which only what the model asks for is filled in.
fn op(head: &str, shape: &[usize]) -> Op {
    let mut parts = head.split(':');
    let name = parts.next().unwrap();
    let attributes: Vec<Vec<usize>> = parts.map(extents).collect();
    match name {
        "Conv" => {
            let [kernel, strides] = [0, 1].map(|i| [attributes[i][0], attributes[i][1]]);
            Op::Conv {
                window: Window { kernel, strides, pads: [0; 4], dilations: [1, 1] },
                group: attributes[2][0],
            }
        }
        "MatMul" => Op::MatMul,
        "Attention" => Op::Attention { scale: 1.0 },
        "LayerNormalization" => Op::LayerNorm { axis: shape.len() - 1, epsilon: 1e-5 },
        "GroupNormalization" => Op::GroupNorm { groups: 32, epsilon: 1e-5 },
        "Swish" => Op::Swish { beta: 1.0 },
        "Gelu" => Op::Gelu { tanh: true },
        "Relu" => Op::Unary(Unary::Relu),
        "Add" => Op::Binary(Binary::Add),
        "Mul" => Op::Binary(Binary::Mul),
        "Reshape" => Op::Reshape { shape: shape.to_vec() },
        "Transpose" => Op::Transpose { perm: attributes[0].clone() },
        "Concat" => Op::Concat { axis: 1 },
        "Slice" => Op::Slice { begin: Vec::new(), end: Vec::new(), step: attributes[0].clone() },
        "Resize" => Op::Resize { mode: Resize::Nearest, size: [shape[2], shape[3]] },
        other => panic!("operator {other:?} of a table is not known: add it to tests/table/mod.rs"),
    }
}
