//! Conversion with what a model's family needs besides its networks: a text-to-image model's sampler.

use crate::Error;
use rockshard_converter::{ConvertProgress, ConvertRequest, Engines, Fixed, Source};
use rockshard_device_cpu::CpuDevice;
use rockshard_devices::DeviceName;
use rockshard_diffusion::{PipelineConfig, SamplerName};
use rockshard_manifest::{Companion, Family, Manifest};
use std::ops::ControlFlow;
use std::path::Path;

/// Path of a text-to-image pack's sampler.
const SAMPLER: &str = "sampler.json";

/// Convert a model to a pack; gives its manifest, which says what each pass did and declined. `progress` is told of every stage and stops the conversion by breaking.
///
/// # Errors
/// A model that cannot be converted; nothing is left at the target then.
pub fn convert(
    mut request: ConvertRequest,
    progress: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
) -> Result<Manifest, Error> {
    let source = Source::open(&request.source, &request.resolutions, request.batch)?;
    if source.family == Family::TextToImage {
        let config = PipelineConfig::from_model_directory(&request.source);
        let text = config.and_then(|config| {
            if let Err(problem) = SamplerName::of(&config.sampler) {
                tracing::warn!("{problem}; one of these is to be chosen when a picture is drawn");
            }
            config.to_json()
        });
        let text = text.map_err(|source| Error::Sampler { source })?;
        request.companions.push((Companion::Sampler, SAMPLER.to_owned(), text.into_bytes()));
    }
    let simulator = rockshard_devices::open(DeviceName::Sim)?;
    let engines = Engines { reference: &CpuDevice::new(), simulator: &*simulator.npu };
    Ok(rockshard_converter::convert(&request, engines, progress)?)
}

/// A graph in text, a line a node, to see what passes start from (a model's file) and what they leave (`shards/` in a pack; `reference/` has
/// the same pieces neither scaled nor tiled). What the NPU's compiler makes one operator is one line.
///
/// # Errors
/// The file is no model that can be read, or leaves an extent open that is not fixed.
pub fn list_graph(path: impl AsRef<Path>, fixed: &Fixed) -> Result<String, Error> {
    Ok(rockshard_converter::list_graph(path.as_ref(), fixed, &CpuDevice::new())?)
}
