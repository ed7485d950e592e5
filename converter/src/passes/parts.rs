//! `parts`: what has more tokens than an axis may have, in *bands*.
//!
//! A plane `[N, C, H, W]` fits where its tokens `[N, H W, C]` do not. So the plane is cut by rows, each band has its own tokens, and what
//! works token by token runs on each band; where it is a plane again, the bands are joined by rows. No value has the long axis. Attention
//! has its queries and its keys in bands ([`attention`]). What is a flattened plane only (`[N, C, H W]` under a group norm) stays a plane.
//!
//! The vendor's compiler moves a reshape before the slices of a plane, and has the long axis again. So the partition cuts between the slices
//! and the bands, and between the bands and their joint: nodes of bands carry [`BAND_MARK`], slices [`ROWS_MARK`].

mod attention;
mod plan;

use super::split::constant_part;
use plan::Plan;
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Links, Node, Op, Rebuild, ValueId, VerifyError};
use std::collections::{BTreeMap, HashMap};

/// In the names of nodes that work on a band.
pub(crate) const BAND_MARK: &str = "@band";
/// In the names of nodes that cut a plane into bands.
pub(crate) const ROWS_MARK: &str = "@rows";

/// In the names of nodes that work on a block of queries, behind that of the band.
const BLOCK_MARK: &str = ".block";

/// Whether a node works on a block of an attention's queries.
pub(super) fn is_block(name: &str) -> bool {
    name.rsplit_once(BAND_MARK).is_some_and(|(_, rest)| rest.contains(BLOCK_MARK))
}

/// What a value of the source graph has become.
#[derive(Clone, Debug)]
enum Form {
    Whole(ValueId),
    /// Bands of the plan's rows along an axis.
    Bands {
        axis: usize,
        tokens: usize,
        ids: Vec<ValueId>,
    },
    /// `[N, C, H W]`, kept as the plane `[N, C, H, W]`.
    Flat(ValueId),
}

struct Parts<'a> {
    source: &'a Graph,
    links: Links,
    npu: &'a Rk3588,
    out: Rebuild,
    forms: HashMap<ValueId, Form>,
    /// By number of tokens.
    plans: BTreeMap<usize, Plan>,
    /// Of values that are wanted in bands only: the axis and the tokens.
    wanted: HashMap<ValueId, (usize, usize)>,
    /// Slices and parts of constants, by value, axis and range.
    cuts: HashMap<(ValueId, usize, usize, usize), ValueId>,
    fills: HashMap<(Vec<usize>, [u32; 2]), ValueId>,
    /// Values of a part with those of so many keys in common.
    joined: HashMap<(ValueId, usize), ValueId>,
}

/// Put what has too many tokens for an axis in bands; gives a line for each number of tokens that was. Without any, the graph as it is.
///
/// # Errors
/// The rewrite broke the graph (a defect, with the node named).
pub fn in_parts(graph: Graph, npu: &Rk3588) -> Result<(Graph, Vec<String>), VerifyError> {
    let plans = plan::plans(&graph, npu);
    if plans.is_empty() {
        return Ok((graph, Vec::new()));
    }
    let told = plans.iter().map(|(tokens, plan)| {
        let [height, width] = plan.plane;
        format!("{tokens} tokens ({height}x{width}) in {} bands of rows", plan.rows.len())
    });
    let told = told.collect();
    let (out, inputs) = Rebuild::of(&graph, "cutting into bands");
    let mut p = Parts {
        source: &graph,
        links: graph.links(),
        npu,
        out,
        forms: graph.inputs.iter().copied().zip(inputs.into_iter().map(Form::Whole)).collect(),
        plans,
        wanted: HashMap::new(),
        cuts: HashMap::new(),
        fills: HashMap::new(),
        joined: HashMap::new(),
    };
    p.find_wanted();
    for node in graph.nodes() {
        let form = p.node(node).unwrap_or_else(|| p.undivided(node));
        p.forms.insert(node.output, form);
    }
    let outputs = graph.outputs.iter().map(|&v| p.whole(v)).collect();
    Ok((p.out.finish(outputs)?, told))
}

/// The axis of `to` that rows of `from`'s axis are blocks of, where both are the same elements in `rows` rows.
fn carried(from: &[usize], axis: usize, to: &[usize], rows: usize) -> Option<usize> {
    let before: usize = from[..axis].iter().product();
    (0..to.len()).rev().find(|&t| {
        to[t] > 1 && to[t].is_multiple_of(rows) && to[..t].iter().product::<usize>() == before
    })
}

