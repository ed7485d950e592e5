//! Mutations of the tensors of a safetensors file.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeSet;

const TYPES: [Dtype; 9] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F64,
    Dtype::I64,
    Dtype::I32,
    Dtype::BOOL,
    Dtype::U8,
    Dtype::F8_E4M3,
];
const EXTENTS: [usize; 8] = [0, 1, 2, 3, 4, 9, 18, 1 << 40];
const ENDINGS: [&str; 8] = [
    ".lora_down.weight",
    ".lora_up.weight",
    ".alpha",
    ".lora_A.weight",
    ".lora_B.default.weight",
    "_lora.up.weight",
    ".dora_scale",
    ".hada_w1_a",
];
const MODULES: [&str; 6] = [
    "lora_unet_mid_block_attentions_0_to_q",
    "unet.mid_block.resnets.0.conv1",
    "base_model.model.mid_block.resnets.0.conv_shortcut",
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    "vector",
    "nowhere",
];
/// Bytes of a tensor, at most.
const MOST: usize = 4096;

/// A file with one of its tensors changed; `None` where bytes are no safetensors file, or would be a large one.
pub fn tensors(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let archive = SafeTensors::deserialize(data).ok()?;
    let mut entries: Vec<(String, Dtype, Vec<usize>)> =
        archive.iter().map(|(key, t)| (key.to_owned(), t.dtype(), t.shape().to_vec())).collect();
    let mut seed = seed as usize;
    let mut pick = |count: usize| {
        let found = seed % count.max(1);
        seed /= count.max(1);
        found
    };
    let action = pick(5);
    let at = pick(entries.len());
    let (key, dtype, mut shape) = entries.get(at)?.clone();
    entries[at] = match action {
        0 => (key, TYPES[pick(TYPES.len())], shape),
        1 => {
            let axis = pick(shape.len());
            *shape.get_mut(axis)? = EXTENTS[pick(EXTENTS.len())];
            (key, dtype, shape)
        }
        2 => {
            shape.push(EXTENTS[pick(EXTENTS.len())]);
            (key, dtype, shape)
        }
        3 => {
            shape.pop();
            (key, dtype, shape)
        }
        _ => {
            let renamed = MODULES[pick(MODULES.len())].to_owned() + ENDINGS[pick(ENDINGS.len())];
            if pick(2) == 0 {
                entries.push((key, dtype, shape.clone()));
            }
            (renamed, dtype, shape)
        }
    };
    encode(entries)
}

fn encode(entries: Vec<(String, Dtype, Vec<usize>)>) -> Option<Vec<u8>> {
    let keys: BTreeSet<&String> = entries.iter().map(|(key, ..)| key).collect();
    if keys.len() < entries.len() {
        return None;
    }
    let bytes = |dtype: Dtype, shape: &[usize]| {
        let count =
            shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
        let bytes = count.checked_mul(dtype.bitsize())? / 8;
        (bytes <= MOST).then(|| (0..bytes).map(|i| (i * 37) as u8).collect::<Vec<u8>>())
    };
    let contents: Option<Vec<Vec<u8>>> =
        entries.iter().map(|(_, dtype, shape)| bytes(*dtype, shape)).collect();
    let views = entries.iter().zip(contents.as_ref()?).map(|((key, dtype, shape), bytes)| {
        Some((key, TensorView::new(*dtype, shape.clone(), bytes).ok()?))
    });
    safetensors::serialize(views.collect::<Option<Vec<_>>>()?, None).ok()
}
