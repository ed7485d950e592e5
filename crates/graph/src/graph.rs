//! Graphs of static shape: values, nodes in running order, constants that share bytes.

use crate::Op;
use rockshard_tensor::{DType, Tensor};
use std::collections::HashMap;

/// Index of a value in its graph; stable under edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Position of a node in [`Graph::nodes`]; an edit may move nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tensor that flows through the graph, or a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Unique name.
    pub name: String,
    /// Element type; float32 for every real-valued value.
    pub dtype: DType,
    /// Static extents.
    pub shape: Vec<usize>,
    /// The constant's elements; a float32 value may be stored as float16.
    pub constant: Option<Tensor>,
}

impl Value {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes on the NPU: two an element for real values.
    pub fn npu_bytes(&self) -> u64 {
        let size = if self.dtype == DType::F32 { 2 } else { self.dtype.size() };
        (self.count() * size) as u64
    }
}

/// One operator with its inputs and its output.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name from the source model, or derived from one.
    pub name: String,
    /// Operator.
    pub op: Op,
    /// Input values in the operator's order.
    pub inputs: Vec<ValueId>,
    /// Output value.
    pub output: ValueId,
}

/// A static-shape graph. Nodes are in an order in which they can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Name of the model or shard.
    pub name: String,
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    /// Values the caller gives.
    pub inputs: Vec<ValueId>,
    /// Values the caller gets.
    pub outputs: Vec<ValueId>,
}

/// Who makes and who uses each value; valid until the next edit.
#[derive(Clone, Debug)]
pub struct Links {
    producer: Vec<Option<NodeId>>,
    users: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Add a value without a producer yet.
    pub fn add_value(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        shape: Vec<usize>,
    ) -> ValueId {
        self.values.push(Value { name: name.into(), dtype, shape, constant: None });
        ValueId((self.values.len() - 1) as u32)
    }

    /// Add a constant. A float16 tensor makes a float32 value stored as float16.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        let dtype = if tensor.dtype().is_float() { DType::F32 } else { tensor.dtype() };
        let id = self.add_value(name, dtype, tensor.shape().to_vec());
        self.values[id.index()].constant = Some(tensor);
        id
    }

    /// Append a node whose inputs all exist.
    pub fn add_node(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<ValueId>,
        output: ValueId,
    ) {
        self.nodes.push(Node { name: name.into(), op, inputs, output });
    }

    /// The value of an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The value of an id, to edit.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// All values; some may be unused.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// All nodes in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids of all nodes in running order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The constant behind a value.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).constant.as_ref()
    }

    /// The single number behind a constant of one element.
    pub fn scalar(&self, id: ValueId) -> Option<f32> {
        let tensor = self.constant(id)?;
        (tensor.len() == 1).then(|| tensor.to_f32().ok().map(|v| v[0]))?
    }

    /// The value of a name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.values.iter().position(|v| v.name == name).map(|i| ValueId(i as u32))
    }

    /// Producers and users of all values.
    pub fn links(&self) -> Links {
        let mut links = Links {
            producer: vec![None; self.values.len()],
            users: vec![Vec::new(); self.values.len()],
            is_output: vec![false; self.values.len()],
        };
        for (id, node) in self.node_ids().zip(&self.nodes) {
            links.producer[node.output.index()] = Some(id);
            for input in &node.inputs {
                links.users[input.index()].push(id);
            }
        }
        for output in &self.outputs {
            links.is_output[output.index()] = true;
        }
        links
    }

    /// Remove nodes that no output needs, and put the rest in a running order that keeps the present one where it can.
    /// Constants that nothing uses give up their data.
    ///
    /// # Errors
    /// The name of a node on a cycle.
    pub fn tidy(&mut self) -> Result<(), String> {
        let links = self.links();
        let mut live = vec![false; self.nodes.len()];
        let mut open: Vec<NodeId> =
            self.outputs.iter().filter_map(|&v| links.producer(v)).collect();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut live[id.index()], true) {
                open.extend(self.node(id).inputs.iter().filter_map(|&v| links.producer(v)));
            }
        }
        let mut waiting: Vec<usize> = vec![0; self.nodes.len()];
        let mut ready = std::collections::BinaryHeap::new();
        for id in self.node_ids().filter(|id| live[id.index()]) {
            let count =
                self.node(id).inputs.iter().filter(|&&v| links.producer(v).is_some()).count();
            waiting[id.index()] = count;
            if count == 0 {
                ready.push(std::cmp::Reverse(id));
            }
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(std::cmp::Reverse(id)) = ready.pop() {
            order.push(id);
            for &user in links.users(self.node(id).output).iter().filter(|u| live[u.index()]) {
                waiting[user.index()] -= 1;
                if waiting[user.index()] == 0 {
                    ready.push(std::cmp::Reverse(user));
                }
            }
        }
        if let Some(stuck) = self.node_ids().find(|id| live[id.index()] && waiting[id.index()] > 0)
        {
            return Err(self.node(stuck).name.clone());
        }
        let mut nodes: Vec<Option<Node>> =
            std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|id| nodes[id.index()].take()).collect();
        let links = self.links();
        for (i, value) in self.values.iter_mut().enumerate() {
            if links.users[i].is_empty() && !links.is_output[i] {
                value.constant = None;
            }
        }
        Ok(())
    }

    /// Number of nodes by operator name.
    pub fn operators(&self) -> std::collections::BTreeMap<String, usize> {
        let mut count = std::collections::BTreeMap::new();
        for node in &self.nodes {
            *count.entry(node.op.name().to_owned()).or_insert(0) += 1;
        }
        count
    }

    /// Bytes of the constants that nodes use, as the NPU stores them.
    pub fn weight_bytes(&self) -> u64 {
        let mut seen = HashMap::new();
        for &id in self.nodes.iter().flat_map(|n| &n.inputs) {
            if self.constant(id).is_some() {
                seen.insert(id, self.value(id).npu_bytes());
            }
        }
        seen.values().sum()
    }
}

impl Links {
    /// The node that makes a value; `None` for inputs and constants.
    pub fn producer(&self, value: ValueId) -> Option<NodeId> {
        self.producer[value.index()]
    }

    /// The nodes that read a value; one that reads it twice is listed twice.
    pub fn users(&self, value: ValueId) -> &[NodeId] {
        &self.users[value.index()]
    }

    /// Whether the graph gives the value to its caller.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.is_output[value.index()]
    }

    /// Whether exactly one node reads the value and the caller does not.
    pub fn used_once(&self, value: ValueId) -> bool {
        self.users(value).len() == 1 && !self.is_output(value)
    }
}
