//! Guidance as plain functions: the scale as an input of the U-Net, and classifier-free guidance between two predictions.

use crate::SamplerError;

/// Embedding of a guidance scale for the U-Net's `timestep_cond`, as diffusers' latent consistency pipelines compute it:
/// sines, then cosines, of `1000 (guidance - 1)` at frequencies falling from 1 to 1/10000; an odd size ends with 0.
///
/// # Errors
/// `size` is below 4, where the formula divides by zero.
pub fn guidance_embedding(guidance: f64, size: usize) -> Result<Vec<f32>, SamplerError> {
    let half = size / 2;
    if half < 2 {
        return Err(SamplerError::EmbeddingSize(size));
    }
    let scaled = (guidance - 1.0) as f32 * 1000.0;
    let decay = 10000f64.ln() as f32 / (half - 1) as f32;
    // Functions are taken in f64 and rounded once, so that the result does not depend on the platform's float32 functions.
    let angles: Vec<f64> =
        (0..half).map(|i| f64::from(scaled * f64::from(i as f32 * -decay).exp() as f32)).collect();
    let mut values: Vec<f32> = angles
        .iter()
        .map(|a| a.sin() as f32)
        .chain(angles.iter().map(|a| a.cos() as f32))
        .collect();
    values.resize(size, 0.0);
    Ok(values)
}

/// Classifier-free guidance (Ho and Salimans 2022): `away + scale (to - away)` of two predictions of equal length.
pub fn classifier_free(away: &[f32], to: &[f32], scale: f32) -> Vec<f32> {
    away.iter().zip(to).map(|(away, to)| away + scale * (to - away)).collect()
}
