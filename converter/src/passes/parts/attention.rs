//! Attention over keys in parts.
//!
//! The NPU's attention kernel gives a weighted mean and not the sum of the weights, so means over parts cannot be joined as they are. Each part
//! therefore gets keys that all parts have in common. With `E` the sum of the weights of these, `L` that of the part's own keys and `S` the
//! sum of its weighted values, columns beside the values (1 for own keys; a factor for those in common, whose values are 0) give
//! `u = S / (L + E)`, `l = L / (L + E)` and `w = E / (L + E)` of the part, and the attention over all keys is
//! `sum(u / w) / sum(l / w)`. It holds whatever the keys in common are. That float16 holds it asks for an `E` that is not far below any part's `L`:
//! they are the keys of the queries' own tokens and short runs from every band, so that `E` follows each query. A `w` below the [`FLOOR`],
//! of a part that weighs 2^18 times the keys in common, counts as that: the others do not show beside it. Only where two parts are as
//! heavy for one query are their shares wrong.

use super::plan::{Plan, RUNS};
use super::{BAND_MARK, BLOCK_MARK, Form, Parts};
use rockshard_graph::{Binary, Node, Op, ValueId};
use rockshard_tensor::Tensor;

/// Bytes of scores that one block of queries may have.
const BUDGET: u64 = 24 << 20;
/// Kernels for one attention beyond which its blocks may have more: the vendor's compiler (2.5.0) takes a minute for 48 of them, and did not end
/// within half an hour for 135.
const MOST_KERNELS: usize = 84;
/// What the column of the keys in common holds: quotients by it stay within float16.
const FACTOR: f32 = 512.0;
/// Least value of that column.
const FLOOR: f32 = 1.0 / 512.0;

/// An attention whose keys are in parts.
struct Keyed<'a> {
    node: &'a Node,
    scale: f32,
    plan: Plan,
    /// Of each part, `[.., channels, keys]`.
    keys: Vec<ValueId>,
    /// Of each part, `[.., keys, channels + 1]`, with the column of ones.
    values: Vec<ValueId>,
}

