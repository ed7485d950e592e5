//! What a manifest says by a word out of a few: the same words are typed, printed and stored.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A word that is not one of those that are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {known}")]
pub struct UnknownWord {
    /// The word.
    pub word: String,
    /// What is known, between commas.
    pub known: String,
}

macro_rules! words {
    ($(#[$meta:meta])* $type:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$about])* #[serde(rename = $word)] $variant,)+
        }

        impl $type {
            /// All of them.
            pub const ALL: &'static [$type] = &[$($type::$variant,)+];

            /// The word.
            pub fn word(self) -> &'static str {
                match self {
                    $($type::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                let found = Self::ALL.iter().copied().find(|known| known.word() == text);
                found.ok_or_else(|| UnknownWord {
                    word: text.to_owned(),
                    known: Self::ALL.iter().map(|w| w.word()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

words! {
    /// What the networks of a pack make together.
    Family {
        /// Pictures from text: text encoder, U-Net, VAE.
        TextToImage = "text_to_image",
        /// Words from pictures and words: vision encoder, connector, language model.
        VisionLanguage = "vision_language",
        /// One network, which takes and gives tensors.
        Network = "network",
    }
}

words! {
    /// What a network is for in its family.
    Role {
        /// Hidden states of a prompt.
        TextEncoder = "text_encoder",
        /// Hidden states of a prompt by a second encoder, and its pooled embedding.
        TextEncoder2 = "text_encoder_2",
        /// Keys and values of the U-Net's cross-attentions, from the hidden states of a prompt.
        KeysValues = "keys_values",
        /// One step of denoising.
        Unet = "unet",
        /// Latent of a picture.
        VaeEncoder = "vae_encoder",
        /// Picture of a latent.
        VaeDecoder = "vae_decoder",
        /// Latent of a picture, by a tiny autoencoder that stands in for the VAE (TAESD).
        TinyEncoder = "taesd_encoder",
        /// Picture of a latent, by that autoencoder.
        TinyDecoder = "taesd_decoder",
        /// Features of a picture.
        VisionEncoder = "vision_encoder",
        /// Features as the language model takes them.
        Connector = "connector",
        /// The next token.
        LanguageModel = "language_model",
        /// The only network of its pack.
        Network = "network",
    }
}

words! {
    /// What a file that is no shard is for.
    Companion {
        /// Text to token ids.
        Tokenizer = "tokenizer",
        /// Noise schedule and scaling of latents.
        Sampler = "sampler",
        /// Pictures to tensors.
        Preprocessor = "preprocessor",
        /// Conversations to text.
        ChatTemplate = "chat_template",
        /// The language model, for the host's engine.
        LanguageModel = "language_model",
    }
}

words! {
    /// Which core a shard is pinned to.
    Placement {
        /// Shard i on core i modulo 3.
        RoundRobin = "round-robin",
        /// Each shard on the core with the least modelled work so far.
        Balanced = "balanced",
        /// Every core holds the whole model; items take turns.
        Replicate = "replicate",
        /// Every operator is divided over the cores: the least time for one item.
        Split = "split",
    }
}

words! {
    /// What automatic choices aim at.
    Optimise {
        /// Time of one item.
        Latency = "latency",
        /// Items a second.
        Throughput = "throughput",
        /// Bytes resident.
        Memory = "memory",
    }
}
