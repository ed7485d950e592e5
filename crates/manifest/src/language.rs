//! What a conversion made of a language model.

use serde::{Deserialize, Serialize};

/// What became of a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum LanguageConversion {
    /// Its weights were read and packed.
    Decoder {
        /// Bits of a weight: 32, 8, or 4.
        bits: u32,
        /// The largest difference of its logits in float32 from those of the exported file, over the largest logit.
        difference: f64,
    },
    /// It is run as it was exported.
    Exported {
        /// Why.
        reason: String,
    },
}
