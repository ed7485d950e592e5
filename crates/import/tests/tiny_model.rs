//! The bundled tiny model imports from both exporters, and everything the NPU's compiler fuses is found.

use rockshard_import::{ImportOptions, import_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn part(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shards/tiny-lcm").join(path)
}

fn operators(path: &str, shapes: &[(&str, &[usize])], outputs: &[&str]) -> BTreeMap<String, usize> {
    let options = ImportOptions {
        shapes: shapes.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect(),
        outputs: outputs.iter().map(|o| (*o).to_owned()).collect(),
        ..ImportOptions::default()
    };
    import_file(&part(path), &options).unwrap().operators()
}

const UNET: &[(&str, &[usize])] = &[
    ("sample", &[1, 4, 16, 16]),
    ("encoder_hidden_states", &[1, 77, 96]),
    ("timestep_cond", &[1, 64]),
];

#[test]
fn both_unet_exports_have_the_same_operators() {
    for file in ["unet/model.onnx", "unet/model_dynamo.onnx"] {
        let found = operators(file, UNET, &[]);
        let count = |name: &str| found.get(name).copied().unwrap_or(0);
        assert_eq!(count("Attention"), 14, "{file}: {found:?}");
        assert_eq!(count("GroupNormalization"), 30, "{file}");
        assert_eq!(count("LayerNormalization"), 21, "{file}");
        assert_eq!(count("Gelu"), 7, "{file}");
        assert_eq!(count("Conv"), 50, "{file}");
        for gone in ["Softmax", "Erf", "InstanceNormalization", "Sigmoid", "Sqrt"] {
            assert_eq!(count(gone), 0, "{file}: {gone} was not fused: {found:?}");
        }
    }
}

#[test]
fn text_encoder_and_autoencoder_import() {
    let text =
        operators("text_encoder/model.onnx", &[("input_ids", &[1, 77])], &["last_hidden_state"]);
    assert_eq!(text.get("Attention"), Some(&2), "{text:?}");
    assert_eq!(text.get("Swish"), Some(&2), "{text:?}");
    let decoder = operators("vae_decoder/model.onnx", &[("latent_sample", &[1, 4, 16, 16])], &[]);
    assert_eq!(decoder.get("Attention"), Some(&1), "{decoder:?}");
    assert_eq!(decoder.get("GroupNormalization"), Some(&22), "{decoder:?}");
    let encoder = operators("vae_encoder/model.onnx", &[("sample", &[1, 3, 128, 128])], &[]);
    assert_eq!(encoder.get("Attention"), Some(&1), "{encoder:?}");
}
