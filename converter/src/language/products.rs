//! Products with weights, in the forms that exporters and their optimisers give them.

use super::constants::{Values, attribute, int, op, transposed};
use rockshard_onnx::schema::NodeProto;
use rockshard_onnx::{BlockLayout, BlockWeights, ZeroPoints};

/// One product: a value times weights.
pub(super) struct Product<'a> {
    pub node: &'a NodeProto,
    /// What it reads, before casts.
    pub input: &'a str,
    pub outputs: usize,
    pub depth: usize,
}

/// All products with weights of two dimensions, in running order.
pub(super) fn products<'a>(values: &Values<'a>) -> Vec<Product<'a>> {
    values.graph.node.iter().filter_map(|node| product(values, node)).collect()
}

fn product<'a>(values: &Values<'a>, node: &'a NodeProto) -> Option<Product<'a>> {
    let (outputs, depth) = match op(node) {
        "MatMul" => {
            let [depth, outputs] = values.shape(node.input.get(1)?)?[..] else { return None };
            (outputs, depth)
        }
        "Gemm" => {
            let [a, b] = values.shape(node.input.get(1)?)?[..] else { return None };
            if int(node, "transB") == Some(1) { (a, b) } else { (b, a) }
        }
        "MatMulNBits" => {
            values.shape(node.input.get(1)?)?;
            (int(node, "N")? as usize, int(node, "K")? as usize)
        }
        _ => return None,
    };
    let input = without_casts(values, node.input.first()?);
    Some(Product { node, input, outputs, depth })
}

/// The value before casts.
pub(super) fn without_casts<'a>(values: &Values<'a>, value: &'a str) -> &'a str {
    let mut value = value;
    while let Some(node) = values.producer(value)
        && matches!(op(node), "Cast" | "Identity")
        && let Some(before) = node.input.first()
    {
        value = before;
    }
    value
}

impl Product<'_> {
    /// The weights, a row of inputs for each output.
    pub fn weights(&self, values: &Values) -> Result<Vec<f32>, String> {
        let node = self.node;
        match op(node) {
            "MatMulNBits" => self.blocks(values),
            "Gemm" if int(node, "transB") == Some(1) => Ok(values.constant(&node.input[1])?.values),
            "Gemm"
                if node.input.len() > 2
                    || attribute(node, "alpha").is_some_and(|a| a.f != Some(1.0)) =>
            {
                Err("a product has a bias or a factor".into())
            }
            _ => {
                let constant = values.constant(&node.input[1])?;
                Ok(transposed(&constant.values, self.depth, self.outputs))
            }
        }
    }

    /// Weights in blocks of a few bits.
    fn blocks(&self, values: &Values) -> Result<Vec<f32>, String> {
        let node = self.node;
        let given = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
        if given(4).is_some() {
            return Err("weights in blocks have their inputs in an order of their own".into());
        }
        let layout = BlockLayout {
            bits: int(node, "bits").unwrap_or(4) as usize,
            block: int(node, "block_size").unwrap_or(32) as usize,
            depth: self.depth,
            outputs: self.outputs,
        };
        let zeros = match given(3) {
            None => ZeroPoints::Middle,
            Some(name) if values.is_float(name) => ZeroPoints::Real(values.constant(name)?.values),
            Some(name) => ZeroPoints::Packed(values.bytes(name)?),
        };
        let (packed, scales) = (values.bytes(&node.input[1])?, values.constant(&node.input[2])?);
        let blocks = BlockWeights::new(layout, packed, scales.values, zeros)?;
        let all = (0..self.outputs).flat_map(|row| (0..self.depth).map(move |at| (row, at)));
        Ok(all.map(|(row, at)| blocks.get(row, at)).collect())
    }
}
