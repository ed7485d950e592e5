//! Attributes of ONNX nodes, typed, with the node in the error.

use crate::Problem;
use rockshard_onnx::schema::{AttributeProto, NodeProto, TensorProto};

/// Typed access to a node's attributes.
pub(crate) struct Attributes<'a>(pub &'a NodeProto);

impl<'a> Attributes<'a> {
    fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|a| a.name.as_deref() == Some(name))
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|a| a.i).unwrap_or(default)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).and_then(|a| a.f).unwrap_or(default)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn graph(&self, name: &str) -> Option<&'a rockshard_onnx::schema::GraphProto> {
        self.get(name).and_then(|a| a.g.as_ref())
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|a| a.ints.as_slice())
    }

    pub fn text(&self, name: &str, default: &'a str) -> &'a str {
        self.get(name)
            .and_then(|a| a.s.as_ref())
            .and_then(|s| std::str::from_utf8(s).ok())
            .unwrap_or(default)
    }

    pub fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.get(name).and_then(|a| a.t.as_ref())
    }

    pub fn value(&self) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|a| a.name.as_deref().is_some_and(|n| n.starts_with("value")))
    }

    /// Non-negative integers, e.g. strides.
    pub fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>, Problem> {
        let negative = |_| Problem::Form(format!("attribute {name} is negative"));
        self.ints(name)
            .map(|v| {
                v.iter().map(|&i| usize::try_from(i)).collect::<Result<_, _>>().map_err(negative)
            })
            .transpose()
    }
}

/// An axis counted from the front.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Problem> {
    let positive = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(positive)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| Problem::Form(format!("axis {axis} of a tensor of rank {rank}")))
}
