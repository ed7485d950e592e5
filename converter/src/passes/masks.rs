//! Masks: values that only hide scores from a softmax.
//!
//! A mask holds 0 where a key is seen and something so low elsewhere that the softmax gives it nothing: -1e9, the lowest float32, minus
//! infinity. float16 ends at -65504, so from there down every value means hidden and becomes [`HIDDEN`]. A row that is hidden whole is
//! another matter: in float32 the scores drown in the mask, so that the keys with the largest mask share equally. Such a row's mask
//! is moved up to 0 and its scores are multiplied by 0, which gives the same. What a mask from an input is, the host computes. A constant
//! mask that hides nothing is left out.
//!
//! `Where(condition, scores, low)` becomes an addition of a mask, so that the attention keeps the form that the compiler fuses. Where a
//! softmax of nothing but minus infinity, NaN, is replaced by 0, the result's row is multiplied by 0 instead.

use rockshard_graph::{Binary, Graph, Links, Log, Node, NodeId, Op, Patch, Reduce, ValueId};
use rockshard_graph::{VerifyError, broadcast};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::{DType, Tensor};

/// float16's lowest number: from here down a score counts as hidden.
const LOWEST: f32 = -65504.0;
/// What is stored for hidden. Far below any score that counts, and what is added to it stays in float16's range.
const HIDDEN: f32 = -30000.0;
/// A mask as low as this leaves nothing of a score added to it in float32.
const DROWNS: f32 = -1e8;
/// Nodes that looking for a mask's origin visits at most.
const MOST_ANCESTORS: usize = 2000;

/// Rewrite the masks of a graph.
///
/// # Errors
/// The rewrite broke the graph (a defect, with the node named).
pub fn legal_masks(graph: &mut Graph) -> Result<Log, VerifyError> {
    let mut log = Log::default();
    let softmaxes = graph.nodes().iter().filter(|n| matches!(n.op, Op::Softmax { .. }));
    for output in softmaxes.map(|n| n.output).collect::<Vec<_>>() {
        leave_out_zeros(graph, output, &mut log)?;
        let links = graph.links();
        let Some(id) = links.producer(output) else { continue };
        let Some(found) = Scores::of(graph, &links, id) else { continue };
        let name = graph.node(id).name.clone();
        log.edits.push(format!("mask: hidden scores of {name}"));
        let patch = found.patch(graph, &links, id);
        apply(patch, graph)?;
    }
    graph.verify()?;
    Ok(log)
}

/// Take out what adds a mask of zeros, which hides nothing, to a softmax's scores.
fn leave_out_zeros(graph: &mut Graph, softmax: ValueId, log: &mut Log) -> Result<(), VerifyError> {
    let (mut scores, mut at) = (softmax, None);
    loop {
        let links = graph.links();
        let Some(id) = links.producer(scores) else { return Ok(()) };
        let node = graph.node(id);
        let name = at.get_or_insert_with(|| node.name.clone()).clone();
        let constant = |v: ValueId| graph.constant(v).is_some();
        scores = match node.op {
            Op::Softmax { .. } | Op::Reshape { .. } => node.inputs[0],
            Op::Binary(Binary::Add) if constant(node.inputs[0]) => node.inputs[1],
            Op::Binary(Binary::Add) if constant(node.inputs[1]) => node.inputs[0],
            _ => return Ok(()),
        };
        let same = graph.value(scores).shape == graph.value(node.output).shape;
        let adds = node.op == Op::Binary(Binary::Add) && same;
        if adds && node.inputs.iter().any(|&v| is_zero(graph, v)) {
            log.edits.push(format!("mask: nothing is hidden from {name}"));
            let mut patch = Patch::new(graph, id, format!("mask of {name}"));
            patch.replace(node.output, scores);
            apply(patch, graph)?;
        }
    }
}

fn is_zero(graph: &Graph, value: ValueId) -> bool {
    let values = graph.constant(value).and_then(|t| t.to_f32().ok());
    values.is_some_and(|values| values.iter().all(|&v| v == 0.0))
}

fn apply(patch: Patch, graph: &mut Graph) -> Result<(), VerifyError> {
    patch
        .apply(graph)
        .map_err(|node| VerifyError { node, problem: "a mask's rewrite made a cycle".into() })
}

/// What a softmax reads: scores, and what hides some of them.
struct Scores {
    /// Scores before any mask.
    scores: ValueId,
    masks: Vec<Mask>,
    /// The value that the masked scores take the place of.
    masked: ValueId,
}

