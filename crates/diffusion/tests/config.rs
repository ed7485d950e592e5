//! `sampler.json` and where it comes from.

use rockshard_diffusion::{ConfigError, PipelineConfig, SamplerConfig};

#[test]
fn configurations_come_from_a_model_directory_and_from_json() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("my-model");
    assert!(matches!(PipelineConfig::from_model_directory(&model), Err(ConfigError::Read { .. })));
    let write = |part: &str, name: &str, text: &str| {
        std::fs::create_dir_all(model.join(part)).unwrap();
        std::fs::write(model.join(part).join(name), text).unwrap();
    };
    write(
        "scheduler",
        "scheduler_config.json",
        r#"{"_class_name": "LCMScheduler", "trained_betas": null, "prediction_type": "v_prediction"}"#,
    );
    let plain = PipelineConfig::from_model_directory(&model).unwrap();
    let sampler = SamplerConfig {
        class: Some("LCMScheduler".into()),
        prediction_type: "v_prediction".into(),
        ..SamplerConfig::default()
    };
    assert_eq!(
        plain,
        PipelineConfig { model: "my-model".into(), sampler, ..PipelineConfig::default() }
    );
    write("unet", "config.json", r#"{"time_cond_proj_dim": 256}"#);
    write("vae", "config.json", r#"{"scaling_factor": 1.0, "block_out_channels": [1, 2]}"#);
    let full = PipelineConfig::from_model_directory(&model).unwrap();
    assert_eq!((full.time_cond_proj_dim, full.scaling_factor, full.vae_scale), (Some(256), 1.0, 2));
    write("vae_decoder", "config.json", r#"{"scaling_factor": 0.13025}"#);
    let full = PipelineConfig::from_model_directory(&model).unwrap();
    assert_eq!((full.scaling_factor, full.vae_scale), (0.13025, 8));
    assert_eq!(PipelineConfig::from_json(&full.to_json().unwrap()).unwrap(), full);
    for bad in [
        "{",
        r#"{"scaling_factor": 0}"#,
        r#"{"vae_scale": 0}"#,
        r#"{"time_cond_proj_dim": 2}"#,
        r#"{"sampler": {"prediction_type": "x"}}"#,
    ] {
        assert!(PipelineConfig::from_json(bad).is_err(), "{bad}");
    }
}