impl Parts<'_> {
    pub(super) fn attention(&mut self, node: &Node, scale: f32) -> Option<Form> {
        let &[q, k, v, ref mask @ ..] = &node.inputs[..] else { return None };
        let rank = self.shape(q).len();
        let queries = self.axis_of(q).filter(|(axis, _)| *axis == rank - 2);
        match (self.axis_of(k), self.axis_of(v)) {
            (None, None) => {
                let (axis, tokens) = queries?;
                Some(self.bands(node, axis, tokens, |p, i| {
                    let mut inputs = vec![p.piece(q, axis, tokens, i), p.whole(k), p.whole(v)];
                    for &mask in mask {
                        let shape = p.shape(mask);
                        let rows = shape.len().checked_sub(2).filter(|&a| shape[a] != 1);
                        inputs.push(match rows {
                            Some(a) => p.piece(mask, a, tokens, i),
                            None => p.whole(mask),
                        });
                    }
                    (node.op.clone(), inputs)
                }))
            }
            (Some((ka, tokens)), Some((va, also)))
                if tokens == also
                    && (ka, va) == (self.shape(k).len() - 1, self.shape(v).len() - 2)
                    && mask.is_empty() =>
            {
                let plan = self.plans[&tokens].clone();
                let count = plan.rows.len();
                let keys = (0..count).map(|i| self.piece(k, ka, tokens, i)).collect();
                let values = (0..count).map(|i| self.with_ones(node, v, va, tokens, i)).collect();
                let keyed = Keyed { node, scale, plan, keys, values };
                match queries {
                    Some((axis, own)) if own == tokens => {
                        let ids = (0..count).map(|i| {
                            let q = self.piece(q, axis, tokens, i);
                            self.blocks(&keyed, q, Some(i), i)
                        });
                        let ids = ids.collect();
                        Some(Form::Bands { axis, tokens, ids })
                    }
                    Some(_) => None,
                    None => {
                        let q = self.whole(q);
                        Some(Form::Whole(self.blocks(&keyed, q, None, 0)))
                    }
                }
            }
            _ => None,
        }
    }

    /// The values of a part with a column of ones, and one of zeros for the keys in common.
    fn with_ones(
        &mut self,
        node: &Node,
        v: ValueId,
        axis: usize,
        tokens: usize,
        i: usize,
    ) -> ValueId {
        let values = self.piece(v, axis, tokens, i);
        let mut shape = self.out.graph.value(values).shape.clone();
        shape[axis + 1] = 2;
        let columns = self.fill(shape, [1.0, 0.0]);
        let name = format!("{}{BAND_MARK}{i}.values", node.name);
        self.out.add(name, Op::Concat { axis: axis + 1 }, vec![values, columns])
    }

    /// The values of a part, and below them those of keys in common, which have that shape.
    fn with_common(
        &mut self,
        node: &Node,
        part: usize,
        values: ValueId,
        shape: Vec<usize>,
    ) -> ValueId {
        let axis = shape.len() - 2;
        let count = shape[axis];
        if let Some(&known) = self.joined.get(&(values, count)) {
            return known;
        }
        let below = self.fill(shape, [0.0, FACTOR]);
        let name = format!("{}{BAND_MARK}{part}.values{count}", node.name);
        let made = self.out.add(name, Op::Concat { axis }, vec![values, below]);
        self.joined.insert((values, count), made);
        made
    }

    /// A constant whose last axis is zeros but for the last two.
    fn fill(&mut self, shape: Vec<usize>, last: [f32; 2]) -> ValueId {
        let key = (shape.clone(), last.map(f32::to_bits));
        if let Some(&known) = self.fills.get(&key) {
            return known;
        }
        let width = shape[shape.len() - 1];
        let mut row = vec![0.0; width];
        row[width - 2..].copy_from_slice(&last);
        let count = shape.iter().product::<usize>() / width;
        let id = self.out.graph.add_constant(
            format!("columns{}", self.fills.len()),
            Tensor::from_f32(shape, row.repeat(count)),
        );
        self.fills.insert(key, id);
        id
    }

    /// Queries of one band in blocks that fit the memory; `own` is the band whose keys are theirs.
    fn blocks(&mut self, keyed: &Keyed, q: ValueId, own: Option<usize>, band: usize) -> ValueId {
        let shape = self.out.graph.value(q).shape.clone();
        let rank = shape.len();
        let queries = shape[rank - 2];
        let heads: usize = shape[..rank - 2].iter().product();
        let most = keyed.plan.most_queries.min(queries);
        let longest = keyed.keys.iter().map(|&k| self.out.graph.value(k).shape[rank - 1]).max();
        let width = keyed.plan.plane[1];
        let [tokens, parts] = [keyed.plan.plane.iter().product::<usize>(), keyed.keys.len()];
        let few = (tokens * parts).div_ceil(MOST_KERNELS).next_multiple_of(width);
        let fits = |rows: usize| {
            let keys = longest.unwrap_or(0) + rows;
            rows <= most && (rows <= few || self.npu.attention_bytes(heads, rows, keys) <= BUDGET)
        };
        // Whole rows of the plane where one fits.
        let lines = (1..=queries.div_ceil(width)).rev().map(|n| n * width).find(|&n| fits(n));
        let rows = lines.unwrap_or_else(|| (1..=most).rev().find(|&n| fits(n)).unwrap_or(1));
        let starts = (0..queries).step_by(rows).enumerate();
        let blocks: Vec<ValueId> = starts
            .map(|(i, from)| {
                let name = format!("{}{BAND_MARK}{band}{BLOCK_MARK}{i}", keyed.node.name);
                let to = (from + rows).min(queries);
                let block = self.slice(format!("{name}.q"), q, rank - 2, from, to);
                let local = own.map(|own| (own, from, to));
                self.block(keyed, &name, block, local)
            })
            .collect();
        let name = format!("{}{BAND_MARK}{band}", keyed.node.name);
        match blocks[..] {
            [only] => only,
            _ => self.out.add(name, Op::Concat { axis: rank - 2 }, blocks),
        }
    }

    /// One block of queries over all parts of the keys. `local` is the range of keys that are the queries' own.
    fn block(
        &mut self,
        keyed: &Keyed,
        name: &str,
        q: ValueId,
        local: Option<(usize, usize, usize)>,
    ) -> ValueId {
        let common = self.common(keyed, local);
        let mut sum = None;
        for part in 0..keyed.keys.len() {
            let name = format!("{name}.part{part}");
            let (own, values) = (keyed.keys[part], keyed.values[part]);
            let last = self.out.graph.value(own).shape.len() - 1;
            let keys = [vec![own], common.clone()].concat();
            let keys = self.out.add(format!("{name}.keys"), Op::Concat { axis: last }, keys);
            let extent = |p: &Self, id: ValueId, axis| p.out.graph.value(id).shape[axis];
            let mut shape = self.out.graph.value(values).shape.clone();
            shape[last - 1] = extent(self, keys, last) - extent(self, own, last);
            let width = shape[last];
            let values = self.with_common(keyed.node, part, values, shape);
            let op = Op::Attention { scale: keyed.scale };
            let mean = self.out.add(name.clone(), op, vec![q, keys, values]);
            let top = self.slice(format!("{name}.mean"), mean, last, 0, width - 1);
            let weight = self.slice(format!("{name}.common"), mean, last, width - 1, width);
            let clip = Op::Clip { min: FLOOR, max: FACTOR };
            let weight = self.out.add(format!("{name}.weight"), clip, vec![weight]);
            let share = Op::Binary(Binary::Div);
            let share = self.out.add(format!("{name}.share"), share, vec![top, weight]);
            sum = Some(match sum {
                None => share,
                Some(sum) => {
                    self.out.add(format!("{name}.sum"), Op::Binary(Binary::Add), vec![sum, share])
                }
            });
        }
        let sum = sum.expect("there are at least two parts");
        let shape = &self.out.graph.value(sum).shape;
        let (last, width) = (shape.len() - 1, shape[shape.len() - 1]);
        let top = self.slice(format!("{name}.top"), sum, last, 0, width - 1);
        let total = self.slice(format!("{name}.total"), sum, last, width - 1, width);
        self.out.add(name.to_owned(), Op::Binary(Binary::Div), vec![top, total])
    }

    /// The keys that all parts have in common.
    fn common(&mut self, keyed: &Keyed, local: Option<(usize, usize, usize)>) -> Vec<ValueId> {
        let mut found = Vec::new();
        let mut take = |p: &mut Self, part: usize, from: usize, to: usize| {
            let key = keyed.keys[part];
            let last = p.out.graph.value(key).shape.len() - 1;
            let name = format!("{}{BAND_MARK}{part}.keys{from}-{to}", keyed.node.name);
            found.push(p.slice(name, key, last, from, to));
        };
        // Without queries of their own there must be some.
        let run = if local.is_none() { keyed.plan.run.max(1) } else { keyed.plan.run };
        for part in (0..keyed.keys.len()).filter(|_| run > 0) {
            let shape = &self.out.graph.value(keyed.keys[part]).shape;
            let length = shape[shape.len() - 1];
            (0..RUNS).for_each(|r| {
                let from = length * r / RUNS;
                take(self, part, from, (from + run).min(length));
            });
        }
        if let Some((part, from, to)) = local {
            take(self, part, from, to);
        }
        found
    }
}