enum Mask {
    /// Added to the scores.
    Added(ValueId),
    /// In the scores' place where the condition says so.
    Chosen { condition: ValueId, hides: bool, low: ValueId },
}

impl Scores {
    /// Look back from a softmax over its last axis. `None` where nothing needs a rewrite.
    fn of(graph: &Graph, links: &Links, softmax: NodeId) -> Option<Self> {
        let node = graph.node(softmax);
        let Op::Softmax { axis } = node.op else { return None };
        if axis + 1 != graph.value(node.output).shape.len() {
            return None;
        }
        let mut scores = node.inputs[0];
        // A change of shape that keeps the rows may stand between.
        if let Some(reshape) =
            inner(graph, links, scores).filter(|n| matches!(n.op, Op::Reshape { .. }))
            && graph.value(reshape.inputs[0]).shape.last() == graph.value(scores).shape.last()
        {
            scores = reshape.inputs[0];
        }
        let (masked, mut masks, mut needed) = (scores, Vec::new(), false);
        while let Some(node) = inner(graph, links, scores) {
            let (mask, rest, low) = match node.op {
                Op::Binary(Binary::Add) => {
                    let is_mask = |v: ValueId| is_mask(graph, links, v);
                    let (a, b) = (node.inputs[0], node.inputs[1]);
                    let Some((mask, rest)) = (match (is_mask(a), is_mask(b)) {
                        (_, true) => Some((b, a)),
                        (true, false) => Some((a, b)),
                        _ => None,
                    }) else {
                        break;
                    };
                    (Some(Mask::Added(mask)), rest, may_hide(graph, links, mask))
                }
                Op::Where => {
                    let (condition, a, b) = (node.inputs[0], node.inputs[1], node.inputs[2]);
                    let (rest, low, hides) =
                        match (is_low(graph, links, a), is_low(graph, links, b)) {
                            (false, true) => (a, b, false),
                            (true, false) => (b, a, true),
                            _ => break,
                        };
                    (Some(Mask::Chosen { condition, hides, low }), rest, true)
                }
                // A limit at what counts as hidden changes nothing.
                Op::Binary(Binary::Max) => {
                    let limit = |v: ValueId| graph.scalar(v).is_some_and(|s| s <= LOWEST);
                    match (limit(node.inputs[0]), limit(node.inputs[1])) {
                        (false, true) => (None, node.inputs[0], true),
                        (true, false) => (None, node.inputs[1], true),
                        _ => break,
                    }
                }
                _ => break,
            };
            if graph.value(rest).shape != graph.value(scores).shape {
                break;
            }
            masks.extend(mask);
            needed |= low;
            scores = rest;
        }
        (needed && !masks.is_empty()).then_some(Scores { scores, masks, masked })
    }

    fn patch(&self, graph: &Graph, links: &Links, softmax: NodeId) -> Patch {
        let name = graph.node(softmax).name.clone();
        let mut e = Edit {
            graph,
            patch: Patch::new(graph, softmax, format!("mask of {name}")),
            name: format!("{name}/mask"),
            fresh: 0,
        };
        let replaces = self.masks.iter().any(|m| matches!(m, Mask::Chosen { .. }));
        let mut mask: Option<ValueId> = None;
        // The innermost first, as they were added.
        for part in self.masks.iter().rev() {
            let part = match *part {
                Mask::Added(value) => value,
                Mask::Chosen { condition, hides, low } => {
                    let zero = e.number(0.0);
                    let choice = if hides { [low, zero] } else { [zero, low] };
                    e.node(Op::Where, vec![condition, choice[0], choice[1]])
                }
            };
            mask = Some(mask.map_or(part, |m| e.node(Op::Binary(Binary::Add), vec![m, part])));
        }
        let mask = mask.expect("there is one mask at least");
        let rows = e.rows(mask);
        let scores = self.scores_without_hidden_rows(&mut e, links, &rows, replaces);
        let legal = e.legal(mask, &rows);
        let sum = e.node(Op::Binary(Binary::Add), vec![scores, legal]);
        let (old, new) = (&graph.value(self.masked).shape, e.patch.shape(graph, sum));
        debug_assert_eq!(old, new, "a mask keeps the scores' shape");
        e.patch.replace(self.masked, sum);
        e.unhidden(links, softmax, &rows);
        e.patch
    }

