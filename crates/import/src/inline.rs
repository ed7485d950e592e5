//! Calls of a model's own functions, replaced by their bodies.

use crate::ImportError;
use rockshard_onnx::schema::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto,
    attribute_proto::AttributeType,
};
use std::collections::{HashMap, HashSet};

/// How deep functions may call each other, and how many nodes there may be in all.
const DEEPEST: usize = 32;
const MOST_NODES: usize = 1 << 17;

type Key<'a> = (&'a str, &'a str);

/// The graph's nodes, with calls replaced; `None` where the model has no functions.
pub(crate) fn inlined(model: &ModelProto) -> Result<Option<Vec<NodeProto>>, ImportError> {
    if model.functions.is_empty() {
        return Ok(None);
    }
    fn text(s: &Option<String>) -> &str {
        s.as_deref().unwrap_or_default()
    }
    fn key(f: &FunctionProto) -> Key<'_> {
        (f.domain.as_deref().unwrap_or_default(), f.name.as_deref().unwrap_or_default())
    }
    let functions: HashMap<Key<'_>, &FunctionProto> =
        model.functions.iter().map(|f| (key(f), f)).collect();
    let mut done = Vec::new();
    let nodes = model.graph.as_ref().map(|g| g.node.as_slice()).unwrap_or_default();
    // Nodes still to look at, the next one last, with the depth of their call.
    let mut open: Vec<(NodeProto, usize)> = nodes.iter().rev().map(|n| (n.clone(), 0)).collect();
    let mut calls = 0;
    while let Some((node, depth)) = open.pop() {
        let Some(function) = functions.get(&(text(&node.domain), text(&node.op_type))) else {
            done.push(node);
            continue;
        };
        let name = || text(&function.name).to_owned();
        if depth >= DEEPEST || open.len() + done.len() + function.node.len() > MOST_NODES {
            return Err(ImportError::Function(name()));
        }
        calls += 1;
        let body = body(function, &node, &format!("{}#{calls}", name()));
        open.extend(body.into_iter().rev().map(|n| (n, depth + 1)));
    }
    Ok(Some(done))
}

/// A function's nodes with the call's names and attributes.
fn body(function: &FunctionProto, call: &NodeProto, prefix: &str) -> Vec<NodeProto> {
    let mut names: HashMap<&str, String> = HashMap::new();
    let given = call.input.iter().map(String::as_str).chain(std::iter::repeat(""));
    names.extend(function.input.iter().map(String::as_str).zip(given.map(str::to_owned)));
    let outputs = function.output.iter().zip(&call.output).filter(|(_, to)| !to.is_empty());
    names.extend(outputs.map(|(from, to)| (from.as_str(), to.clone())));
    let rename = |name: &String| match names.get(name.as_str()) {
        _ if name.is_empty() => String::new(),
        Some(known) => known.clone(),
        None => format!("{prefix}/{name}"),
    };
    let attribute = |a: &AttributeProto| -> Option<AttributeProto> {
        let Some(reference) = a.ref_attr_name.as_deref().filter(|r| !r.is_empty()) else {
            return Some(a.clone());
        };
        let of = |list: &[AttributeProto]| {
            list.iter().find(|b| b.name.as_deref() == Some(reference)).cloned()
        };
        let value = of(&call.attribute).or_else(|| of(&function.attribute_proto))?;
        Some(AttributeProto { name: a.name.clone(), ..value })
    };
    let call_name = call.name.clone().unwrap_or_default();
    let node = |n: &NodeProto| {
        let mut node = n.clone();
        node.input = n.input.iter().map(&rename).collect();
        node.output = n.output.iter().map(&rename).collect();
        node.attribute = n.attribute.iter().filter_map(attribute).collect();
        let own = n.name.clone().unwrap_or_default();
        node.name = (!call_name.is_empty()).then(|| format!("{call_name}/{own}"));
        for attribute in &mut node.attribute {
            if let Some(graph) = &mut attribute.g {
                rename_graph(graph, &mut |name| *name = rename(name));
            }
        }
        node
    };
    function.node.iter().map(node).collect()
}

/// A branch with a prefix before the names that it makes itself.
pub(crate) fn renamed(graph: &GraphProto, prefix: &str) -> GraphProto {
    let made = graph
        .node
        .iter()
        .flat_map(|n| &n.output)
        .chain(graph.initializer.iter().filter_map(|t| t.name.as_ref()));
    let made: HashSet<String> = made.filter(|n| !n.is_empty()).cloned().collect();
    let mut graph = graph.clone();
    rename_graph(&mut graph, &mut |name| {
        if made.contains(name) {
            *name = format!("{prefix}/{name}");
        }
    });
    graph
}

fn rename_graph(graph: &mut GraphProto, rename: &mut dyn FnMut(&mut String)) {
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(&mut *rename);
        for attribute in node.attribute.iter_mut().filter(|a| is_graph(a)) {
            if let Some(inner) = &mut attribute.g {
                rename_graph(inner, rename);
            }
        }
    }
    graph.initializer.iter_mut().filter_map(|t| t.name.as_mut()).for_each(&mut *rename);
    graph.output.iter_mut().filter_map(|o| o.name.as_mut()).for_each(rename);
}

fn is_graph(attribute: &AttributeProto) -> bool {
    attribute.r#type == Some(AttributeType::Graph as i32) || attribute.g.is_some()
}

/// Names that a node's branches take from outside.
pub(crate) fn captured(node: &NodeProto) -> Vec<&str> {
    let mut names = Vec::new();
    let mut open: Vec<&GraphProto> = node.attribute.iter().filter_map(|a| a.g.as_ref()).collect();
    while let Some(graph) = open.pop() {
        for node in &graph.node {
            names.extend(node.input.iter().map(String::as_str));
            open.extend(node.attribute.iter().filter_map(|a| a.g.as_ref()));
        }
        names.extend(graph.output.iter().filter_map(|o| o.name.as_deref()));
    }
    names
}
