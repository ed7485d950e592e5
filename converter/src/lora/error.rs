//! Why a LoRA file cannot be fused.

/// Why a LoRA file cannot be fused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoraError {
    /// Not a file, or one of another kind.
    #[error("{0}")]
    NotLora(String),
    /// A key of an unknown form.
    #[error(
        "key {0:?} is not a LoRA key that is known (kohya, PEFT and diffusers spellings are; LoHa, LoKr and DoRA are not)"
    )]
    Key(String),
    /// One half of an update.
    #[error("module {module:?} has no {missing} weight")]
    Half {
        /// Module as spelled.
        module: String,
        /// `down` or `up`.
        missing: &'static str,
    },
    /// Halves of different ranks.
    #[error(
        "{} of {down:?} and {} of {up:?} do not fit each other: the first extent of the one, its rank, must be the second of the other",
        keys[0], keys[1]
    )]
    Rank {
        /// Keys of the down half and of the up half.
        keys: [String; 2],
        /// Extents of the down half.
        down: Vec<usize>,
        /// Extents of the up half.
        up: Vec<usize>,
    },
    /// Halves that do not fit the weight.
    #[error(
        "{} of {down:?} and {} of {up:?} do not fit the weight {weight:?} of {shape:?}; the LoRA may be for another model",
        keys[0], keys[1]
    )]
    Shape {
        /// Keys of the down half and of the up half.
        keys: [String; 2],
        /// Extents of the down half.
        down: Vec<usize>,
        /// Extents of the up half.
        up: Vec<usize>,
        /// The weight's name in the model.
        weight: String,
        /// Its extents: `[in, out]` of a product, `[out, in, h, w]` of a convolution.
        shape: Vec<usize>,
    },
    /// Values of an update that are not real numbers.
    #[error("{0} has values that are not real numbers")]
    Type(String),
    /// An alpha that is not one finite number.
    #[error("{0} is not one finite number")]
    Alpha(String),
    /// No update in the file.
    #[error("has no LoRA weights")]
    None,
    /// No module of the file is in the model.
    #[error(
        "none of its modules is in this model (the first is {0:?}); it was made for another architecture"
    )]
    NoMatch(String),
    /// A configuration beside or in the file that is not understood.
    #[error("its configuration has {0}, which is not supported")]
    Configuration(String),
}
