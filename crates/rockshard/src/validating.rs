//! Validation with what a pack's family gives: a text-to-image pack's networks are judged on the inputs of a real drawing.

mod language;

pub use language::{test_picture, validate_language};

use crate::{Error, ModelInputs, Painter, PainterOptions, take_cores_with};
use rockshard_converter::{Part, Source, check_original};
use rockshard_device_cpu::CpuDevice;
use rockshard_devices::{DeviceDefaults, DeviceName};
use rockshard_diffusion::{DrawProgress, Request, SamplerName};
use rockshard_manifest::{Family, Role};
use rockshard_pack::{Devices, Mode, Pack};
use rockshard_runtime::{CoresOptions, RunOptions};
use rockshard_tensor::Tensor;
use rockshard_validation::{Report, ValidateProgress, Verdict, random_inputs};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// Seed and steps of the picture that inputs are recorded from.
const SEED: u64 = 1;
const STEPS: usize = 4;

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
    // Any sampler gives such inputs.
    let usual = painter.request(prompt, None);
    let usual = usual.or_else(|_| painter.request(prompt, Some(SamplerName::Ddim)))?;
    let request = Request { seed: SEED, steps: STEPS, ..usual };
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

/// Compare a pack's reference with the model that it was made from, which the reference engine runs whole by its own reading of the files;
/// gives what was found by model. `inputs` are by model; models without any get seeded noise.
///
/// # Errors
/// The original is no model that is known, or the pack cannot be run on the reference.
pub fn check_import(
    pack: &Pack,
    original: &Path,
    inputs: &ModelInputs,
) -> Result<BTreeMap<String, Verdict>, Error> {
    let mut resolutions: Vec<[u32; 2]> =
        pack.manifest().resolutions().into_iter().flatten().collect();
    // Its configuration fixes the picture's size.
    if pack.manifest().family == Family::VisionLanguage {
        resolutions.clear();
    }
    let source = Source::open(original, &resolutions, 1)?;
    let reference = CpuDevice::new();
    let cores = take_cores_with(&rockshard_devices::open(DeviceName::Cpu)?, CoresOptions::new(1))?;
    let mut verdicts = BTreeMap::new();
    for model in &pack.manifest().models {
        let same = |p: &&Part| p.name == model.name && p.resolution == model.resolution;
        let only = (source.parts.len() == 1).then(|| &source.parts[0]);
        let Some(part) = source.parts.iter().find(same).or(only) else {
            let reason = format!("{} has no part {:?}", original.display(), model.name);
            verdicts.insert(model.name.clone(), Verdict::Unchecked { reason });
            continue;
        };
        let mut given = random_inputs(&model.inputs, SEED);
        given.extend(inputs.get(&model.name).cloned().unwrap_or_default());
        given.retain(|name, _| model.inputs.iter().any(|spec| spec.name == *name));
        let loaded = cores.load(pack, Mode::Pipeline, |m| {
            m.name == model.name && m.resolution == model.resolution
        })?;
        let outcome = loaded.run(&model.name, vec![given.clone()], &RunOptions::default())?;
        let outputs = outcome.outputs?.pop().unwrap_or_default();
        let check = check_original(&reference, part, &given, &outputs)?;
        verdicts.insert(model.name.clone(), Verdict::from(&check));
    }
    Ok(verdicts)
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