    /// The scores, zero where the mask hides a whole row; by the queries where the scores are just their product with the keys.
    fn scores_without_hidden_rows(
        &self,
        e: &mut Edit<'_>,
        links: &Links,
        rows: &Rows,
        replaces: bool,
    ) -> ValueId {
        let drowned = match replaces {
            true => rows.hidden,
            false => {
                let limit = e.number(DROWNS);
                e.node(Op::Binary(Binary::LessOrEqual), vec![rows.top, limit])
            }
        };
        if e.is_false(drowned) {
            return self.scores;
        }
        let (zero, one) = (e.number(0.0), e.number(1.0));
        let factor = e.node(Op::Where, vec![drowned, zero, one]);
        let graph = e.graph;
        let mut product = inner(graph, links, self.scores);
        while let Some(node) = product {
            let by_number = |n: &Node| matches!(n.op, Op::Binary(Binary::Mul | Binary::Div));
            if node.op == Op::MatMul {
                let queries = node.inputs[0];
                let shape = &graph.value(queries).shape;
                if broadcast(shape, e.patch.shape(graph, factor)).as_ref() == Some(shape) {
                    let seen = e.node(Op::Binary(Binary::Mul), vec![queries, factor]);
                    let product = e.node(Op::MatMul, vec![seen, node.inputs[1]]);
                    e.patch.replace(node.output, product);
                    return if node.output == self.scores { product } else { self.scores };
                }
                break;
            }
            let scaled = by_number(node)
                .then(|| node.inputs.iter().find(|v| graph.constant(**v).is_none()))
                .flatten()
                .filter(|_| node.inputs.iter().any(|v| graph.scalar(*v).is_some()));
            product = scaled.and_then(|&v| inner(graph, links, v));
        }
        e.node(Op::Binary(Binary::Mul), vec![self.scores, factor])
    }
}

/// What is known of a mask's rows.
struct Rows {
    /// The largest of each row, finite.
    top: ValueId,
    /// Whether that is hidden.
    hidden: ValueId,
    /// Whether the row is nothing but minus infinity.
    nothing: ValueId,
}

/// A patch being made. Nodes of constants are computed at once.
struct Edit<'a> {
    graph: &'a Graph,
    patch: Patch,
    name: String,
    fresh: usize,
}

impl Edit<'_> {
    fn number(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.fresh += 1;
        self.patch.constant(format!("{}_{}", self.name, self.fresh), tensor)
    }

    fn node(&mut self, op: Op, inputs: Vec<ValueId>) -> ValueId {
        let known: Option<Vec<&Tensor>> =
            inputs.iter().map(|&v| self.patch.tensor(self.graph, v)).collect();
        if let Some(Ok(folded)) = known.map(|known| evaluate(&op, &known, Precision::F32)) {
            return self.constant(folded);
        }
        self.fresh += 1;
        let name = format!("{}_{}", self.name, self.fresh);
        self.patch.node(self.graph, name, op, inputs)
    }

    fn is_false(&self, value: ValueId) -> bool {
        let tensor = self.patch.tensor(self.graph, value);
        tensor.and_then(|t| t.to_i64().ok()).is_some_and(|v| v.iter().all(|&v| v == 0))
    }

    fn rows(&mut self, mask: ValueId) -> Rows {
        let axis = self.patch.shape(self.graph, mask).len().saturating_sub(1);
        let over = Op::Reduce { kind: Reduce::Max, axes: vec![axis], keep: true };
        let most = if self.patch.shape(self.graph, mask).is_empty() {
            mask
        } else {
            self.node(over, vec![mask])
        };
        let (least, lowest) = (self.number(f32::MIN), self.number(LOWEST));
        let top = self.node(Op::Binary(Binary::Max), vec![most, least]);
        let hidden = self.node(Op::Binary(Binary::LessOrEqual), vec![top, lowest]);
        let nothing = self.node(Op::Binary(Binary::Less), vec![most, least]);
        Rows { top, hidden, nothing }
    }

    /// The mask with hidden rows moved up to 0, and nothing below [`HIDDEN`] that counts as hidden.
    fn legal(&mut self, mask: ValueId, rows: &Rows) -> ValueId {
        let (zero, lowest, hidden) = (self.number(0.0), self.number(LOWEST), self.number(HIDDEN));
        let moved = if self.is_false(rows.hidden) {
            mask
        } else {
            let shift = self.node(Op::Where, vec![rows.hidden, rows.top, zero]);
            self.node(Op::Binary(Binary::Sub), vec![mask, shift])
        };
        let low = self.node(Op::Binary(Binary::LessOrEqual), vec![moved, lowest]);
        self.node(Op::Where, vec![low, hidden, moved])
    }

    /// Take out what replaces NaN by 0 behind the softmax; the product's row is multiplied by 0 instead.
    fn unhidden(&mut self, links: &Links, softmax: NodeId, rows: &Rows) {
        let graph = self.graph;
        let probabilities = graph.node(softmax).output;
        let is_nan = |n: &Node| {
            matches!(&n.op, Op::Host(host, _) if host.name == "IsNaN")
                && n.inputs[0] == probabilities
        };
        let mut users = links.users(probabilities).iter().map(|&n| graph.node(n));
        let Some(nan) = users.find(|n| is_nan(n)) else { return };
        for choice in links.users(nan.output).iter().map(|&n| graph.node(n)) {
            if choice.op != Op::Where
                || choice.inputs[2] != probabilities
                || graph.scalar(choice.inputs[1]) != Some(0.0)
            {
                continue;
            }
            let (zero, one) = (self.number(0.0), self.number(1.0));
            let factor = self.node(Op::Where, vec![rows.nothing, zero, one]);
            for product in links.users(choice.output).iter().map(|&n| graph.node(n)) {
                let shape = &graph.value(product.output).shape;
                let fits =
                    broadcast(shape, self.patch.shape(graph, factor)).as_ref() == Some(shape);
                if product.op != Op::MatMul || product.inputs[0] != choice.output || !fits {
                    return;
                }
            }
            if links.is_output(choice.output) {
                return;
            }
            self.patch.replace(choice.output, probabilities);
            let all_seen = self.is_false(rows.nothing);
            for product in
                links.users(choice.output).iter().map(|&n| graph.node(n)).filter(|_| !all_seen)
            {
                let seen = self.node(Op::Binary(Binary::Mul), vec![product.output, factor]);
                self.patch.replace(product.output, seen);
            }
        }
    }
}

