//! `plane`: linear layers over tokens as 1x1 convolutions over a plane.
//!
//! The compiler gives tokens a height of 1, and a convolution of height 1 whose kernel is deep was measured to use the core badly (docs/rk3588.md
//! 2.4: 10 % at a depth of 3072, where a plane reaches 70 %). So the tokens `[batch, T, channels]` become `[batch, channels, H, W]` for such
//! layers and for what lies between them: activations, gates, sums with constants. A projection that is cut in parts behind its bias (gated
//! feed-forward) becomes a convolution a part. That a plane of tokens is as fast as any other plane is inferred from those measurements; nobody
//! has published a measurement of it.

use super::tokens::token_planes;
use crate::ConvertError;
use rockshard_cost::Rk3588;
use rockshard_graph::{Binary, Graph, Links, Node, Op, Rebuild, ValueId, Window};
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;

/// A value of the source graph, in one or both layouts.
#[derive(Clone, Copy, Debug, Default)]
struct Forms {
    /// As in the source graph.
    plain: Option<ValueId>,
    /// `[batch, channels, H, W]`; of tokens that were given heads, `[batch, heads, channels of a head, T]`.
    plane: Option<ValueId>,
}

struct Planes<'a> {
    source: &'a Graph,
    links: Links,
    npu: &'a Rk3588,
    out: Rebuild,
    forms: HashMap<ValueId, Forms>,
    /// Height and width for a number of tokens that came from a plane.
    known: HashMap<usize, [usize; 2]>,
    /// Values whose every use is better off with a plane.
    wanted: Vec<bool>,
    weights: HashMap<ValueId, Tensor>,
    store: &'a mut dyn FnMut(Tensor) -> Result<Tensor, ConvertError>,
}

/// Move deep linear layers to planes. `store` keeps a new weight (transposed) out of memory and gives it back.
///
/// # Errors
/// `store` fails, or the rewrite broke the graph (a defect, with the node named).
pub fn planes(
    graph: &Graph,
    npu: &Rk3588,
    store: &mut dyn FnMut(Tensor) -> Result<Tensor, ConvertError>,
) -> Result<Graph, ConvertError> {
    let (out, inputs) = Rebuild::of(graph, "moving to planes");
    let plain = |id| Forms { plain: Some(id), plane: None };
    let mut p = Planes {
        source: graph,
        links: graph.links(),
        npu,
        out,
        forms: graph.inputs.iter().copied().zip(inputs.into_iter().map(plain)).collect(),
        known: token_planes(graph),
        wanted: vec![false; graph.values().len()],
        weights: HashMap::new(),
        store,
    };
    p.find_wanted();
    for node in graph.nodes() {
        let made = match p.node(node)? {
            Some(plane) => Forms { plain: None, plane: Some(plane) },
            None => Forms { plain: Some(p.as_it_was(node)), plane: None },
        };
        p.forms.insert(node.output, made);
    }
    let outputs = graph.outputs.iter().map(|&v| p.plain(v)).collect();
    Ok(p.out.finish(outputs)?)
}

/// A weight `[inputs, outputs]` as `[outputs, inputs, 1, 1]`.
fn transposed(weight: &Tensor) -> Option<Tensor> {
    let &[inputs, outputs] = weight.shape() else { return None };
    let old = weight.to_f32().ok()?;
    let mut new = vec![0.0; old.len()];
    for (i, row) in old.chunks_exact(outputs).enumerate() {
        row.iter().enumerate().for_each(|(o, &v)| new[o * inputs + i] = v);
    }
    Tensor::from_f32([outputs, inputs, 1, 1], new).to_float(weight.dtype()).ok()
}

