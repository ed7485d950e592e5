//! Rules that propose patches, applied until none does.

use crate::{Graph, Links, NodeId, Patch, VerifyError};

/// A rewrite rule: looks at one node and proposes an edit, or says why not.
pub trait Rule {
    /// Name for messages.
    fn name(&self) -> &'static str;

    /// An edit that starts at `node`. A rule that recognises its subject but cannot treat it says so through `declined`.
    fn propose(
        &self,
        graph: &Graph,
        links: &Links,
        node: NodeId,
        declined: &mut Vec<String>,
    ) -> Option<Patch>;
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Edits made, `rule: description`, in order.
    pub edits: Vec<String>,
    /// What rules declined at the end, `rule: node: reason`.
    pub declined: Vec<String>,
}

/// Apply rules until none proposes an edit, or `stop_at` edits were made (for bisecting), then verify.
///
/// # Errors
/// An edit broke the graph.
pub fn rewrite(
    graph: &mut Graph,
    rules: &[&dyn Rule],
    stop_at: Option<usize>,
) -> Result<Log, VerifyError> {
    let mut log = Log::default();
    for rule in rules {
        let mut start = 0;
        loop {
            if stop_at.is_some_and(|limit| log.edits.len() >= limit) {
                graph.verify()?;
                return Ok(log);
            }
            let links = graph.links();
            let mut declined = Vec::new();
            let found = graph
                .node_ids()
                .skip(start)
                .find_map(|id| rule.propose(graph, &links, id, &mut declined).map(|p| (id, p)));
            let Some((id, patch)) = found else {
                if start == 0 {
                    log.declined
                        .extend(declined.into_iter().map(|d| format!("{}: {d}", rule.name())));
                    break;
                }
                start = 0;
                continue;
            };
            let description = format!("{}: {}", rule.name(), patch.description);
            log.edits.push(description.clone());
            patch.apply(graph).map_err(|node| VerifyError {
                node,
                problem: format!("edit {description:?} made a cycle"),
            })?;
            // Most rules are done with what lies before the edit; a last sweep from the start confirms it.
            start = id.index().saturating_sub(16);
        }
    }
    graph.verify()?;
    Ok(log)
}
