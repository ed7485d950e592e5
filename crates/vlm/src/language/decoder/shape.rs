//! The sizes and constants of a decoder.

use serde::{Deserialize, Serialize};

/// A Llama decoder: RMS norms before attention and before a SiLU-gated layer, rotary positions in halves, keys and values shared by groups of heads, no
/// biases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderShape {
    /// Layers.
    pub layers: usize,
    /// Values of a token between layers.
    pub width: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_width: usize,
    /// Values of a token within the gated layer.
    pub inner: usize,
    /// Tokens that are known.
    pub vocabulary: usize,
    /// Base of the rotary positions' wavelengths.
    pub theta: f32,
    /// Added to the mean square before its root.
    pub epsilon: f32,
}

impl DecoderShape {
    /// Values of a token's queries, or of what its heads give.
    pub fn queries(&self) -> usize {
        self.heads * self.head_width
    }

    /// Values of a token's keys, or of its values.
    pub fn keys(&self) -> usize {
        self.kv_heads * self.head_width
    }

    /// What does not fit together.
    pub(super) fn problem(&self) -> Option<String> {
        let DecoderShape { layers, width, heads, kv_heads, head_width, inner, vocabulary, .. } =
            *self;
        let sizes = [layers, width, heads, kv_heads, head_width, inner, vocabulary];
        if sizes.iter().any(|&size| size == 0 || size > 1 << 20) {
            return Some(format!("its sizes are {sizes:?}"));
        }
        if heads % kv_heads != 0 {
            return Some(format!("{heads} heads cannot share {kv_heads} of keys"));
        }
        if head_width % 2 != 0 {
            return Some(format!("heads of {head_width} values have no halves"));
        }
        let finite = self.theta.is_finite() && self.epsilon.is_finite();
        (!finite || self.theta <= 0.0 || self.epsilon < 0.0)
            .then(|| format!("theta is {}, epsilon {}", self.theta, self.epsilon))
    }
}
