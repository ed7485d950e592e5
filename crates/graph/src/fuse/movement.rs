//! Moves of elements that undo or follow each other.

use super::Match;
use crate::{NodeId, Op, Patch, Window};

/// Zeros around a convolution's input become its own padding. (rknn-toolkit2 2.5.0 fails on that fusion when the amounts are stored in
/// the model file.)
pub(super) fn pad_into_conv(m: &Match<'_>, id: NodeId, _: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    let Op::Conv { window, group } = &node.op else { return None };
    let pad = m.inner(node.inputs[0])?;
    let Op::Pad { before, after, value } = &pad.op else { return None };
    if *value != 0.0 || before.len() != 4 || before[..2] != [0, 0] || after[..2] != [0, 0] {
        return None;
    }
    let [top, left, bottom, right] = window.pads;
    let pads = [top + before[2], left + before[3], bottom + after[2], right + after[3]];
    let window = Window { pads, ..window.clone() };
    let mut inputs = node.inputs.clone();
    inputs[0] = pad.inputs[0];
    let mut patch = Patch::new(m.graph, id, format!("padding of {}", node.name));
    let out = patch.node(m.graph, node.name.clone(), Op::Conv { window, group: *group }, inputs);
    patch.replace(node.output, out);
    Some(patch)
}

/// A slice of joined values that is just one of them, as where sines and cosines change places. (rknn-toolkit2 2.5.0 turns that into a
/// convolution of two-axis values, and dies of it.)
pub(super) fn slice_of_concat(m: &Match<'_>, id: NodeId, _: &mut Vec<String>) -> Option<Patch> {
    let node = m.graph.node(id);
    let Op::Slice { begin, end, step } = &node.op else { return None };
    let joined = m.maker(node.inputs[0])?;
    let Op::Concat { axis } = joined.op else { return None };
    let whole = |a: usize| begin[a] == 0 && end[a] == m.shape(node.inputs[0])[a];
    if step.iter().any(|&s| s != 1)
        || (0..begin.len()).any(|a| a != axis && !whole(a))
        || m.links.is_output(node.output)
    {
        return None;
    }
    let mut start = 0;
    for &input in &joined.inputs {
        let stop = start + m.shape(input)[axis];
        if (begin[axis], end[axis]) == (start, stop) {
            let mut patch = Patch::new(m.graph, id, format!("{} of {}", node.name, joined.name));
            patch.replace(node.output, input);
            return Some(patch);
        }
        start = stop;
    }
    None
}
