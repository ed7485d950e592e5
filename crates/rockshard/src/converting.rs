//! Conversion with what a model's family needs besides its networks: a text-to-image model's sampler.

use crate::Error;
use rockshard_converter::{ConvertProgress, ConvertRequest, Engines, Source};
use rockshard_device_cpu::CpuDevice;
use rockshard_devices::DeviceName;
use rockshard_diffusion::{PipelineConfig, SamplerName};
use rockshard_manifest::{Companion, Family, Manifest};
use std::ops::ControlFlow;

/// Path of a text-to-image pack's sampler.
const SAMPLER: &str = "sampler.json";

/// Convert a model to a pack; gives its manifest. `progress` is told of every stage and stops the conversion by breaking.
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