fn is_pointwise(op: &Op) -> bool {
    matches!(op, Op::Conv { window, group: 1 }
        if window.kernel == [1, 1] && window.strides == [1, 1] && window.pads == [0; 4])
}

impl Parts<'_> {
    fn shape(&self, value: ValueId) -> &[usize] {
        &self.source.value(value).shape
    }

    /// Where a reshape makes too many tokens of a plane: the axis of the plane's rows, of the tokens, and their number.
    fn begins(&self, node: &Node) -> Option<(usize, usize, usize)> {
        let Op::Reshape { shape } = &node.op else { return None };
        let plane = self.shape(node.inputs[0]);
        shape.iter().enumerate().find_map(|(to, tokens)| {
            let [height, width] = self.plans.get(tokens)?.plane;
            let at = carried(shape, to, plane, height)?;
            (plane.get(at..at + 2) == Some(&[height, width])).then_some((at, to, *tokens))
        })
    }

    /// What only makes bands is wanted in bands: transposes and pointwise convolutions before them.
    fn find_wanted(&mut self) {
        for node in self.source.nodes().iter().rev() {
            let users = self.links.users(node.output);
            let by_bands = matches!(node.op, Op::Transpose { .. }) || is_pointwise(&node.op);
            if !by_bands || users.is_empty() || self.links.is_output(node.output) {
                continue;
            }
            let mut asked = users.iter().map(|&u| {
                let user = self.source.node(u);
                if let Some((at, to, tokens)) = self.begins(user) {
                    // A flattened plane stays a plane.
                    return (at + 1 != self.shape(user.inputs[0]).len() - 1 || to != at)
                        .then_some((at, tokens));
                }
                let &(axis, tokens) = self.wanted.get(&user.output)?;
                match &user.op {
                    Op::Transpose { perm } => Some((perm[axis], tokens)),
                    op if is_pointwise(op) && axis == 2 => Some((2, tokens)),
                    _ => None,
                }
            });
            let first = asked.next().flatten();
            if let Some(first) = first.filter(|f| asked.all(|a| a == Some(*f))) {
                self.wanted.insert(node.output, first);
            }
        }
    }

    fn band(&mut self, node: &Node, i: usize, op: Op, inputs: Vec<ValueId>) -> ValueId {
        self.out.add(format!("{}{BAND_MARK}{i}", node.name), op, inputs)
    }

    /// Add a slice of a new value; all of it is the value itself.
    fn slice(&mut self, name: String, id: ValueId, axis: usize, from: usize, to: usize) -> ValueId {
        let shape = self.out.graph.value(id).shape.clone();
        if (from, to) == (0, shape[axis]) {
            return id;
        }
        if let Some(&known) = self.cuts.get(&(id, axis, from, to)) {
            return known;
        }
        let (mut begin, mut end) = (vec![0; shape.len()], shape.clone());
        (begin[axis], end[axis]) = (from, to);
        let made =
            self.out.add(name, Op::Slice { begin, end, step: vec![1; shape.len()] }, vec![id]);
        self.cuts.insert((id, axis, from, to), made);
        made
    }

    /// A value as in the source graph.
    fn whole(&mut self, value: ValueId) -> ValueId {
        let name = self.source.value(value).name.clone();
        let id = match (self.forms.get(&value).cloned(), self.source.constant(value).cloned()) {
            (Some(Form::Whole(id)), _) => return id,
            (Some(Form::Bands { axis, ids, .. }), _) => {
                self.out.add(format!("{name}/joined"), Op::Concat { axis }, ids)
            }
            (Some(Form::Flat(plane)), _) => {
                let shape = self.shape(value).to_vec();
                self.out.add(format!("{name}/flat"), Op::Reshape { shape }, vec![plane])
            }
            (None, Some(tensor)) => {
                let id = self.out.graph.add_constant(name, tensor);
                self.forms.insert(value, Form::Whole(id));
                return id;
            }
            (None, None) => unreachable!("nodes are in running order"),
        };
        self.out.graph.value_mut(id).name = name;
        self.forms.insert(value, Form::Whole(id));
        id
    }

    /// A band of a value along an axis.
    fn piece(&mut self, value: ValueId, axis: usize, tokens: usize, i: usize) -> ValueId {
        let plan = &self.plans[&tokens];
        let (from, to) = plan.bounds(self.shape(value)[axis])[i];
        let ([_, width], rows) = (plan.plane, plan.rows[i]);
        let name = self.source.value(value).name.clone();
        match (self.forms.get(&value).cloned(), self.source.constant(value).cloned()) {
            (Some(Form::Bands { axis: a, tokens: t, ids }), _) if (a, t) == (axis, tokens) => {
                ids[i]
            }
            (Some(Form::Flat(plane)), _) if axis == 2 => {
                let cut = self.slice(format!("{name}{ROWS_MARK}{i}"), plane, 2, rows.0, rows.1);
                let mut shape = self.shape(value).to_vec();
                shape[2] = (rows.1 - rows.0) * width;
                self.out.add(format!("{name}{BAND_MARK}{i}"), Op::Reshape { shape }, vec![cut])
            }
            (None, Some(tensor)) => {
                let key = (value, axis, from, to);
                *self.cuts.entry(key).or_insert_with(|| {
                    let part = constant_part(&tensor, axis, from, to);
                    self.out.graph.add_constant(format!("{name}{BAND_MARK}{i}"), part)
                })
            }
            _ => {
                let id = self.whole(value);
                self.slice(format!("{name}{ROWS_MARK}{i}"), id, axis, from, to)
            }
        }
    }

    /// Bands of a node's result, each made by `of`.
    fn bands(
        &mut self,
        node: &Node,
        axis: usize,
        tokens: usize,
        mut of: impl FnMut(&mut Self, usize) -> (Op, Vec<ValueId>),
    ) -> Form {
        let count = self.plans[&tokens].rows.len();
        let ids = (0..count).map(|i| {
            let (op, inputs) = of(self, i);
            self.band(node, i, op, inputs)
        });
        let ids = ids.collect();
        Form::Bands { axis, tokens, ids }
    }

    /// The axis of a value that is in bands, and the tokens.
    fn axis_of(&self, value: ValueId) -> Option<(usize, usize)> {
        match self.forms.get(&value)? {
            Form::Bands { axis, tokens, .. } => Some((*axis, *tokens)),
            Form::Flat(_) => {
                let tokens = *self.shape(value).last()?;
                Some((2, tokens))
            }
            Form::Whole(_) => None,
        }
    }

    /// The operator as it is.
    fn undivided(&mut self, node: &Node) -> Form {
        let inputs = node.inputs.iter().map(|&v| self.whole(v)).collect();
        let id = self.out.add(node.name.clone(), node.op.clone(), inputs);
        self.out.graph.value_mut(id).name.clone_from(&self.source.value(node.output).name);
        Form::Whole(id)
    }

    /// The node on bands, where its input is in bands or its result must be.
    fn node(&mut self, node: &Node) -> Option<Form> {
        let &x = node.inputs.first()?;
        let flat = match self.forms.get(&x) {
            Some(Form::Flat(plane)) => Some(*plane),
            _ => None,
        };
        match (&node.op, flat) {
            (Op::GroupNorm { .. } | Op::InstanceNorm { .. }, Some(plane)) => {
                let mut inputs = vec![plane];
                inputs.extend(node.inputs[1..].iter().map(|&v| self.whole(v)));
                return Some(Form::Flat(self.out.add(node.name.clone(), node.op.clone(), inputs)));
            }
            (Op::Unary(_) | Op::Swish { .. } | Op::Clip { .. }, Some(plane)) => {
                let id = self.out.add(node.name.clone(), node.op.clone(), vec![plane]);
                return Some(Form::Flat(id));
            }
            (Op::Reshape { shape }, Some(plane)) if self.out.graph.value(plane).shape == *shape => {
                return Some(Form::Whole(plane));
            }
            _ => {}
        }
        match &node.op {
            Op::Reshape { shape } => self.reshape(node, shape),
            Op::Transpose { perm } => {
                let (axis, tokens) = self.asked(node, |axis| perm[axis])?;
                let to = perm.iter().position(|&p| p == axis)?;
                Some(self.alike(node, axis, to, tokens))
            }
            op if is_pointwise(op) => {
                let (axis, tokens) = self.asked(node, |axis| axis)?;
                (axis == 2).then(|| self.alike(node, 2, 2, tokens))
            }
            Op::Unary(_) | Op::Swish { .. } | Op::Gelu { .. } | Op::Clip { .. } => {
                let (axis, tokens) = self.axis_of(x)?;
                Some(self.alike(node, axis, axis, tokens))
            }
            Op::LayerNorm { axis: first, .. } => {
                let (axis, tokens) = self.axis_of(x)?;
                (axis < *first).then(|| self.alike(node, axis, axis, tokens))
            }
            Op::Softmax { axis: over } => {
                let (axis, tokens) = self.axis_of(x)?;
                (axis != *over).then(|| self.alike(node, axis, axis, tokens))
            }
            Op::Reduce { axes, keep: true, .. } => {
                let (axis, tokens) = self.axis_of(x)?;
                (!axes.contains(&axis)).then(|| self.alike(node, axis, axis, tokens))
            }
            Op::MatMul => {
                let (axis, tokens) = self.axis_of(x)?;
                let rows = self.shape(x).len() - 2;
                let weight = self.shape(node.inputs[1]).len();
                (axis == rows || axis < rows && weight == 2)
                    .then(|| self.alike(node, axis, axis, tokens))
            }
            Op::Slice { begin, end, step } => self.part(node, begin, end, step),
            Op::Binary(op) => self.binary(node, *op),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::Attention { scale } => self.attention(node, *scale),
            _ => None,
        }
    }

    /// The axis of a node's input in bands, or that which its result is wanted in; `back` gives the input's axis for the result's.
    fn asked(&self, node: &Node, back: impl Fn(usize) -> usize) -> Option<(usize, usize)> {
        let wanted = self.wanted.get(&node.output).map(|&(axis, tokens)| (back(axis), tokens));
        self.axis_of(node.inputs[0]).or(wanted)
    }

    /// The operator on each band of its first input, with its other inputs whole.
    fn alike(&mut self, node: &Node, axis: usize, to: usize, tokens: usize) -> Form {
        self.bands(node, to, tokens, |p, i| {
            let mut inputs = vec![p.piece(node.inputs[0], axis, tokens, i)];
            inputs.extend(node.inputs[1..].iter().map(|&v| p.whole(v)));
            (node.op.clone(), inputs)
        })
    }

    fn reshape(&mut self, node: &Node, shape: &[usize]) -> Option<Form> {
        let x = node.inputs[0];
        let from = self.shape(x).to_vec();
        let (axis, to, tokens) = match self.axis_of(x) {
            Some((axis, tokens)) => {
                let [height, _] = self.plans[&tokens].plane;
                (axis, carried(&from, axis, shape, height)?, tokens)
            }
            None => {
                let (axis, to, tokens) = self.begins(node)?;
                if (axis, to, from.len(), shape.len()) == (2, 2, 4, 3) {
                    return Some(Form::Flat(self.whole(x)));
                }
                (axis, to, tokens)
            }
        };
        let bounds = self.plans[&tokens].bounds(shape[to]);
        Some(self.bands(node, to, tokens, |p, i| {
            let mut own = shape.to_vec();
            own[to] = bounds[i].1 - bounds[i].0;
            (Op::Reshape { shape: own }, vec![p.piece(x, axis, tokens, i)])
        }))
    }

    fn part(
        &mut self,
        node: &Node,
        begin: &[usize],
        end: &[usize],
        step: &[usize],
    ) -> Option<Form> {
        let x = node.inputs[0];
        let (axis, tokens) = self.axis_of(x)?;
        if (begin[axis], end[axis], step[axis]) != (0, self.shape(x)[axis], 1) {
            return None;
        }
        let bounds = self.plans[&tokens].bounds(self.shape(x)[axis]);
        Some(self.bands(node, axis, tokens, |p, i| {
            let mut end = end.to_vec();
            end[axis] = bounds[i].1 - bounds[i].0;
            let op = Op::Slice { begin: begin.to_vec(), end, step: step.to_vec() };
            (op, vec![p.piece(x, axis, tokens, i)])
        }))
    }

    fn binary(&mut self, node: &Node, op: Binary) -> Option<Form> {
        let shape = self.shape(node.output).to_vec();
        let from_end = |p: &Self, v: ValueId| {
            p.axis_of(v).map(|(axis, tokens)| (p.shape(v).len() - axis, tokens))
        };
        let (back, tokens) = node.inputs.iter().find_map(|&v| from_end(self, v))?;
        let axis = shape.len().checked_sub(back)?;
        Some(self.bands(node, axis, tokens, |p, i| {
            let inputs = node.inputs.iter().map(|&v| {
                let own = p.shape(v);
                match own.len().checked_sub(back).filter(|&a| own[a] == shape[axis]) {
                    Some(a) => p.piece(v, a, tokens, i),
                    None => p.whole(v),
                }
            });
            let inputs = inputs.collect();
            (Op::Binary(op), inputs)
        }))
    }

    fn concat(&mut self, node: &Node, along: usize) -> Option<Form> {
        let (axis, tokens) = node.inputs.iter().find_map(|&v| self.axis_of(v))?;
        (axis != along).then(|| {
            self.bands(node, axis, tokens, |p, i| {
                let inputs = node.inputs.iter().map(|&v| p.piece(v, axis, tokens, i)).collect();
                (node.op.clone(), inputs)
            })
        })
    }
}
