//! Directories taken apart: families, roles, companions, and sizes that come from configurations, which may say anything.

use rockshard_converter::Source;
use rockshard_manifest::{Companion, Family, Role};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shards/tiny-lcm")
}

/// The bundled model with other configurations: path and text.
fn changed(configs: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&bundled(), folder.path());
    for (path, text) in configs {
        fs::write(folder.path().join(path), text).unwrap();
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn refused(configs: &[(&str, &str)]) -> String {
    let folder = changed(configs);
    Source::open(folder.path(), &[], 1).unwrap_err().to_string()
}

#[test]
fn a_text_to_image_directory_has_roles_and_a_tokenizer() {
    let source = Source::open(&bundled(), &[], 1).unwrap();
    assert_eq!(source.family, Family::TextToImage);
    let roles: Vec<Role> = source.parts.iter().map(|p| p.role).collect();
    let vae = [Role::VaeEncoder, Role::VaeDecoder, Role::TinyEncoder, Role::TinyDecoder];
    assert_eq!(roles, [&[Role::TextEncoder, Role::Unet][..], &vae].concat());
    assert!(!source.companions.is_empty());
    for file in &source.companions {
        assert_eq!(file.companion, Companion::Tokenizer);
        assert!(file.name.starts_with("tokenizer/") && file.path.is_file(), "{file:?}");
    }
}

#[test]
fn the_size_of_a_latent_comes_from_the_vae() {
    let vae = r#"{"block_out_channels": [8, 16, 32], "latent_channels": 4}"#;
    let folder = changed(&[("vae_decoder/config.json", vae)]);
    let source = Source::open(folder.path(), &[[128, 64]], 1).unwrap();
    let unet = source.parts.iter().find(|p| p.role == Role::Unet).unwrap();
    let (_, shape) = unet.shapes.iter().find(|(name, _)| name == "sample").unwrap();
    assert_eq!(shape[2..], [16, 32], "three blocks halve twice");
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let size = |n: &str| refused(&[("unet/config.json", &format!("{{\"sample_size\": {n}}}"))]);
    for n in ["18446744073709551615", "536870912", "0", "300"] {
        assert!(size(n).contains("width and height must be from 64 to 2048"), "{n}: {}", size(n));
    }
    let blocks = format!("{{\"block_out_channels\": [{}]}}", vec!["8"; 40].join(", "));
    assert!(refused(&[("vae_decoder/config.json", &blocks)]).contains("halves pictures 39 times"));
    let broken = refused(&[("unet/config.json", "{\"sample_size\": 16")]);
    assert!(broken.contains("unet/config.json") && broken.contains("is no JSON"), "{broken}");
}

#[test]
fn a_pipeline_of_another_class_is_refused_by_its_name() {
    let index = r#"{"_class_name": "FluxPipeline"}"#;
    let text = refused(&[("model_index.json", index)]);
    assert!(text.contains("FluxPipeline") && text.contains("StableDiffusionXLPipeline"), "{text}");
    let known =
        changed(&[("model_index.json", r#"{"_class_name": "ORTStableDiffusionPipeline"}"#)]);
    Source::open(known.path(), &[], 1).unwrap();
}

#[test]
fn a_second_text_encoder_is_a_part_and_other_networks_are_named() {
    let folder =
        changed(&[("model_index.json", r#"{"_class_name": "StableDiffusionXLPipeline"}"#)]);
    for (from, to) in [("text_encoder", "text_encoder_2"), ("vae_decoder", "safety_checker")] {
        copy(&bundled().join(from), &folder.path().join(to));
    }
    let source = Source::open(folder.path(), &[], 1).unwrap();
    assert!(source.parts.iter().any(|p| p.role == Role::TextEncoder2));
    assert_eq!(source.unused, ["safety_checker"]);
}

#[test]
fn a_directory_with_one_part_is_a_network() {
    let folder = tempfile::tempdir().unwrap();
    copy(&bundled().join("vae_decoder"), &folder.path().join("vae_decoder"));
    let source = Source::open(folder.path(), &[[64, 64]], 1).unwrap();
    assert_eq!((source.family, source.parts.len()), (Family::Network, 1));
}