impl Planes<'_> {
    /// Height and width for a number of tokens; the most square of those that leave some height.
    fn extents(&self, tokens: usize) -> Option<[usize; 2]> {
        const LEAST: usize = 4;
        let square = || {
            (LEAST..=tokens.isqrt())
                .rev()
                .find(|h| tokens.is_multiple_of(*h))
                .map(|h| [h, tokens / h])
        };
        self.known.get(&tokens).copied().or_else(square)
    }

    /// Product of tokens by a constant, with `[batch, tokens, channels]`.
    fn linear(&self, node: &Node) -> Option<[usize; 3]> {
        let &[batch, tokens, channels] = &self.source.value(node.inputs[0]).shape[..] else {
            return None;
        };
        let weight = self.source.constant(*node.inputs.get(1)?)?;
        let fits = node.op == Op::MatMul && weight.shape().len() == 2 && weight.dtype().is_float();
        (fits && self.extents(tokens).is_some()).then_some([batch, tokens, channels])
    }

    /// Whether a linear layer gains more on a plane than moving its result back and forth costs.
    fn is_deep(&self, node: &Node) -> bool {
        let Some([_, _, channels]) = self.linear(node) else { return false };
        let flat = channels as f64 / self.npu.flat_depth;
        let gain =
            self.npu.node(self.source, node).micros * (1.0 - self.npu.convolution_factor / flat);
        let bytes = self.source.value(node.output).npu_bytes() as f64;
        let there = 2.0 * bytes / self.npu.transpose_bytes_per_second
            + 2.0 * bytes / self.npu.copy_bytes_per_second;
        flat > self.npu.convolution_factor && gain > 2.0 * there * 1e6
    }

    fn find_wanted(&mut self) {
        for id in self.source.node_ids().rev() {
            let output = self.source.node(id).output;
            let users = self.links.users(output);
            let good = |node: &Node| match node.op {
                Op::MatMul => node.inputs[0] == output && self.is_deep(node),
                Op::Unary(_)
                | Op::Swish { .. }
                | Op::Gelu { .. }
                | Op::Clip { .. }
                | Op::Binary(_) => self.wanted[node.output.index()],
                Op::Slice { .. } => self.wanted[node.output.index()] && self.channels_only(node),
                _ => false,
            };
            self.wanted[output.index()] = !users.is_empty()
                && !self.links.is_output(output)
                && users.iter().all(|&u| good(self.source.node(u)));
        }
    }

    /// Whether a slice leaves all but the last axis as it is.
    fn channels_only(&self, node: &Node) -> bool {
        let Op::Slice { begin, end, step } = &node.op else { return false };
        let shape = &self.source.value(node.inputs[0]).shape;
        shape.len() == 3
            && step.iter().all(|&s| s == 1)
            && (0..2).all(|a| begin[a] == 0 && end[a] == shape[a])
    }

    fn add(&mut self, name: String, op: Op, inputs: Vec<ValueId>) -> ValueId {
        self.out.add(name, op, inputs)
    }

    /// A value as in the source graph.
    fn plain(&mut self, value: ValueId) -> ValueId {
        let forms = self.forms.get(&value).copied().unwrap_or_default();
        let id = match (forms.plain, forms.plane) {
            (Some(id), _) => return id,
            (None, Some(plane)) if self.source.constant(value).is_none() => {
                let shape = self.source.value(value).shape.clone();
                let name = self.source.value(value).name.clone();
                let id = if let &[batch, tokens, channels] = &shape[..] {
                    let rows = self.add(
                        format!("{name}/rows"),
                        Op::Reshape { shape: vec![batch, channels, tokens] },
                        vec![plane],
                    );
                    self.add(
                        format!("{name}/tokens"),
                        Op::Transpose { perm: vec![0, 2, 1] },
                        vec![rows],
                    )
                } else {
                    self.add(
                        format!("{name}/tokens"),
                        Op::Transpose { perm: vec![0, 3, 1, 2] },
                        vec![plane],
                    )
                };
                self.out.graph.value_mut(id).name = name;
                id
            }
            (None, _) => {
                let constant = self.source.value(value);
                let tensor = constant
                    .constant
                    .clone()
                    .unwrap_or_else(|| panic!("plane: value {:?} has no maker", constant.name));
                self.out.graph.add_constant(constant.name.clone(), tensor)
            }
        };
        self.forms.entry(value).or_default().plain = Some(id);
        id
    }

    /// Tokens as a plane; a constant by channel as one that fits.
    fn plane(&mut self, value: ValueId) -> Option<ValueId> {
        if let Some(id) = self.forms.get(&value).and_then(|f| f.plane) {
            return Some(id);
        }
        let source = self.source.value(value);
        let (name, shape) = (source.name.clone(), source.shape.clone());
        let id = if let Some(tensor) = &source.constant {
            let channels = tensor.len();
            let fits = channels == 1 || shape.last() == Some(&channels);
            let wide = if channels == 1 { vec![1] } else { vec![channels, 1, 1] };
            let tensor = tensor.reshape(wide).ok().filter(|_| fits)?;
            self.out.graph.add_constant(format!("{name}/plane"), tensor)
        } else {
            let &[batch, tokens, channels] = &shape[..] else { return None };
            let [h, w] = self.extents(tokens)?;
            let columns = match self.heads_behind(value) {
                Some(heads) => {
                    let heads = self.plain(heads);
                    self.add(
                        format!("{name}/columns"),
                        Op::Transpose { perm: vec![0, 1, 3, 2] },
                        vec![heads],
                    )
                }
                None => {
                    let plain = self.plain(value);
                    self.add(
                        format!("{name}/columns"),
                        Op::Transpose { perm: vec![0, 2, 1] },
                        vec![plain],
                    )
                }
            };
            self.add(
                format!("{name}/plane"),
                Op::Reshape { shape: vec![batch, channels, h, w] },
                vec![columns],
            )
        };
        self.forms.entry(value).or_default().plane = Some(id);
        Some(id)
    }

    /// The `[batch, heads, T, d]` that tokens were joined from.
    fn heads_behind(&self, value: ValueId) -> Option<ValueId> {
        let maker = |v: ValueId| self.links.producer(v).map(|id| self.source.node(id));
        let reshape = maker(value).filter(|n| matches!(n.op, Op::Reshape { .. }))?;
        let transpose = maker(reshape.inputs[0])?;
        let &[_, tokens, _, _] = &self.source.value(transpose.output).shape[..] else {
            return None;
        };
        let fits = matches!(&transpose.op, Op::Transpose { perm } if perm[..] == [0, 2, 1, 3]);
        (fits && self.source.value(value).shape.get(1) == Some(&tokens))
            .then(|| transpose.inputs[0])
    }

    fn only_plane(&self, value: ValueId) -> bool {
        self.forms.get(&value).is_some_and(|f| f.plane.is_some() && f.plain.is_none())
            && self.source.value(value).shape.len() == 3
    }

    /// The node on planes, where it belongs there.
    fn node(&mut self, node: &Node) -> Result<Option<ValueId>, ConvertError> {
        let x = node.inputs.first().copied();
        Ok(match &node.op {
            Op::MatMul
                if self.is_deep(node)
                    || (self.linear(node).is_some() && self.wanted[node.output.index()]) =>
            {
                self.conv(node, &node.name, None)?
            }
            Op::Unary(_) | Op::Swish { .. } | Op::Gelu { .. } | Op::Clip { .. }
                if x.is_some_and(|x| self.only_plane(x)) =>
            {
                let input = x.and_then(|x| self.plane(x));
                input.map(|input| self.add(node.name.clone(), node.op.clone(), vec![input]))
            }
            Op::Binary(op) => self.binary(node, *op),
            Op::Slice { begin, end, .. }
                if x.is_some_and(|x| self.only_plane(x)) && self.channels_only(node) =>
            {
                self.part(node, begin[2], end[2])?
            }
            Op::Reshape { shape } if x.is_some_and(|x| self.only_plane(x)) => {
                self.heads(node, shape)
            }
            _ => None,
        })
    }

    /// A linear layer, or some of its outputs.
    fn conv(
        &mut self,
        node: &Node,
        name: &str,
        outputs: Option<(usize, usize)>,
    ) -> Result<Option<ValueId>, ConvertError> {
        let Some(x) = self.plane(node.inputs[0]) else { return Ok(None) };
        let id = node.inputs[1];
        let weight = match (self.weights.get(&id), self.source.constant(id).and_then(transposed)) {
            (Some(known), _) => known.clone(),
            (None, Some(new)) => {
                let kept = (self.store)(new)?;
                self.weights.insert(id, kept.clone());
                kept
            }
            (None, None) => return Ok(None),
        };
        let weight = match outputs {
            Some((from, to)) => super::split::constant_part(&weight, 0, from, to),
            None => weight,
        };
        let weight =
            self.out.graph.add_constant(format!("{}/{name}", self.source.value(id).name), weight);
        let window = Window { kernel: [1, 1], strides: [1, 1], pads: [0; 4], dilations: [1, 1] };
        Ok(Some(self.add(name.to_owned(), Op::Conv { window, group: 1 }, vec![x, weight])))
    }

    /// Channels `from..to` of a value: of a linear layer with or without a bias, a convolution of its own.
    fn part(
        &mut self,
        node: &Node,
        from: usize,
        to: usize,
    ) -> Result<Option<ValueId>, ConvertError> {
        let x = node.inputs[0];
        let maker = |v: ValueId| self.links.producer(v).map(|id| self.source.node(id));
        let bias = maker(x).and_then(|n| {
            let constant = n
                .inputs
                .iter()
                .copied()
                .find(|&v| self.source.constant(v).is_some_and(|t| t.len() > 1))?;
            (n.op == Op::Binary(Binary::Add))
                .then(|| (constant, n.inputs.iter().copied().find(|&v| v != constant)))
        });
        let linear = maker(bias.and_then(|b| b.1).unwrap_or(x))
            .filter(|n| self.linear(n).is_some())
            .cloned();
        let sliced =
            |u: &rockshard_graph::NodeId| matches!(self.source.node(*u).op, Op::Slice { .. });
        if let Some(linear) = linear.filter(|_| self.links.users(x).iter().all(sliced)) {
            let name = format!("{}.{from}-{to}", linear.name);
            let Some(mut out) = self.conv(&linear, &name, Some((from, to)))? else {
                return Ok(None);
            };
            if let Some((constant, _)) = bias
                && let Some(tensor) =
                    self.source.constant(constant).and_then(|t| t.reshape([t.len(), 1, 1]).ok())
            {
                let part = super::split::constant_part(&tensor, 0, from, to);
                let part = self.out.graph.add_constant(
                    format!("{}/{}", self.source.value(constant).name, node.name),
                    part,
                );
                out = self.add(node.name.clone(), Op::Binary(Binary::Add), vec![out, part]);
            }
            return Ok(Some(out));
        }
        let Some(input) = self.plane(x) else { return Ok(None) };
        let shape = self.out.graph.value(input).shape.clone();
        let (mut begin, mut end) = (vec![0; 4], shape);
        (begin[1], end[1]) = (from, to);
        Ok(Some(self.add(
            node.name.clone(),
            Op::Slice { begin, end, step: vec![1; 4] },
            vec![input],
        )))
    }

    fn binary(&mut self, node: &Node, op: Binary) -> Option<ValueId> {
        let shape = &self.source.value(node.output).shape;
        let moved = node.inputs.iter().any(|&v| self.only_plane(v));
        let fits = |p: &Self, v: ValueId| {
            let constant = p
                .source
                .constant(v)
                .is_some_and(|t| t.len() == 1 || p.source.value(v).shape.last() == Some(&t.len()));
            constant
                || p.source.value(v).shape == *shape
                    && (p.only_plane(v) || p.wanted[node.output.index()])
        };
        if !moved
            || self.source.value(node.output).dtype != DType::F32
            || !node.inputs.iter().all(|&v| fits(self, v))
        {
            return None;
        }
        let inputs = node.inputs.iter().map(|&v| self.plane(v)).collect::<Option<Vec<_>>>()?;
        Some(self.add(node.name.clone(), Op::Binary(op), inputs))
    }

    /// Tokens that are given heads: `[batch, T, heads, d]` is kept as `[batch, heads, d, T]`, which is no move.
    fn heads(&mut self, node: &Node, shape: &[usize]) -> Option<ValueId> {
        let &[batch, tokens, _] = &self.source.value(node.inputs[0]).shape[..] else { return None };
        let &[b, t, heads, width] = shape else { return None };
        let transposes =
            |u: &rockshard_graph::NodeId| matches!(self.source.node(*u).op, Op::Transpose { .. });
        if (b, t) != (batch, tokens) || !self.links.users(node.output).iter().all(transposes) {
            return None;
        }
        let input = self.plane(node.inputs[0])?;
        Some(self.add(
            node.name.clone(),
            Op::Reshape { shape: vec![batch, heads, width, tokens] },
            vec![input],
        ))
    }

    /// The node in the source's layout.
    fn as_it_was(&mut self, node: &Node) -> ValueId {
        /// Axes of what [`Planes::heads`] keeps.
        const KEPT: [usize; 4] = [0, 3, 1, 2];
        let kept = self.forms.get(&node.inputs[0]).and_then(|f| f.plane);
        let id = match (&node.op, kept) {
            (Op::Transpose { perm }, Some(kept))
                if perm.len() == 4 && self.source.value(node.inputs[0]).shape.len() == 4 =>
            {
                let perm: Vec<usize> = perm.iter().map(|&p| KEPT[p]).collect();
                if perm.is_sorted() {
                    return kept;
                }
                self.add(node.name.clone(), Op::Transpose { perm }, vec![kept])
            }
            _ => {
                let inputs = node.inputs.iter().map(|&v| self.plain(v)).collect();
                self.add(node.name.clone(), node.op.clone(), inputs)
            }
        };
        self.out.graph.value_mut(id).name.clone_from(&self.source.value(node.output).name);
        id
    }
}
