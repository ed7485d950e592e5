//! Which token comes next.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;

/// How tokens are chosen. The order is that of transformers: repetition penalty, temperature, top-k, top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits: above 1 choices are wilder; 0 takes the likeliest token.
    pub temperature: f64,
    /// Most tokens that are considered; 0 is all.
    pub top_k: usize,
    /// The likeliest tokens that together have this probability are considered; 1 is all.
    pub top_p: f64,
    /// Divides positive logits of tokens that were there, and multiplies negative ones; 1 is none (Keskar et al. 2019).
    pub repetition_penalty: f64,
    /// Seed of the choices.
    pub seed: u64,
}

/// A setting that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}; it must be {range}")]
pub struct SamplingError {
    name: &'static str,
    value: f64,
    range: &'static str,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Chooses one token after the other.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// Choose in this way.
    ///
    /// # Errors
    /// A temperature below 0, a top-p outside (0, 1], a repetition penalty that is not above 0, numbers that are not finite.
    pub fn new(sampling: Sampling) -> Result<Self, SamplingError> {
        let Sampling { temperature, top_p, repetition_penalty, seed, .. } = sampling;
        for (name, value, fits, range) in [
            ("temperature", temperature, temperature >= 0.0, "0 or above"),
            ("top-p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0, at most 1"),
            ("repetition penalty", repetition_penalty, repetition_penalty > 0.0, "above 0"),
        ] {
            if !fits || !value.is_finite() {
                return Err(SamplingError { name, value, range });
            }
        }
        Ok(Sampler { sampling, random: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// One that always chooses the likeliest.
    pub fn greedy() -> Self {
        Sampler { sampling: Sampling::default(), random: ChaCha8Rng::seed_from_u64(0) }
    }

    /// The next token, where these were there before.
    pub fn choose(&mut self, logits: &[f32], before: &[u32]) -> u32 {
        let Sampling { temperature, top_k, top_p, repetition_penalty, .. } = self.sampling;
        let mut scores: Vec<(u32, f64)> =
            logits.iter().zip(0..).map(|(&v, token)| (token, f64::from(v))).collect();
        if repetition_penalty != 1.0 {
            let seen: HashSet<u32> = before.iter().copied().collect();
            for (_, score) in scores.iter_mut().filter(|(token, _)| seen.contains(token)) {
                let factor =
                    if *score > 0.0 { repetition_penalty.recip() } else { repetition_penalty };
                *score *= factor;
            }
        }
        // Equals in the order of their numbers.
        let likelier = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if temperature == 0.0 {
            return scores.into_iter().min_by(likelier).map_or(0, |(token, _)| token);
        }
        scores.sort_by(likelier);
        if top_k > 0 {
            scores.truncate(top_k);
        }
        let most = scores.first().map_or(0.0, |s| s.1);
        let weights: Vec<f64> = scores.iter().map(|s| ((s.1 - most) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let count = 1 + weights
            .iter()
            .take_while(|&&w| {
                kept += w;
                kept < top_p * total
            })
            .count();
        let weights = &weights[..count.min(weights.len())];
        let mut left = self.random.random::<f64>() * weights.iter().sum::<f64>();
        for ((token, _), weight) in scores.iter().zip(weights) {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        scores[weights.len() - 1].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.9, -4.0, 0.5];

    fn counts(sampling: Sampling) -> [usize; 5] {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = [0; 5];
        (0..20_000).for_each(|_| counts[sampler.choose(&LOGITS, &[]) as usize] += 1);
        counts
    }

    #[test]
    fn the_likeliest_without_temperature() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.choose(&LOGITS, &[]), 1);
        assert_eq!(sampler.choose(&[2.0, 2.0], &[]), 0);
        // A penalty makes way for what was not there.
        let penalty = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
        assert_eq!(Sampler::new(penalty).unwrap().choose(&LOGITS, &[1]), 2);
        let negative = Sampler::new(penalty).unwrap().choose(&[-1.0, -1.2], &[0]);
        assert_eq!(negative, 1);
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely() {
        let warm = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let total: f64 = LOGITS.iter().map(|&v| f64::from(v).exp()).sum();
        for (found, logit) in counts(warm).iter().zip(LOGITS) {
            let expected = f64::from(logit).exp() / total * 20_000.0;
            assert!((*found as f64 - expected).abs() < 5.0 * expected.sqrt().max(2.0));
        }
        assert_eq!(counts(warm), counts(warm));
        assert_ne!(counts(warm), counts(Sampling { seed: 4, ..warm }));
        let two = counts(Sampling { top_k: 2, ..warm });
        assert_eq!(two[1] + two[2], 20_000);
        // The two likeliest have 0.87 of the probability.
        let nucleus = counts(Sampling { top_p: 0.8, ..warm });
        assert_eq!(nucleus[1] + nucleus[2], 20_000);
        assert!(nucleus[2] > 5_000);
        assert_eq!(counts(Sampling { top_p: 0.1, ..warm })[1], 20_000);
        assert_eq!(counts(Sampling { temperature: 1e-3, ..warm })[1], 20_000);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let usual = Sampling::default();
        for (wrong, said) in [
            (Sampling { temperature: -1.0, ..usual }, "temperature is -1; it must be 0 or above"),
            (Sampling { temperature: f64::NAN, ..usual }, "temperature is NaN"),
            (Sampling { top_p: 0.0, ..usual }, "top-p is 0; it must be above 0, at most 1"),
            (Sampling { repetition_penalty: 0.0, ..usual }, "repetition penalty is 0"),
        ] {
            assert!(Sampler::new(wrong).unwrap_err().to_string().contains(said));
        }
    }
}
