//! A graph in text, for people: its inputs, a line a node in running order, its outputs.
//!
//! ```text
//! inputs: x [1, 16, 8]
//! h [1, 16, 8] = MatMul(x, w [8, 8] ±0.7)
//! y [1, 16, 8] = Mul(h, 0.5)
//! outputs: y
//! ```
//!
//! Of a constant there is its number, or its shape and, of real ones, the largest magnitude. Shapes tell what Reshape and Expand do, so that
//! their attributes are left out, as are those of operators that only the host has.

use crate::{Graph, Op, Unary, ValueId, Window};
use std::fmt::{self, Display, Formatter};

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |ids: &[ValueId], text: &dyn Fn(ValueId) -> String| {
            ids.iter().map(|&id| text(id)).collect::<Vec<_>>().join(", ")
        };
        let shaped = |id: ValueId| format!("{} {:?}", self.value(id).name, self.value(id).shape);
        writeln!(f, "inputs: {}", list(&self.inputs, &shaped))?;
        for node in self.nodes() {
            let inputs = list(&node.inputs, &|id| self.operand(id));
            let (name, attributes) = (node.op.name(), attributes(&node.op));
            let end = if attributes.is_empty() { String::new() } else { format!("; {attributes}") };
            writeln!(f, "{} = {name}({inputs}{end})", shaped(node.output))?;
        }
        write!(f, "outputs: {}", list(&self.outputs, &|id| self.value(id).name.clone()))
    }
}

impl Graph {
    /// An input of a node: a value's name, a single number, or a constant's shape and largest magnitude.
    fn operand(&self, id: ValueId) -> String {
        let value = self.value(id);
        let Some(tensor) = &value.constant else { return value.name.clone() };
        let number = self.scalar(id).filter(|_| tensor.dtype().is_float());
        match (number, tensor.to_f32()) {
            (Some(number), _) => short(number),
            (None, Ok(elements)) if tensor.dtype().is_float() => {
                let largest = elements.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                format!("{} {:?} ±{}", value.name, value.shape, short(largest))
            }
            _ => format!("{} {:?}", value.name, value.shape),
        }
    }
}

/// A number as it is where that is short, else in three digits.
fn short(number: f32) -> String {
    const SHORT: usize = 6;
    let rounded = format!("{number:.2e}").parse::<f32>().unwrap_or(number);
    let mut plain = [number, rounded].map(|n| n.to_string()).into_iter();
    plain.find(|text| text.len() <= SHORT).unwrap_or_else(|| format!("{rounded:e}"))
}

/// What of an operator its inputs and its output's shape do not tell.
fn attributes(op: &Op) -> String {
    let pairs = |a: &[usize], b: &[usize]| {
        a.iter().zip(b).map(|(a, b)| format!("{a}:{b}")).collect::<Vec<_>>().join(", ")
    };
    match op {
        Op::Conv { window, group } | Op::ConvTranspose { window, group, .. } => {
            let groups = if *group == 1 { String::new() } else { format!(", groups {group}") };
            format!("{}{groups}", geometry(window))
        }
        Op::Pool { window, .. } => geometry(window),
        Op::Unary(Unary::LeakyRelu(slope)) => format!("slope {}", short(*slope)),
        Op::Clip { min, max } => format!("{} to {}", short(*min), short(*max)),
        Op::Softmax { axis } | Op::Concat { axis } | Op::Gather { axis } => format!("axis {axis}"),
        Op::ArgMax { axis, .. } => format!("axis {axis}"),
        Op::LayerNorm { axis, epsilon } => format!("axis {axis}, epsilon {}", short(*epsilon)),
        Op::InstanceNorm { epsilon } => format!("epsilon {}", short(*epsilon)),
        Op::GroupNorm { groups, epsilon } => {
            format!("groups {groups}, epsilon {}", short(*epsilon))
        }
        Op::Attention { scale } => format!("scale {}", short(*scale)),
        Op::Swish { beta } => format!("beta {}", short(*beta)),
        Op::Gelu { tanh: true } => "tanh".into(),
        Op::Transpose { perm } => format!("axes {perm:?}"),
        Op::Slice { begin, end, step } if step.iter().all(|&s| s == 1) => pairs(begin, end),
        Op::Slice { begin, end, step } => format!("{} by {step:?}", pairs(begin, end)),
        Op::Pad { before, after, value } => {
            format!("{} around, of {}", pairs(before, after), short(*value))
        }
        Op::Reduce { axes, .. } => format!("axes {axes:?}"),
        Op::Cast(dtype) => format!("to {dtype}"),
        _ => String::new(),
    }
}

/// A window's kernel, and of the rest what is not usual.
fn geometry(window: &Window) -> String {
    let by = |[a, b]: [usize; 2]| format!("{a}x{b}");
    let mut text = format!("kernel {}", by(window.kernel));
    let unusual = [("strides", window.strides), ("dilations", window.dilations)];
    for (name, pair) in unusual.into_iter().filter(|(_, pair)| *pair != [1, 1]) {
        text += &format!(", {name} {}", by(pair));
    }
    if window.pads != [0; 4] {
        text += &format!(", pads {:?}", window.pads);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Binary;
    use rockshard_tensor::{DType, Tensor};

    #[test]
    fn numbers_are_short() {
        let told = [
            (0.5, "0.5"),
            (-30000.0, "-30000"),
            (0.000_010_0, "1e-5"),
            (1.0 / 3.0, "0.333"),
            (f32::MIN, "-3.4e38"),
            (f32::INFINITY, "inf"),
        ];
        for (number, text) in told {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn a_graph_is_a_line_a_node() {
        let mut graph = Graph::new("g");
        let x = graph.add_value("x", DType::F32, vec![4]);
        let weight = graph.add_constant("w", Tensor::from_f32([4], vec![0.25, -2.0, 1.0, 0.0]));
        let half = graph.add_constant("half", Tensor::scalar(0.5));
        let indices = graph.add_constant("i", Tensor::from_i64([2], vec![3, 0]));
        let [sum, product, y] = [("sum", 4), ("product", 4), ("y", 2)]
            .map(|(name, extent)| graph.add_value(name, DType::F32, vec![extent]));
        graph.add_node("a", Op::Binary(Binary::Add), vec![x, weight], sum);
        graph.add_node("b", Op::Binary(Binary::Mul), vec![sum, half], product);
        graph.add_node("c", Op::Gather { axis: 0 }, vec![product, indices], y);
        (graph.inputs, graph.outputs) = (vec![x], vec![y]);
        let expected = "inputs: x [4]\n\
            sum [4] = Add(x, w [4] ±2)\n\
            product [4] = Mul(sum, 0.5)\n\
            y [2] = Gather(product, i [2]; axis 0)\n\
            outputs: y";
        assert_eq!(graph.to_string(), expected);
    }
}
