//! Products with weights, in the forms that exporters and their optimisers give them.

use super::constants::{Values, attribute, int, op, transposed};
use rockshard_onnx::schema::NodeProto;

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

    /// Weights in blocks of 4 or 8 bits (`com.microsoft.MatMulNBits` of ONNX Runtime's ContribOperators.md).
    fn blocks(&self, values: &Values) -> Result<Vec<f32>, String> {
        let node = self.node;
        let bits = int(node, "bits").unwrap_or(4) as usize;
        let block = int(node, "block_size").unwrap_or(32) as usize;
        if !matches!(bits, 4 | 8) || block == 0 {
            return Err(format!("weights of {bits} bits in blocks of {block}"));
        }
        let blocks = self.depth.div_ceil(block);
        let packed = values.bytes(&node.input[1])?;
        let scales = values.constant(&node.input[2])?.values;
        let zeros = match node.input.get(3).filter(|name| !name.is_empty()) {
            Some(name) => Some(values.bytes(name)?),
            None => None,
        };
        if packed.len() * 8 != self.outputs * blocks * block * bits
            || scales.len() != self.outputs * blocks
        {
            return Err("weights in blocks have another number of values".into());
        }
        let per = 8 / bits;
        let nibble = |bytes: &[u8], at: usize| match bits {
            8 => bytes[at],
            _ => bytes[at / 2] >> (4 * (at % 2)) & 15,
        };
        // Zero points of an output begin with a byte.
        let zero_bytes = blocks.div_ceil(per);
        let mut out = Vec::with_capacity(self.outputs * self.depth);
        for row in 0..self.outputs {
            for column in 0..self.depth {
                let at = column / block;
                let value = nibble(&packed, (row * blocks + at) * block + column % block);
                let zero = match &zeros {
                    Some(zeros) => nibble(&zeros[row * zero_bytes..(row + 1) * zero_bytes], at),
                    None => 1 << (bits - 1),
                };
                out.push((f32::from(value) - f32::from(zero)) * scales[row * blocks + at]);
            }
        }
        Ok(out)
    }
}
