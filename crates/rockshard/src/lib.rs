//! Stable Diffusion and vision models on the three-core NPU of the Rockchip RK3588: convert, run, validate.
//!
//! This crate is what a program needs; the crates it is made of are named where their items are re-exported. Without a board, the
//! simulated RK3588 is used (`DeviceName::Sim`); times it gives are modelled.
//!
//! # Draw a picture
//!
//! Convert a diffusers-style ONNX directory to a pack, take the cores, load the pack, draw:
//!
//! ```
//! use rockshard::{ConvertRequest, DeviceName, Pack, Painter, PainterOptions, RunOptions};
//! use std::ops::ControlFlow::Continue;
//!
//! # let folder = tempfile::tempdir()?;
//! # let (model, pack) = ("../../shards/tiny-lcm", folder.path().join("pack"));
//! rockshard::convert(ConvertRequest::new(model, &pack), &mut |_| Continue(()))?;
//!
//! let cores = rockshard::take_cores(DeviceName::Sim)?;
//! let painter = Painter::load(&cores, &Pack::open(&pack)?, &PainterOptions::default())?;
//! let request = painter.request("a small yellow ring on a black background", None)?;
//! let drawing = painter.draw(&request, &RunOptions::default(), &mut |_| Continue(()))?;
//! drawing.pictures[0].save(&folder.path().join("ring.png"))?;
//! println!("modelled: {:.1} ms of the NPU", drawing.trace.modelled_total_us() / 1e3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Run any pack on tensors
//!
//! A process has one [`Cores`]. Packs are loaded into it, several at once; runs are submitted and give tickets:
//!
//! ```
//! use rockshard::{ConvertRequest, DeviceName, Mode, Pack, RunOptions, random_inputs};
//! # use std::ops::ControlFlow::Continue;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("pack");
//! # rockshard::convert(ConvertRequest::new("../../shards/tiny-lcm", &path), &mut |_| Continue(()))?;
//! let pack = Pack::open(&path)?;
//! let cores = rockshard::take_cores(DeviceName::Sim)?;
//! let unet = cores.load(&pack, Mode::Replicate, |model| model.name == "unet")?;
//! let inputs = random_inputs(&unet.models().next().unwrap().inputs, 1);
//! let ticket = unet.submit("unet", vec![inputs.clone(), inputs], &RunOptions::default())?;
//! let outcome = ticket.wait();
//! assert_eq!(outcome.outputs?.len(), 2);
//! assert!(outcome.trace.is_modelled());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Find the layer that is wrong
//!
//! Every shard is compared with the float32 reference, on the reference's own inputs and in a row:
//!
//! ```
//! use rockshard::{ConvertRequest, DeviceName, Pack, RunOptions};
//! # use std::ops::ControlFlow::Continue;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("pack");
//! # rockshard::convert(ConvertRequest::new("../../shards/tiny-lcm", &path), &mut |_| Continue(()))?;
//! let pack = Pack::open(&path)?;
//! let (prompt, options) = ("a large red circle", RunOptions::default());
//! let inputs = rockshard::recorded_inputs(&pack, prompt, &options, &mut |_| Continue(()))?;
//! let devices = rockshard::open_devices(DeviceName::Sim)?;
//! let report = rockshard::validate(&pack, &devices, &inputs, 0.999, &mut |_| Continue(()))?;
//! assert!(report.passed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

//! # Apply a pattern to any transformer
//!
//! A [`ConvertRequest`] chooses scaling, tiling, shards and cores; the [`Manifest`] that [`convert`] returns says what was done and what was
//! declined, and [`list_graph`] shows a graph before and after. `docs/patterns.md` has each pattern on ten lines of graph.

mod captioner;
mod choice;
mod converting;
mod cores;
mod drawable;
mod error;
mod loading;
mod mode;
mod networks;
mod painter;
mod stream;
mod validating;

pub use captioner::{Answer, Captioner, CaptionerOptions, Conversation, Times, picture_inputs};
pub use converting::{convert, list_graph};
pub use cores::{take_cores, take_cores_with};
pub use drawable::{Drawable, drawing_problem};
pub use error::Error;
pub use mode::pick_mode;
pub use painter::{Drawing, Painter, PainterOptions};
pub use rockshard_converter::options::{Sandwich, Shards, Tile};
pub use rockshard_converter::{
    Calibrating, ConvertError, ConvertProgress, ConvertRequest, Fixed, ImportError, LoraFile,
    Recording, Sample, Source, Toolkit,
};
pub use rockshard_cost::Rk3588;
pub use rockshard_devices::{DeviceDefaults, DeviceName, open as open_devices};
pub use rockshard_diffusion::stream::{CfgType, FrameSource, Settings, Similarity, StreamConfig};
pub use rockshard_diffusion::{
    DrawProgress, Error as DrawingError, ImageFileError, InitialPicture, MAX_COUNT, Mask,
    NetworkError, Parameters, Picture, PictureError, PromptSyntaxError, Request, SamplerError,
    SamplerName, WeightedPrompt,
};
pub use rockshard_manifest::{
    AttentionTiling, Companion, CoreId, Family, ImportCheck, LanguageConversion, Manifest, Model,
    Optimise, Placement, Role, SandwichRegion, Shard, TensorSpec,
};
pub use rockshard_pack::{Devices, Footprint, Mode, Pack, PackError, Variant};
pub use rockshard_runtime::{
    Action, Cancel, Client, Cores, CoresOptions, Event, Incident, LoadedPack, Observer, Outcome,
    Priority, RunOptions, RuntimeError, ShardRun, Ticket, Trace,
};
pub use rockshard_tensor::{DType, Tensor};
pub use rockshard_validation::{
    Feeding, LanguageReport, LayerReport, LogitsAgreement, Metrics, ModelReport, NextStep,
    RecordedLogits, Remedy, Report, ReportExtras, TensorReport, ValidateProgress, ValidationError,
    Verdict, Words, random_inputs, validate_golden, write_report,
};
pub use rockshard_vlm::{
    End, ImageError, LanguageError, PromptError, Rgb, Sampling, SamplingError, Speaker, WeightBits,
};
pub use stream::{
    GROUPS_BESIDE_CORES, QueueOptions, Stream, StreamFrame, StreamModel, StreamOptions,
    StreamStats, Vae,
};
pub use validating::{check_import, recorded_inputs, test_picture, validate, validate_language};

/// Tensors by name.
pub type TensorMap = std::collections::BTreeMap<String, Tensor>;

/// Inputs by the name of their model.
pub type ModelInputs = std::collections::HashMap<String, TensorMap>;

/// The document's programs are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/patterns.md")]
struct PatternsDocument;
