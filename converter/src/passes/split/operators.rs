//! How each operator is divided.

use super::super::BAND_MARK;
use super::{Form, Longer, Piece, Splitter, even};
use rockshard_graph::{Node, Op, ValueId, Window};

/// Rows that the multiplier array takes at once (docs/rk3588.md 2.4), and fewest rows that are worth dividing.
const ROW_UNIT: usize = 16;
const FEWEST_ROWS: usize = 48;
/// Groups that diffusion models' norms have: channels are divided between groups, so that a norm needs no other core's channels.
const GROUPS: usize = 32;
/// Channels that the NPU's layout stores together (docs/rk3588.md 1.3). A norm of another number of channels is transposed on the CPU.
const CHANNEL_UNIT: usize = 8;

/// Least common multiple.
fn lcm(a: usize, b: usize) -> usize {
    (1..=b).map(|k| a * k).find(|m| m % b == 0).unwrap_or(a * b)
}

impl Splitter<'_> {
    /// A node that is not the host's.
    pub(super) fn divided(&mut self, node: &Node) -> Form {
        let form = match &node.op {
            Op::Conv { window, group: 1 } => self.conv(node, window),
            Op::GroupNorm { groups, .. } => self.group_norm(node, *groups),
            Op::MatMul => self.product(node),
            Op::Attention { .. } => self.attention(node),
            Op::LayerNorm { axis, .. } => self.rows_before(node, *axis),
            Op::Binary(_) => self.binary(node),
            Op::Unary(_) | Op::Swish { .. } | Op::Gelu { .. } | Op::Clip { .. } => {
                self.alike(node, |op, _, _| Some((op.clone(), None)))
            }
            Op::Transpose { perm } => {
                let perm = perm.clone();
                self.alike(node, move |op, axis, _| {
                    Some((op.clone(), Some(perm.iter().position(|&p| p == axis)?)))
                })
            }
            Op::Reshape { shape } => self.reshape(node, shape),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::Slice { begin, end, step } => self.slice(node, begin, end, step),
            Op::Resize { .. } => {
                self.alike(node, |op, axis, _| (axis == 1).then(|| (op.clone(), None)))
            }
            _ => None,
        };
        form.unwrap_or_else(|| {
            let heavy = matches!(
                node.op,
                Op::Conv { .. }
                    | Op::MatMul
                    | Op::Attention { .. }
                    | Op::GroupNorm { .. }
                    | Op::LayerNorm { .. }
            );
            if heavy && self.parts > 1 {
                self.declined.push(format!(
                    "split: {}: too few channels or rows to divide, stays on core 0",
                    node.name
                ));
            }
            self.undivided(node, Some(0))
        })
    }

    fn piece(
        &mut self,
        node: &Node,
        op: Op,
        inputs: Vec<ValueId>,
        (from, to): (usize, usize),
        core: u8,
    ) -> Piece {
        let name = format!("{}.{from}-{to}", node.name);
        Piece { from, to, id: self.add(name, op, inputs, Some(core)), core }
    }

    /// Where channels are divided.
    fn channel_bounds(&self, channels: usize, groups: usize) -> Vec<(usize, usize)> {
        let unit = if channels.is_multiple_of(groups) && channels / groups > 1 {
            channels / groups
        } else {
            ROW_UNIT
        };
        even(channels, lcm(unit, CHANNEL_UNIT), self.parts, Longer::Last)
    }

    fn conv(&mut self, node: &Node, window: &Window) -> Option<Form> {
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        self.source.constant(weight)?;
        if node.inputs.get(2).is_some_and(|&b| self.source.constant(b).is_none()) {
            return None;
        }
        let &[_, channels, height, _] = self.shape(node.output) else { return None };
        let pointwise =
            window.kernel == [1, 1] && window.strides == [1, 1] && window.pads == [0; 4];
        // Tokens follow from rows of the plane.
        if pointwise && (self.becomes_tokens(node.output) || self.pieces(x, 2).is_some()) {
            let given =
                self.pieces(x, 2).map(|p| p.iter().map(|p| (p.from, p.to, p.core)).collect());
            let bounds = given.unwrap_or_else(|| self.even_rows(height, 1));
            return Some(self.conv_rows(node, window, &bounds));
        }
        if channels >= FEWEST_ROWS {
            let mut pieces = Vec::new();
            for (core, bounds) in (0u8..).zip(self.channel_bounds(channels, GROUPS)) {
                let mut inputs = vec![self.whole(x, core), self.range(weight, 0, bounds, core)];
                if let Some(&bias) = node.inputs.get(2) {
                    inputs.push(self.range(bias, 0, bounds, core));
                }
                pieces.push(self.piece(node, node.op.clone(), inputs, bounds, core));
            }
            return Some(Form::Pieces { axis: 1, pieces });
        }
        let plain = window.strides == [1, 1] && window.dilations == [1, 1];
        (plain && height >= FEWEST_ROWS).then(|| {
            let bounds = self.even_rows(height, 1);
            self.conv_rows(node, window, &bounds)
        })
    }

    /// Rows of the output, from the rows of the input that they need.
    fn conv_rows(&mut self, node: &Node, window: &Window, bounds: &[(usize, usize, u8)]) -> Form {
        let (above, below) = (window.pads[0], window.pads[2]);
        let height = self.shape(node.inputs[0])[2];
        let mut pieces = Vec::new();
        for &(from, to, core) in bounds {
            let first = from as isize - above as isize;
            let last = to + window.kernel[0] - 1 - above;
            let rows = (first.max(0) as usize, last.min(height));
            let pads = [
                (-first).max(0) as usize,
                window.pads[1],
                last.saturating_sub(height).min(below),
                window.pads[3],
            ];
            let mut inputs = vec![self.range(node.inputs[0], 2, rows, core)];
            for &constant in &node.inputs[1..] {
                inputs.push(self.whole(constant, core));
            }
            let op = Op::Conv { window: Window { pads, ..window.clone() }, group: 1 };
            pieces.push(self.piece(node, op, inputs, (from, to), core));
        }
        Form::Pieces { axis: 2, pieces }
    }

    /// Whether a plane's only use is to become rows of tokens.
    fn becomes_tokens(&self, value: ValueId) -> bool {
        let mut users = self.source.nodes().iter().filter(|n| n.inputs.contains(&value));
        let only = users.next().filter(|_| users.next().is_none());
        only.is_some_and(|n| matches!(&n.op, Op::Transpose { perm } if perm[..] == [0, 2, 3, 1]))
    }

    fn group_norm(&mut self, node: &Node, groups: usize) -> Option<Form> {
        let channels = self.shape(node.output)[1];
        let bounds = even(channels, lcm(channels / groups, CHANNEL_UNIT), self.parts, Longer::Last);
        if bounds.len() < 2 {
            return None;
        }
        let mut pieces = Vec::new();
        for (core, (from, to)) in (0u8..).zip(bounds) {
            let mut op = node.op.clone();
            if let Op::GroupNorm { groups: own, .. } = &mut op {
                *own = (to - from) * groups / channels;
            }
            let mut inputs = vec![self.range(node.inputs[0], 1, (from, to), core)];
            for &parameter in &node.inputs[1..] {
                inputs.push(self.range(parameter, 0, (from, to), core));
            }
            pieces.push(self.piece(node, op, inputs, (from, to), core));
        }
        Some(Form::Pieces { axis: 1, pieces })
    }

    /// Rows of the left operand: as it is divided, or evenly; none where they are too few.
    fn row_bounds(&self, value: ValueId, axis: usize) -> Option<Vec<(usize, usize, u8)>> {
        if let Some(pieces) = self.pieces(value, axis) {
            return Some(pieces.iter().map(|p| (p.from, p.to, p.core)).collect());
        }
        let rows = self.shape(value)[axis];
        let unit = self.planes.get(&rows).map_or(ROW_UNIT, |[_, width]| *width);
        (rows >= FEWEST_ROWS).then(|| self.even_rows(rows, unit))
    }

    fn even_rows(&self, rows: usize, unit: usize) -> Vec<(usize, usize, u8)> {
        (0u8..)
            .zip(even(rows, unit, self.parts, Longer::First))
            .map(|(core, (from, to))| (from, to, core))
            .collect()
    }

    fn product(&mut self, node: &Node) -> Option<Form> {
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let (rank, columns) = (self.shape(x).len(), *self.shape(weight).last()?);
        let constant = self.source.constant(weight).is_some() && self.shape(weight).len() == 2;
        if rank < 2 || !constant {
            return None;
        }
        if let Some(bounds) = self.row_bounds(x, rank - 2) {
            return Some(self.rows(node, rank - 2, &bounds));
        }
        if columns < FEWEST_ROWS {
            return None;
        }
        let mut pieces = Vec::new();
        for (core, bounds) in (0u8..).zip(self.channel_bounds(columns, GROUPS)) {
            let inputs = vec![self.whole(x, core), self.range(weight, 1, bounds, core)];
            pieces.push(self.piece(node, node.op.clone(), inputs, bounds, core));
        }
        Some(Form::Pieces { axis: rank - 1, pieces })
    }

    /// The operator on ranges of its first input's axis; its other inputs are whole.
    fn rows(&mut self, node: &Node, axis: usize, bounds: &[(usize, usize, u8)]) -> Form {
        let mut pieces = Vec::new();
        for &(from, to, core) in bounds {
            let mut inputs = vec![self.range(node.inputs[0], axis, (from, to), core)];
            for &other in &node.inputs[1..] {
                inputs.push(self.whole(other, core));
            }
            pieces.push(self.piece(node, node.op.clone(), inputs, (from, to), core));
        }
        Form::Pieces { axis, pieces }
    }

    fn attention(&mut self, node: &Node) -> Option<Form> {
        let axis = self.shape(node.inputs[0]).len().checked_sub(2)?;
        let bounds = self.row_bounds(node.inputs[0], axis)?;
        let mut pieces = Vec::new();
        for (from, to, core) in bounds {
            let mut inputs = vec![self.range(node.inputs[0], axis, (from, to), core)];
            inputs.extend(node.inputs[1..3].iter().map(|&v| self.whole(v, core)));
            if let Some(&mask) = node.inputs.get(3) {
                let shape = self.shape(mask);
                let rows = shape.len().checked_sub(2).filter(|&a| shape[a] != 1);
                inputs.push(match rows {
                    Some(a) => self.range(mask, a, (from, to), core),
                    None => self.whole(mask, core),
                });
            }
            pieces.push(self.piece(node, node.op.clone(), inputs, (from, to), core));
        }
        Some(Form::Pieces { axis, pieces })
    }

    /// An operator that works on axes from `axis` on: the pieces of an axis before these, or rows of the last one before.
    fn rows_before(&mut self, node: &Node, axis: usize) -> Option<Form> {
        let divided = (0..axis).find(|&a| self.pieces(node.inputs[0], a).is_some());
        let axis = divided.or(axis.checked_sub(1))?;
        let bounds = self.row_bounds(node.inputs[0], axis)?;
        Some(self.rows(node, axis, &bounds))
    }

    fn binary(&mut self, node: &Node) -> Option<Form> {
        let rank = self.shape(node.output).len();
        // Axis of the result, and the operand's own.
        let axes = |s: &Self, v: ValueId| match s.forms.get(&v) {
            Some(Form::Pieces { axis, .. }) => {
                let own = s.shape(v);
                let axis = axis + rank - own.len();
                (own[axis + own.len() - rank] == s.shape(node.output)[axis]).then_some(axis)
            }
            _ => None,
        };
        // Of two, the channels of a plane: the norm or the convolution behind a sum needs channels.
        let found: Vec<(usize, ValueId)> =
            node.inputs.iter().filter_map(|&v| Some((axes(self, v)?, v))).collect();
        let &(axis, leader) =
            found.iter().find(|(axis, _)| rank == 4 && *axis == 1).or(found.first())?;
        let bounds = self.pieces(leader, axis + self.shape(leader).len() - rank)?;
        let mut pieces = Vec::new();
        for Piece { from, to, core, .. } in bounds {
            let inputs = node.inputs.iter().map(|&v| {
                let own = self.shape(v);
                match (axis + own.len()).checked_sub(rank).filter(|&a| own[a] != 1) {
                    Some(a) => self.range(v, a, (from, to), core),
                    None => self.whole(v, core),
                }
            });
            let inputs = inputs.collect();
            pieces.push(self.piece(node, node.op.clone(), inputs, (from, to), core));
        }
        Some(Form::Pieces { axis, pieces })
    }

    /// An operator of one input on each of its pieces. `of` gives the operator for a piece, and the axis of the result where it is another.
    fn alike(
        &mut self,
        node: &Node,
        of: impl Fn(&Op, usize, &Piece) -> Option<(Op, Option<usize>)>,
    ) -> Option<Form> {
        let Some(Form::Pieces { axis, pieces }) = self.forms.get(&node.inputs[0]).cloned() else {
            return None;
        };
        let ops = pieces.iter().map(|p| of(&node.op, axis, p)).collect::<Option<Vec<_>>>()?;
        let to = ops.first()?.1.unwrap_or(axis);
        let made = pieces
            .iter()
            .zip(ops)
            .map(|(p, (op, _))| self.piece(node, op, vec![p.id], (p.from, p.to), p.core));
        Some(Form::Pieces { axis: to, pieces: made.collect() })
    }

    /// Pieces stay pieces where they are blocks of the new shape as well.
    fn reshape(&mut self, node: &Node, shape: &[usize]) -> Option<Form> {
        let Some(Form::Pieces { axis, pieces }) = self.forms.get(&node.inputs[0]).cloned() else {
            return None;
        };
        let from = self.shape(node.inputs[0]);
        let before: usize = from[..axis].iter().product();
        let inner: usize = from[axis + 1..].iter().product();
        let fits = |a: &usize| {
            let below: usize = shape[a + 1..].iter().product();
            below > 0
                && shape[..*a].iter().product::<usize>() == before
                && pieces.iter().all(|p| {
                    (p.from * inner).is_multiple_of(below) && (p.to * inner).is_multiple_of(below)
                })
        };
        // Of several axes that fit, one that is longer than 1.
        let to = (0..shape.len()).rev().filter(|&a| shape[a] > 1).find(fits)?;
        let below: usize = shape[to + 1..].iter().product();
        let mut made = Vec::new();
        for p in pieces {
            let bounds = (p.from * inner / below, p.to * inner / below);
            let mut own = shape.to_vec();
            own[to] = bounds.1 - bounds.0;
            made.push(self.piece(node, Op::Reshape { shape: own }, vec![p.id], bounds, p.core));
        }
        Some(Form::Pieces { axis: to, pieces: made })
    }

    /// Joined along the axis of their pieces, values are all their pieces.
    fn concat(&mut self, node: &Node, axis: usize) -> Option<Form> {
        if node.name.contains(BAND_MARK) {
            return self.concat_bands(node, axis);
        }
        let mut joined = Vec::new();
        let mut at = 0;
        for &input in &node.inputs {
            let pieces = self.pieces(input, axis)?;
            joined.extend(pieces.iter().map(|p| Piece { from: p.from + at, to: p.to + at, ..*p }));
            at += self.shape(input)[axis];
        }
        Some(Form::Pieces { axis, pieces: joined })
    }

    /// Of an attention in parts: pieces beside constants, along their axis or along another.
    fn concat_bands(&mut self, node: &Node, axis: usize) -> Option<Form> {
        let leader = node.inputs.iter().copied().find(|&v| self.is_divided(v))?;
        let Some(Form::Pieces { axis: along, pieces }) = self.forms.get(&leader).cloned() else {
            return None;
        };
        if along != axis {
            let mut made = Vec::new();
            for Piece { from, to, core, .. } in pieces {
                let inputs = node.inputs.iter().map(|&v| self.range(v, along, (from, to), core));
                let inputs = inputs.collect();
                made.push(self.piece(node, node.op.clone(), inputs, (from, to), core));
            }
            return Some(Form::Pieces { axis: along, pieces: made });
        }
        let (mut joined, mut at) = (Vec::new(), 0);
        for &input in &node.inputs {
            let extent = self.shape(input)[axis];
            match self.pieces(input, axis) {
                Some(pieces) => joined.extend(pieces.iter().map(|p| Piece {
                    from: p.from + at,
                    to: p.to + at,
                    ..*p
                })),
                None if self.source.constant(input).is_some() => {
                    let id = self.whole(input, 0);
                    joined.push(Piece { from: at, to: at + extent, id, core: 0 });
                }
                None => return None,
            }
            at += extent;
        }
        Some(Form::Pieces { axis, pieces: joined })
    }

    /// Rows of an attention in parts: each core cuts what it has of them.
    fn slice_bands(&mut self, node: &Node, begin: &[usize], end: &[usize]) -> Option<Form> {
        let Some(Form::Pieces { axis, pieces }) = self.forms.get(&node.inputs[0]).cloned() else {
            return None;
        };
        let mut made = Vec::new();
        for p in pieces {
            let (from, to) = (p.from.max(begin[axis]), p.to.min(end[axis]));
            if from < to {
                let name = format!("{}.{from}-{to}", node.name);
                let id = self.cut(name, p.id, axis, from - p.from, to - p.from, p.core);
                let (from, to) = (from - begin[axis], to - begin[axis]);
                made.push(Piece { from, to, id, core: p.core });
            }
        }
        Some(Form::Pieces { axis, pieces: made })
    }

    /// Along another axis than that of the pieces.
    fn slice(
        &mut self,
        node: &Node,
        begin: &[usize],
        end: &[usize],
        step: &[usize],
    ) -> Option<Form> {
        let full = |axis: usize| {
            begin[axis] == 0 && end[axis] == self.shape(node.inputs[0])[axis] && step[axis] == 1
        };
        let Some(Form::Pieces { axis, .. }) = self.forms.get(&node.inputs[0]) else { return None };
        if !full(*axis) {
            let others = (0..begin.len()).filter(|a| a != axis).all(full);
            return (others && step[*axis] == 1 && node.name.contains(BAND_MARK))
                .then(|| self.slice_bands(node, begin, end))?;
        }
        self.alike(node, |_, axis, p| {
            let (begin, mut end, step) = (begin.to_vec(), end.to_vec(), step.to_vec());
            end[axis] = p.to - p.from;
            Some((Op::Slice { begin, end, step }, None))
        })
    }
}
