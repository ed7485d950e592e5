//! `If` whose condition is constant: the branch that it takes stands in its place.

use crate::inline::renamed;
use crate::operators::{Context, import_node};
use crate::order::running_order;
use crate::{ImportError, Problem};

pub(crate) fn choose_branch(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let condition = c.input(0)?;
    let condition = c.walk.number(condition).ok_or(Problem::DataDependent("the condition"))?;
    let branch = if condition != 0.0 { "then_branch" } else { "else_branch" };
    let graph =
        c.attributes.graph(branch).ok_or_else(|| Problem::Form(format!("has no {branch}")))?;
    // Both branches may use the same names, and so may another If.
    let prefix = c.walk.fresh(&c.name);
    let graph = renamed(graph, &prefix);
    for tensor in &graph.initializer {
        let value = c.walk.model.tensor(tensor)?;
        c.walk.bind_constant(tensor.name.as_deref().unwrap_or_default(), value)?;
    }
    let outputs: Vec<String> = graph.output.iter().filter_map(|o| o.name.clone()).collect();
    let order = running_order(&graph.node, &outputs)
        .map_err(|e: ImportError| Problem::Form(e.to_string()))?;
    for node in order {
        import_node(c.walk, node)?;
    }
    for (output, name) in outputs.iter().zip(&c.attributes.0.output) {
        let value = c.walk.get(output)?;
        if !name.is_empty() {
            c.walk.bind(name, value);
        }
    }
    Ok(())
}
