//! Validation with what a pack's family gives: a text-to-image pack's networks are judged on the inputs of a real drawing.

use crate::{Error, ModelInputs, Painter, PainterOptions, take_cores_with};
use rockshard_device_cpu::CpuDevice;
use rockshard_devices::{DeviceDefaults, DeviceName};
use rockshard_diffusion::{DrawProgress, Request};
use rockshard_manifest::{Family, Role};
use rockshard_pack::{Devices, Pack};
use rockshard_runtime::{CoresOptions, RunOptions};
use rockshard_tensor::Tensor;
use rockshard_validation::{Report, ValidateProgress};
use std::ops::ControlFlow;

/// Seed of the picture that inputs are recorded from.
const SEED: u64 = 1;

/// The inputs that each network is given while the reference draws a prompt; the VAE's encoder gets the picture. A pack of another family
/// than text to image has none.
///
/// # Errors
/// As [`Painter::load`] and [`Painter::draw`].
pub fn recorded_inputs(
    pack: &Pack,
    prompt: &str,
    options: &RunOptions,
    progress: &mut dyn FnMut(DrawProgress) -> ControlFlow<()>,
) -> Result<ModelInputs, Error> {
    if pack.manifest().family != Family::TextToImage {
        return Ok(ModelInputs::new());
    }
    let DeviceDefaults { time_limit, memory_limit } = DeviceDefaults::of(DeviceName::Cpu)?;
    let cores = CoresOptions { time_limit, memory_limit, ..CoresOptions::new(1) };
    let cores = take_cores_with(&rockshard_devices::open(DeviceName::Cpu)?, cores)?;
    let painter = Painter::load(&cores, pack, &PainterOptions::default())?;
    let request = Request { seed: SEED, ..painter.request(prompt) };
    let (drawing, mut inputs) = painter.draw_and_record(&request, options, progress)?;
    let at_size = |r: Option<[u32; 2]>| r.is_none_or(|r| r == painter.size());
    let mut encoders = pack.manifest().models.iter().filter(|m| m.role == Role::VaeEncoder);
    if let Some(encoder) = encoders.find(|m| at_size(m.resolution))
        && let Some((spec, picture)) = encoder.inputs.first().zip(drawing.pictures.first())
    {
        let planes = Tensor::from_f32(spec.shape.clone(), picture.planes());
        inputs.insert(encoder.name.clone(), [(spec.name.clone(), planes)].into());
    }
    Ok(inputs)
}

/// Compare every layer of a pack on devices with the float32 reference. `inputs` are by model; models without any get seeded noise.
///
/// # Errors
/// A file of the pack is refused, a device is not there, or the caller stopped it.
pub fn validate(
    pack: &Pack,
    devices: &Devices,
    inputs: &ModelInputs,
    threshold: f64,
    progress: &mut dyn FnMut(ValidateProgress<'_>) -> ControlFlow<()>,
) -> Result<Report, Error> {
    let reference = CpuDevice::new();
    let report =
        rockshard_validation::validate_pack(pack, devices, &reference, inputs, threshold, progress);
    Ok(report?)
}
