//! A graph that a pass builds anew from another one: the same inputs first, then node by node in the source's order, then the outputs. What
//! a value of the source has become is the pass's own matter.

use crate::{Graph, Op, ValueId, VerifyError, infer};

/// A graph under construction.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// What there is so far.
    pub graph: Graph,
    pass: &'static str,
}

impl Rebuild {
    /// Begin with a source's name and inputs, for a pass that errors name; gives the new inputs in order.
    pub fn of(source: &Graph, pass: &'static str) -> (Self, Vec<ValueId>) {
        let mut graph = Graph::new(source.name.clone());
        for &input in &source.inputs {
            let value = source.value(input);
            let id = graph.add_value(value.name.clone(), value.dtype, value.shape.clone());
            graph.inputs.push(id);
        }
        let inputs = graph.inputs.clone();
        (Rebuild { graph, pass }, inputs)
    }

    /// Add a node whose output is named like it, with the type and shape that follow from its inputs.
    ///
    /// # Panics
    /// The operator does not take such inputs: a defect of the pass, which makes every part so that it fits.
    pub fn add(&mut self, name: String, op: Op, inputs: Vec<ValueId>) -> ValueId {
        let values: Vec<_> = inputs.iter().map(|&v| self.graph.value(v)).collect();
        let (dtype, shape) =
            infer(&op, &values).unwrap_or_else(|e| panic!("{}, node {name}: {e}", self.pass));
        let output = self.graph.add_value(name.clone(), dtype, shape);
        self.graph.add_node(name, op, inputs, output);
        output
    }

    /// Set the outputs, drop what is not needed, and verify.
    ///
    /// # Errors
    /// The pass broke the graph (a defect, with the node named).
    pub fn finish(mut self, outputs: Vec<ValueId>) -> Result<Graph, VerifyError> {
        self.graph.outputs = outputs;
        let problem = || format!("{} made a cycle", self.pass);
        self.graph.tidy().map_err(|node| VerifyError { node, problem: problem() })?;
        self.graph.verify()?;
        Ok(self.graph)
    }
}
