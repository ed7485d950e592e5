//! `split`: every operator divided over the cores, so that one item takes a part of the time.
//!
//! Each value is whole, or in *pieces* along one axis, each with the core that makes it. Convolutions give pieces of their output channels,
//! group norms pieces of whole groups, products by a constant and attentions pieces of rows (tokens, queries); what works element by element
//! or moves elements keeps the pieces it is given. Where an operator needs other pieces than there are, the cores exchange them: the core
//! that has a piece cuts it, the core that needs it joins. The scheme is that of tensor and sequence parallelism (Shoeybi et al. 2019,
//! arXiv:1909.08053; Korthikanti et al. 2022, arXiv:2205.05198), for one chip.

mod operators;

use super::tokens::token_planes;
use rockshard_graph::{Graph, Node, NodeId, Op, Rebuild, ValueId, VerifyError};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::Tensor;
use std::collections::{BTreeSet, HashMap};

/// A graph whose nodes have cores.
#[derive(Clone, Debug)]
pub struct SplitGraph {
    /// The divided graph.
    pub graph: Graph,
    /// Core of the node that makes a value; the host's nodes have none.
    pub cores: HashMap<ValueId, u8>,
    /// Heavy operators that stay whole on one core, a line each.
    pub declined: Vec<String>,
}

/// A part of a value along its axis.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: usize,
    to: usize,
    id: ValueId,
    core: u8,
}

/// How a value of the source graph exists in the divided one.
#[derive(Clone, Debug)]
enum Form {
    Whole(ValueId),
    Pieces { axis: usize, pieces: Vec<Piece> },
}

/// The part of a value that one core needs: axis and range, or all of it.
type Wanted = Option<(usize, usize, usize)>;

struct Splitter<'a> {
    source: &'a Graph,
    out: Rebuild,
    cores: HashMap<ValueId, u8>,
    forms: HashMap<ValueId, Form>,
    /// What was already cut or joined, by value, part, and core.
    made: HashMap<(ValueId, Wanted, u8), ValueId>,
    parts: u8,
    declined: Vec<String>,
    /// Planes that numbers of tokens came from: tokens are divided between rows.
    planes: HashMap<usize, [usize; 2]>,
}

/// Divide a graph over `parts` cores. `host` nodes stay as they are.
///
/// # Errors
/// The division broke the graph (a defect, with the node named).
pub fn split(graph: &Graph, host: &BTreeSet<NodeId>, parts: u8) -> Result<SplitGraph, VerifyError> {
    let (out, inputs) = Rebuild::of(graph, "dividing");
    let mut s = Splitter {
        source: graph,
        out,
        cores: HashMap::new(),
        forms: graph.inputs.iter().copied().zip(inputs.into_iter().map(Form::Whole)).collect(),
        made: HashMap::new(),
        parts: parts.max(1),
        declined: Vec::new(),
        planes: token_planes(graph),
    };
    for id in graph.node_ids() {
        let node = graph.node(id);
        let form = if host.contains(&id) { s.undivided(node, None) } else { s.divided(node) };
        s.forms.insert(node.output, form);
    }
    let outputs = graph.outputs.iter().map(|&v| s.output(v)).collect();
    let Splitter { out, cores, declined, .. } = s;
    Ok(SplitGraph { graph: out.finish(outputs)?, cores, declined })
}

/// Which ranges are longer where a length does not divide evenly: rows and channels differ, so that no core always has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Longer {
    First,
    Last,
}

/// Bounds of up to `parts` ranges of `total`, in multiples of `unit` but for the last; as even as that allows.
fn even(total: usize, unit: usize, parts: u8, longer: Longer) -> Vec<(usize, usize)> {
    let (unit, parts) = (unit.max(1), usize::from(parts));
    let units = total.div_ceil(unit);
    let share = |p: usize| {
        if longer == Longer::First { (units * p).div_ceil(parts) } else { units * p / parts }
    };
    let at = |p: usize| (share(p) * unit).min(total);
    (0..parts).map(|p| (at(p), at(p + 1))).filter(|(from, to)| from < to).collect()
}

