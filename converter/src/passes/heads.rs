//! `heads`: an attention's heads in as many groups as there are cores, so that the partition can give each group a shard of its own.

use rockshard_graph::{Graph, Links, Log, NodeId, Op, Patch, Rule, ValueId, VerifyError, rewrite};

/// Marks nodes made by this pass; the partition cuts between them. Followed by the group's number.
pub(crate) const GROUP_MARK: &str = "/heads";

struct SplitHeads {
    groups: usize,
}

/// Split every attention of two and more heads into up to `groups` groups.
///
/// # Errors
/// The split broke the graph (a defect, with the node named).
pub fn split_heads(graph: &mut Graph, groups: usize) -> Result<Log, VerifyError> {
    rewrite(graph, &[&SplitHeads { groups }], None)
}

impl Rule for SplitHeads {
    fn name(&self) -> &'static str {
        "split heads"
    }

    fn propose(
        &self,
        graph: &Graph,
        _: &Links,
        id: NodeId,
        declined: &mut Vec<String>,
    ) -> Option<Patch> {
        let node = graph.node(id);
        if !matches!(node.op, Op::Attention { .. }) || node.name.contains(GROUP_MARK) {
            return None;
        }
        let shape = &graph.value(node.output).shape;
        let Some(axis) = shape.len().checked_sub(3) else {
            declined.push(format!("{}: has no axis of heads", node.name));
            return None;
        };
        let heads = shape[axis];
        let groups = self.groups.min(heads);
        if groups < 2 {
            declined.push(format!("{}: has one head", node.name));
            return None;
        }
        let mut patch = Patch::new(graph, id, format!("{} in {groups} groups of heads", node.name));
        let mut parts = Vec::new();
        for g in 0..groups {
            let (from, to) = (heads * g / groups, heads * (g + 1) / groups);
            let mut inputs: Vec<ValueId> = Vec::new();
            for (i, &input) in node.inputs.iter().enumerate() {
                let dims = graph.value(input).shape.clone();
                // A mask, or keys shared by all heads, may have no axis of heads or extent 1 there.
                let Some(a) = dims.len().checked_sub(3).filter(|&a| dims[a] == heads) else {
                    inputs.push(input);
                    continue;
                };
                let (mut begin, mut end) = (vec![0; dims.len()], dims.clone());
                (begin[a], end[a]) = (from, to);
                let op = Op::Slice { begin, end, step: vec![1; dims.len()] };
                inputs.push(patch.node(
                    graph,
                    format!("{}{GROUP_MARK}{g}/input{i}", node.name),
                    op,
                    vec![input],
                ));
            }
            parts.push(patch.node(
                graph,
                format!("{}{GROUP_MARK}{g}", node.name),
                node.op.clone(),
                inputs,
            ));
        }
        let out = patch.node(graph, format!("{}/joined", node.name), Op::Concat { axis }, parts);
        patch.replace(node.output, out);
        Some(patch)
    }
}
