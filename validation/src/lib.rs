//! Whether a device computes what the reference computes, layer by layer.
//!
//! Every layer (shard) is judged twice. *Teacher-forced*: the device gets the reference's values as inputs, so a bad result is
//! this layer's own fault. *Cumulative*: the device gets what its earlier layers gave, so errors add up as they do in use.
//! A layer passes when both agree with the reference; one that could not be compared is [`Verdict::Unchecked`], which is never
//! a pass. [`validate_pack`] and [`validate_golden`] open a pack's shards, [`validate_model`] does the runs, [`Report`] holds the result, [`render_html`] writes it for people.
//!
//! Devices are the caller's.

mod error;
mod html;
mod inputs;
mod judge;
mod language;
mod metrics;
mod pack;
mod recorded;
mod report;
mod validate;
mod values;

pub use error::{ReportError, ValidationError};
pub use html::{NextStep, Remedy, ReportExtras, render_html, write_report};
pub use inputs::random_inputs;
pub use language::{LanguageReport, LogitsAgreement, RecordedLogits, Words};
pub use metrics::{
    CompareError, F16_MIN_NORMAL, IntegerMetrics, Metrics, RealMetrics, after_norm_cosine, compare,
};
pub use pack::{validate_golden, validate_pack};
pub use recorded::Recorded;
pub use report::{
    Divergence, Feeding, LayerReport, ModelReport, OutputReport, Report, TensorReport, Verdict,
};
pub use validate::{Criteria, LayerFiles, ValidateProgress, validate_model};
