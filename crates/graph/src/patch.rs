//! Described edits of a graph: what is added and whose place it takes.

use crate::{Graph, Node, NodeId, Op, Value, ValueId, infer};
use rockshard_tensor::Tensor;

/// A described edit: new constants and nodes, and values that take the place of others. What becomes unused is removed.
#[derive(Debug)]
pub struct Patch {
    pub(crate) description: String,
    at: NodeId,
    base: usize,
    values: Vec<Value>,
    nodes: Vec<Node>,
    replace: Vec<(ValueId, ValueId)>,
}

impl Patch {
    /// An edit whose new nodes go where the node `at` stands.
    pub fn new(graph: &Graph, at: NodeId, description: impl Into<String>) -> Self {
        Patch {
            description: description.into(),
            at,
            base: graph.values.len(),
            values: Vec::new(),
            nodes: Vec::new(),
            replace: Vec::new(),
        }
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId((self.base + self.values.len() - 1) as u32)
    }

    fn get<'a>(&'a self, graph: &'a Graph, id: ValueId) -> &'a Value {
        if id.index() < self.base { graph.value(id) } else { &self.values[id.index() - self.base] }
    }

    /// A new constant.
    pub fn constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        let dtype =
            if tensor.dtype().is_float() { rockshard_tensor::DType::F32 } else { tensor.dtype() };
        self.push(Value {
            name: name.into(),
            dtype,
            shape: tensor.shape().to_vec(),
            constant: Some(tensor),
        })
    }

    /// A new node; gives its output, whose shape is inferred and whose name is the node's.
    ///
    /// # Panics
    /// The operator does not take these inputs: a defect of the rule, not of the model.
    pub fn node(
        &mut self,
        graph: &Graph,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<ValueId>,
    ) -> ValueId {
        let name = name.into();
        let values: Vec<&Value> = inputs.iter().map(|&id| self.get(graph, id)).collect();
        let (dtype, shape) = match infer(&op, &values) {
            Ok(found) => found,
            Err(error) => panic!("patch {:?}, node {name}: {error}", self.description),
        };
        let output = self.push(Value { name: name.clone(), dtype, shape, constant: None });
        self.nodes.push(Node { name, op, inputs, output });
        output
    }

    /// Shape of an existing or new value.
    pub fn shape<'a>(&'a self, graph: &'a Graph, id: ValueId) -> &'a [usize] {
        &self.get(graph, id).shape
    }

    /// The constant behind an existing or new value.
    pub fn tensor<'a>(&'a self, graph: &'a Graph, id: ValueId) -> Option<&'a Tensor> {
        self.get(graph, id).constant.as_ref()
    }

    /// Whether every value that is replaced is so by one of its type and shape.
    pub fn keeps_shapes(&self, graph: &Graph) -> bool {
        let form = |id| (self.get(graph, id).dtype, &self.get(graph, id).shape);
        self.replace.iter().all(|&(old, new)| form(old) == form(new))
    }

    /// Let every user of `old` use `new` instead. When `old` is a graph output, `new` takes its place and name.
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        self.replace.push((old, new));
    }

    /// Carry the edit out.
    ///
    /// # Errors
    /// The edit made a cycle; the message names a node on it.
    pub fn apply(self, graph: &mut Graph) -> Result<(), String> {
        debug_assert_eq!(
            self.base,
            graph.values.len(),
            "a patch is made for the graph it is applied to"
        );
        let added: Vec<ValueId> = self.nodes.iter().map(|n| n.output).collect();
        graph.values.extend(self.values);
        let at = self.at.index().min(graph.nodes.len());
        graph.nodes.splice(at..at, self.nodes);
        for (old, new) in self.replace {
            for node in graph.nodes.iter_mut().filter(|n| !added.contains(&n.output)) {
                for input in node.inputs.iter_mut().filter(|i| **i == old) {
                    *input = new;
                }
            }
            if let Some(output) = graph.outputs.iter_mut().find(|o| **o == old) {
                *output = new;
                let name = graph.values[old.index()].name.clone();
                let spare = std::mem::replace(&mut graph.values[new.index()].name, name);
                graph.values[old.index()].name = spare;
            }
        }
        graph.tidy()
    }
}
