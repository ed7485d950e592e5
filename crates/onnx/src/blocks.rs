//! Weights of a few bits a value in blocks, as `com.microsoft.MatMulNBits` stores them (ONNX Runtime's ContribOperators.md).

/// The attributes of a product whose weights are in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// Bits of a weight: 2, 4 or 8.
    pub bits: usize,
    /// Weights of an output that share a scale.
    pub block: usize,
    /// Inputs of the product.
    pub depth: usize,
    /// Outputs of the product.
    pub outputs: usize,
}

/// What is taken from a stored value before it is scaled.
#[derive(Clone, Debug, PartialEq)]
pub enum ZeroPoints {
    /// The middle of the range: 8 for 4 bits.
    Middle,
    /// One a block, in as many bits as a weight; those of an output begin with a byte.
    Packed(Vec<u8>),
    /// One a block, as real numbers.
    Real(Vec<f32>),
}

/// Weights in blocks, which are read one at a time.
#[derive(Clone, Debug)]
pub struct BlockWeights {
    layout: BlockLayout,
    blocks: usize,
    packed: Vec<u8>,
    scales: Vec<f32>,
    zeros: ZeroPoints,
}

/// Largest block.
const LARGEST_BLOCK: usize = 1 << 16;

impl BlockWeights {
    /// Weights from what is stored of them.
    ///
    /// # Errors
    /// Bits or blocks of another size than there are, or stored values of another number than the layout takes.
    pub fn new(
        layout: BlockLayout,
        packed: Vec<u8>,
        scales: Vec<f32>,
        zeros: ZeroPoints,
    ) -> Result<Self, String> {
        let BlockLayout { bits, block, depth, outputs } = layout;
        if !matches!(bits, 2 | 4 | 8)
            || !(8..=LARGEST_BLOCK).contains(&block)
            || !block.is_multiple_of(8)
        {
            return Err(format!("weights of {bits} bits in blocks of {block} are not supported"));
        }
        let blocks = depth.div_ceil(block);
        let parts = outputs.checked_mul(blocks).filter(|&parts| parts == scales.len());
        let bytes = parts.and_then(|parts| parts.checked_mul(block * bits / 8));
        if bytes != Some(packed.len()) {
            return Err(format!(
                "{} bytes and {} scales do not make {outputs} outputs of {depth} weights of {bits} bits in blocks of {block}",
                packed.len(),
                scales.len()
            ));
        }
        let enough = match &zeros {
            ZeroPoints::Middle => true,
            ZeroPoints::Packed(bytes) => bytes.len() == outputs * (blocks * bits).div_ceil(8),
            ZeroPoints::Real(values) => values.len() == scales.len(),
        };
        if !enough {
            return Err(format!(
                "its zero points are not one for each of {blocks} blocks of {outputs} outputs"
            ));
        }
        Ok(BlockWeights { layout, blocks, packed, scales, zeros })
    }

    /// A weight: of this output, for this input.
    ///
    /// # Panics
    /// There is no such output or input.
    pub fn get(&self, output: usize, input: usize) -> f32 {
        let BlockLayout { bits, block, depth, outputs } = self.layout;
        assert!(
            output < outputs && input < depth,
            "weight {output}, {input} of {outputs}, {depth}"
        );
        let part = output * self.blocks + input / block;
        let stored = unpacked(&self.packed, part * block + input % block, bits);
        let zero = match &self.zeros {
            ZeroPoints::Middle => (1u32 << (bits - 1)) as f32,
            ZeroPoints::Packed(bytes) => {
                let row = (self.blocks * bits).div_ceil(8);
                unpacked(&bytes[output * row..], input / block, bits)
            }
            ZeroPoints::Real(values) => values[part],
        };
        (stored - zero) * self.scales[part]
    }
}

/// A value of a few bits; the first has the lowest of a byte.
fn unpacked(bytes: &[u8], at: usize, bits: usize) -> f32 {
    let per_byte = 8 / bits;
    let mask = u8::MAX >> (8 - bits);
    f32::from(bytes[at / per_byte] >> (at % per_byte * bits) & mask)
}
