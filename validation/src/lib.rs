//! Whether a device computes what the reference computes, layer by layer.
//!
//! Every layer (shard) is judged twice. *Teacher-forced*: the device gets the reference's values as inputs, so a bad result is
//! this layer's own fault. *Cumulative*: the device gets what its earlier layers gave, so errors add up as they do in use.
//! A layer passes when both agree with the reference; one that could not be compared is [`Verdict::Unchecked`], which is never
//! a pass. [`validate_model`] does the runs, [`Report`] holds the result, [`render_html`] writes it for people.
//!
//! The crate runs nothing itself: devices, and the files of each layer, are the caller's.

mod error;
mod html;
mod inputs;
mod judge;
mod metrics;
mod recorded;
mod report;
mod validate;
mod values;

pub use error::{ReportError, ValidationError};
pub use html::{ReportExtras, render_html};
pub use inputs::random_inputs;
pub use metrics::{
    CompareError, F16_MIN_NORMAL, IntegerMetrics, Metrics, RealMetrics, after_norm_cosine, compare,
};
pub use recorded::Recorded;
pub use report::{
    Divergence, LayerReport, Mode, ModelReport, OutputReport, Report, TensorReport, Verdict,
};
pub use validate::{LayerFiles, Options, Progress, validate_model};