/// The node that makes a value that nothing else uses.
fn inner<'a>(graph: &'a Graph, links: &Links, value: ValueId) -> Option<&'a Node> {
    links.producer(value).filter(|_| links.used_once(value)).map(|id| graph.node(id))
}

/// Whether a value is nothing but hidden: a constant, or one that is spread.
fn is_low(graph: &Graph, links: &Links, value: ValueId) -> bool {
    // What older exports write for hidden.
    const LOW: f32 = -9999.0;
    let source = match links.producer(value).map(|id| graph.node(id)) {
        Some(node) if matches!(node.op, Op::Expand { .. }) => node.inputs[0],
        _ => value,
    };
    let values = graph.constant(source).filter(|t| t.dtype().is_float() && !t.is_empty());
    values.and_then(|t| t.to_f32().ok()).is_some_and(|v| v.iter().all(|&v| v <= LOW))
}

/// Whether a value can be a mask: made without any heavy operator.
fn is_mask(graph: &Graph, links: &Links, value: ValueId) -> bool {
    graph.value(value).dtype == DType::F32
        && ancestors(graph, links, value).is_some_and(|(nodes, _)| {
            !nodes.iter().any(|n| {
                matches!(
                    n.op,
                    Op::Conv { .. } | Op::ConvTranspose { .. } | Op::MatMul | Op::Attention { .. }
                )
            })
        })
}

/// Whether a mask may hold what float16 does not: from a constant among what it is made of, or given as real numbers.
fn may_hide(graph: &Graph, links: &Links, mask: ValueId) -> bool {
    let Some((nodes, inputs)) = ancestors(graph, links, mask) else { return false };
    let low = |v: ValueId| {
        let values =
            graph.constant(v).filter(|t| t.dtype().is_float()).and_then(|t| t.to_f32().ok());
        values.is_some_and(|v| v.iter().any(|v| v.abs() >= -LOWEST))
    };
    low(mask)
        || nodes.iter().flat_map(|n| &n.inputs).any(|&v| low(v))
        || inputs.iter().any(|&v| graph.value(v).dtype == DType::F32)
}

/// The nodes that a value is made by, and the graph's inputs among what they read; `None` where there are too many.
fn ancestors<'a>(
    graph: &'a Graph,
    links: &Links,
    value: ValueId,
) -> Option<(Vec<&'a Node>, Vec<ValueId>)> {
    let (mut nodes, mut inputs, mut seen) =
        (Vec::new(), Vec::new(), std::collections::HashSet::new());
    let mut open = vec![value];
    while let Some(next) = open.pop() {
        if !seen.insert(next) || graph.constant(next).is_some() {
            continue;
        }
        match links.producer(next) {
            Some(id) => {
                nodes.push(graph.node(id));
                open.extend(&graph.node(id).inputs);
            }
            None => inputs.push(next),
        }
        if nodes.len() > MOST_ANCESTORS {
            return None;
        }
    }
    Some((nodes, inputs))
}
