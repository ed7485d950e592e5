//! What must hold of every graph, checked after every pass.

use crate::{Graph, infer};
use std::collections::HashSet;

/// A graph that does not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?}: {problem}")]
pub struct VerifyError {
    /// Node where it shows.
    pub node: String,
    /// What is wrong.
    pub problem: String,
}

impl Graph {
    /// Check that every value is made before it is used, once, with the type and shape its operator gives.
    ///
    /// # Errors
    /// The first node that does not hold.
    pub fn verify(&self) -> Result<(), VerifyError> {
        let fail =
            |node: &str, problem: String| Err(VerifyError { node: node.to_owned(), problem });
        let mut known: HashSet<_> = self.inputs.iter().copied().collect();
        for node in &self.nodes {
            for &input in &node.inputs {
                if self.constant(input).is_none() && !known.contains(&input) {
                    return fail(
                        &node.name,
                        format!("input {:?} is made by no earlier node", self.value(input).name),
                    );
                }
            }
            let values: Vec<_> = node.inputs.iter().map(|&id| self.value(id)).collect();
            let output = self.value(node.output);
            match infer(&node.op, &values) {
                Err(error) => return fail(&node.name, error.to_string()),
                Ok((dtype, shape)) if dtype != output.dtype || shape != output.shape => {
                    return fail(
                        &node.name,
                        format!(
                            "gives {dtype}{shape:?}, declared {}{:?}",
                            output.dtype, output.shape
                        ),
                    );
                }
                Ok(_) => {}
            }
            if !known.insert(node.output) {
                return fail(&node.name, format!("value {:?} is made twice", output.name));
            }
        }
        for &output in &self.outputs {
            if !known.contains(&output) && self.constant(output).is_none() {
                return fail(
                    "",
                    format!("output {:?} is made by no node", self.value(output).name),
                );
            }
        }
        Ok(())
    }
}
