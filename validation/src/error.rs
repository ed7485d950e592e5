//! Why a validation, or its report, could not be made.

use rockshard_device::DeviceError;
use rockshard_pack::PackError;
use std::path::PathBuf;

/// Why a validation could not be carried out at all. A layer that fails or cannot be compared is part of the report instead.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// There is nothing to validate.
    #[error("no layers to validate: the pack has no shards for this model")]
    Empty,
    /// Layers of two models were given as one.
    #[error(
        "layer {layer:?} belongs to model {found:?}, the first one to {expected:?}: validate one model at a time"
    )]
    MixedModels {
        /// The layer.
        layer: String,
        /// Its model.
        found: String,
        /// The first layer's model.
        expected: String,
    },
    /// A layer reads a value that is neither an input nor written by an earlier layer.
    #[error(
        "layer {layer:?} reads {value:?}, which is neither a given input nor written by an earlier layer"
    )]
    MissingValue {
        /// The layer.
        layer: String,
        /// The value.
        value: String,
    },
    /// Something was asked for as a model output that no layer writes.
    #[error("model output {0:?} is not written by any layer")]
    MissingOutput(String),
    /// A given input has another shape or kind than the layer that reads it declares.
    #[error("input {value:?} of layer {layer:?} is {found}, expected {expected}")]
    InputMismatch {
        /// The layer.
        layer: String,
        /// The input.
        value: String,
        /// Type and shape given.
        found: String,
        /// Type and shape declared.
        expected: String,
    },
    /// The threshold is not a cosine.
    #[error("threshold {0} is not between 0 and 1")]
    Threshold(f64),
    /// A device, or a library it needs, is not there.
    #[error(transparent)]
    Unavailable(DeviceError),
    /// The pack or one of its files.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A model was converted without recording tensors.
    #[error("{pack}: {model} has no golden tensors")]
    NoGolden {
        /// The pack.
        pack: PathBuf,
        /// The model.
        model: String,
    },
    /// Recorded tensors cannot be used.
    #[error("{path}: {problem}")]
    Golden {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The caller's progress function asked to stop.
    #[error("stopped; no report was made")]
    Stopped,
}

/// Why a report could not be written as a page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The page's template and its data disagree.
    #[error("report.html: {0}")]
    Template(#[from] minijinja::Error),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The timeline is not SVG text.
    #[error("report.html: the timeline has no <svg> element")]
    Timeline,
}