impl Splitter<'_> {
    fn shape(&self, value: ValueId) -> &[usize] {
        &self.source.value(value).shape
    }

    /// Add a node; without a core it is the host's.
    fn add(&mut self, name: String, op: Op, inputs: Vec<ValueId>, core: Option<u8>) -> ValueId {
        let output = self.out.add(name, op, inputs);
        if let Some(core) = core {
            self.cores.insert(output, core);
        }
        output
    }

    fn cut(
        &mut self,
        name: String,
        id: ValueId,
        axis: usize,
        from: usize,
        to: usize,
        core: u8,
    ) -> ValueId {
        let shape = self.out.graph.value(id).shape.clone();
        if (from, to) == (0, shape[axis]) {
            return id;
        }
        let (mut begin, mut end) = (vec![0; shape.len()], shape.clone());
        (begin[axis], end[axis]) = (from, to);
        self.add(name, Op::Slice { begin, end, step: vec![1; shape.len()] }, vec![id], Some(core))
    }

    fn join(&mut self, name: String, axis: usize, mut parts: Vec<ValueId>, core: u8) -> ValueId {
        match parts.len() {
            1 => parts.swap_remove(0),
            _ => self.add(name, Op::Concat { axis }, parts, Some(core)),
        }
    }

    /// All of a value, on a core.
    fn whole(&mut self, value: ValueId, core: u8) -> ValueId {
        self.part(value, None, core)
    }

    /// A part of a value along an axis, on a core.
    fn range(
        &mut self,
        value: ValueId,
        axis: usize,
        (from, to): (usize, usize),
        core: u8,
    ) -> ValueId {
        let all = (from, to) == (0, self.shape(value)[axis]);
        self.part(value, (!all).then_some((axis, from, to)), core)
    }

    fn part(&mut self, value: ValueId, wanted: Wanted, core: u8) -> ValueId {
        // A constant and an undivided value are the same for every core.
        let key =
            (value, wanted, if wanted.is_none() && !self.is_divided(value) { 0 } else { core });
        if let Some(&known) = self.made.get(&key) {
            return known;
        }
        let name = self.source.value(value).name.clone();
        let label =
            wanted.map_or("all".to_owned(), |(axis, from, to)| format!("{axis}.{from}-{to}"));
        let id = match (self.source.constant(value).cloned(), self.forms.get(&value).cloned()) {
            (Some(tensor), _) => {
                let tensor = wanted.map_or(tensor.clone(), |(axis, from, to)| {
                    constant_part(&tensor, axis, from, to)
                });
                self.out.graph.add_constant(
                    if wanted.is_some() { format!("{name}.{label}.{core}") } else { name },
                    tensor,
                )
            }
            (None, Some(Form::Whole(id))) => match wanted {
                Some((axis, from, to)) => {
                    self.cut(format!("{name}.{label}.core{core}"), id, axis, from, to, core)
                }
                None => id,
            },
            (None, Some(Form::Pieces { axis, pieces })) => {
                let mut found = Vec::new();
                for (i, piece) in pieces.iter().enumerate() {
                    match wanted {
                        // Cut where the piece is; it then crosses to this core.
                        Some((other, from, to)) if other != axis => {
                            found.push(self.cut(
                                format!("{name}.{label}.piece{i}.core{core}"),
                                piece.id,
                                other,
                                from,
                                to,
                                piece.core,
                            ));
                        }
                        Some((_, from, to)) => {
                            let (a, b) = (from.max(piece.from), to.min(piece.to));
                            if a < b {
                                let name = format!("{name}.{label}.piece{i}.core{core}");
                                found.push(self.cut(
                                    name,
                                    piece.id,
                                    axis,
                                    a - piece.from,
                                    b - piece.from,
                                    piece.core,
                                ));
                            }
                        }
                        None => found.push(piece.id),
                    }
                }
                self.join(format!("{name}.{label}.core{core}"), axis, found, core)
            }
            (None, None) => unreachable!("nodes are in running order"),
        };
        self.made.insert(key, id);
        id
    }

    fn is_divided(&self, value: ValueId) -> bool {
        matches!(self.forms.get(&value), Some(Form::Pieces { .. }))
    }

    /// The pieces of a value, where it is divided along this axis.
    fn pieces(&self, value: ValueId, axis: usize) -> Option<Vec<Piece>> {
        match self.forms.get(&value) {
            Some(Form::Pieces { axis: a, pieces }) if *a == axis => Some(pieces.clone()),
            _ => None,
        }
    }

    /// The whole operator on one core.
    fn undivided(&mut self, node: &Node, core: Option<u8>) -> Form {
        let inputs: Vec<ValueId> =
            node.inputs.iter().map(|&v| self.whole(v, core.unwrap_or(0))).collect();
        let id = self.add(node.name.clone(), node.op.clone(), inputs, core);
        self.out.graph.value_mut(id).name.clone_from(&self.source.value(node.output).name);
        Form::Whole(id)
    }

    /// An output of the graph, under its name.
    fn output(&mut self, value: ValueId) -> ValueId {
        let id = self.whole(value, 0);
        self.out.graph.value_mut(id).name.clone_from(&self.source.value(value).name);
        id
    }
}

/// A part of a constant; of its first axis without a copy.
pub(crate) fn constant_part(tensor: &Tensor, axis: usize, from: usize, to: usize) -> Tensor {
    let shape = tensor.shape();
    let mut part = shape.to_vec();
    part[axis] = to - from;
    if shape[..axis].iter().all(|&d| d == 1) {
        let row = tensor.bytes().len() / shape[axis].max(1);
        if let Ok(part) =
            Tensor::new(tensor.dtype(), part, tensor.bytes().slice(from * row..to * row))
        {
            return part;
        }
    }
    let (mut begin, mut end) = (vec![0; shape.len()], shape.to_vec());
    (begin[axis], end[axis]) = (from, to);
    let slice = Op::Slice { begin, end, step: vec![1; shape.len()] };
    let cut = evaluate(&slice, &[tensor], Precision::F32)
        .unwrap_or_else(|e| panic!("split: part of a constant: {e}"));
    cut.to_float(tensor.dtype()).unwrap_or(cut)
}
