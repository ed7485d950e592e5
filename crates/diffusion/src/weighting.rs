//! How weights act: each token's hidden state is multiplied by its weight, then all of them by one factor that brings their mean back to
//! what it was, as AUTOMATIC1111's web UI does ("Original" among its emphasis modes).

use rockshard_tensor::{Tensor, TensorError};
use std::ops::RangeInclusive;

/// Factors that bring a mean back. Others come from a mean near 0, or from a sign that negative weights changed: such a mean says
/// nothing about the size of the values, and they stay as the weights made them (the web UI's mode "No norm").
const FACTORS: RangeInclusive<f32> = 0.1..=10.0;

/// Hidden states `[.., tokens, width]` with a weight for each token. Weights of 1 leave them as they are, bit for bit.
///
/// # Errors
/// They are not real values, or not as many tokens as weights.
pub(crate) fn weighted(hidden: Tensor, weights: &[f32]) -> Result<Tensor, TensorError> {
    if weights.iter().all(|&weight| weight == 1.0) {
        return Ok(hidden);
    }
    let mut values = hidden.to_f32()?.into_owned();
    let width = values.len() / weights.len();
    if width == 0 || values.len() != width * weights.len() {
        return Err(TensorError::Length {
            shape: hidden.shape().to_vec(),
            dtype: hidden.dtype(),
            expected: weights.len() * hidden.dtype().size(),
            found: hidden.bytes().len(),
        });
    }
    let before = mean(&values);
    for (row, weight) in values.chunks_exact_mut(width).zip(weights) {
        row.iter_mut().for_each(|value| *value *= weight);
    }
    let factor = (before / mean(&values)) as f32;
    if FACTORS.contains(&factor) {
        values.iter_mut().for_each(|value| *value *= factor);
    }
    Tensor::from_f32(hidden.shape(), values).to_float(hidden.dtype())
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(values: Vec<f32>) -> Tensor {
        Tensor::from_f32([1, 2, 2], values)
    }

    #[test]
    fn the_mean_stays() {
        let hidden = weighted(states(vec![1.0, 2.0, 3.0, 6.0]), &[1.0, 2.0]).unwrap();
        let factor = 12.0 / 21.0;
        let expected = [1.0, 2.0, 6.0, 12.0].map(|value: f32| value * factor);
        let found = hidden.to_f32().unwrap();
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn a_mean_near_zero_scales_nothing() {
        for values in [vec![1.0, -1.0, 2.0, -2.0], vec![1.0, -1.01, 3.0, 5.0]] {
            let expected = [values[0], values[1], -values[2], -values[3]];
            let hidden = weighted(states(values), &[1.0, -1.0]).unwrap();
            assert_eq!(*hidden.to_f32().unwrap(), expected);
        }
    }

    #[test]
    fn as_many_tokens_as_weights() {
        assert!(weighted(states(vec![1.0; 4]), &[1.0, 2.0, 1.0]).is_err());
    }
}
