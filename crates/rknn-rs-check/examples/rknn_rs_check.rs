//! Runs every NPU shard of a pack twice on the same inputs, through rknn-rs and on the simulator, and compares the bits:
//!
//! `rknn_rs_check PACK`
//!
//! rknn-rs is a client of librknnrt that this project did not write, so it shows what `rknnrt-sim` is worth as a stand-in, and that the
//! shards of a pack can be used by a program that knows nothing else of this project. [`through_rknn_rs`] is such a program; all
//! of the rest makes its inputs and compares. docs/board.md says how to link.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use rknn_rs::prelude::{Rknn, RknnCoreMask, RknnTensorFormat, RknnTensorType};
use rockshard_device::{Device, ShardFile};
use rockshard_device_sim::SimDevice;
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_pack::{Pack, Variant};
use rockshard_tensor::Tensor;
use std::path::{Path, PathBuf};

/// A shard's outputs, in order, as the runtime gives them: row-major float32. Inputs are row-major float32 with their extents.
fn through_rknn_rs(model: &Path, inputs: &[(Vec<usize>, Vec<f32>)]) -> Result<Vec<Vec<f32>>> {
    let rknn = Rknn::new(model)?;
    rknn.set_core_mask(RknnCoreMask::Core0)?;
    let format = |shape: &[usize]| {
        if shape.len() == 4 { RknnTensorFormat::NCHW } else { RknnTensorFormat::Undefined }
    };
    let given: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, (shape, values))| {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            (index, bytes, false, RknnTensorType::Float32, format(shape))
        })
        .collect();
    rknn.inputs_set_batch(&given)?;
    rknn.run()?;
    let count = rknn.io_num()?.n_output;
    (0..count).map(|index| Ok(rknn.outputs_get_by_index::<f32>(index, true)?.to_vec())).collect()
}

/// Numbers from -1 to 1, the same every time and different for each input.
fn values(spec: &TensorSpec, input: usize) -> Vec<f32> {
    let count: usize = spec.shape.iter().product();
    (0..count).map(|i| ((i * 37 + input * 53) % 201) as f32 / 100.0 - 1.0).collect()
}

/// The number of elements of a shard's outputs, all of which are the same bits both ways.
fn compare(shard: &ShardFile) -> Result<usize> {
    let inputs: Vec<_> = shard
        .inputs
        .iter()
        .enumerate()
        .map(|(at, spec)| (spec.shape.clone(), values(spec, at)))
        .collect();
    let tensors: Vec<Tensor> = inputs
        .iter()
        .map(|(shape, values)| Tensor::from_f32(shape.clone(), values.clone()))
        .collect();
    let simulated = SimDevice::default().open(shard, CoreId::Npu(0))?.run(&tensors)?.outputs;
    let found = through_rknn_rs(&shard.path, &inputs)?;
    ensure!(
        found.len() == simulated.len(),
        "{} outputs, the simulator gives {}",
        found.len(),
        simulated.len()
    );
    for ((spec, found), simulated) in shard.outputs.iter().zip(&found).zip(&simulated) {
        let simulated = simulated.to_f32()?;
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        let different = found.iter().zip(simulated.iter()).filter(|&pair| differs(pair)).count();
        ensure!(
            found.len() == simulated.len() && different == 0,
            "output {:?}: {different} of {} elements are not those of the simulator",
            spec.name,
            simulated.len()
        );
    }
    Ok(found.iter().map(Vec::len).sum())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(root), None) = (arguments.next(), arguments.next()) else {
        bail!("usage: rknn_rs_check PACK");
    };
    let pack = Pack::open(&root)?;
    let (mut shards, mut elements) = (0, 0);
    for shard in pack.manifest().models.iter().flat_map(|model| &model.shards) {
        if shard.core == CoreId::Host {
            continue;
        }
        let file = pack.shard_file(shard, Variant::Device)?;
        elements += compare(&file).with_context(|| format!("shard {}", file.name))?;
        shards += 1;
    }
    ensure!(shards > 0, "{} has no shards for the NPU", root.display());
    println!("rknn-rs gives the simulator's bits: {shards} shards, {elements} elements");
    Ok(())
}
