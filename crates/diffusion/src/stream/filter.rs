//! The stochastic similarity filter (Kodaira et al. 2023, section 3.4): pictures that are like the last one that was drawn are mostly
//! skipped.

use crate::Picture;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardUniform};

/// When a picture counts as like another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Cosine of two pictures, as values in -1..1, from which skipping is possible. It is the more probable the nearer the cosine is to 1.
    pub threshold: f64,
    /// Most pictures that are skipped in a row.
    pub max_skip: usize,
}

impl Default for Similarity {
    fn default() -> Self {
        Similarity { threshold: 0.98, max_skip: 10 }
    }
}

/// The filter of one stream.
#[derive(Clone, Debug)]
pub struct SimilarityFilter {
    similarity: Similarity,
    random: ChaCha20Rng,
    /// The last picture that was drawn.
    reference: Option<Vec<u8>>,
    skipped: usize,
}

impl SimilarityFilter {
    /// A filter that has seen nothing.
    pub fn new(similarity: Similarity, seed: u64) -> Self {
        let random = ChaCha20Rng::seed_from_u64(seed);
        SimilarityFilter { similarity, random, reference: None, skipped: 0 }
    }

    /// Change the threshold, keeping what was seen.
    pub fn set(&mut self, similarity: Similarity) {
        self.similarity = similarity;
    }

    /// Whether a picture of the stream's size can be skipped. One that cannot is the one that later ones are compared with.
    pub fn skips(&mut self, picture: &Picture) -> bool {
        let Similarity { threshold, max_skip } = self.similarity;
        let probability = match &self.reference {
            Some(reference) if threshold < 1.0 && self.skipped < max_skip => {
                let cosine = cosine(reference, &picture.rgb);
                (1.0 - (1.0 - cosine) / (1.0 - threshold)).max(0.0)
            }
            _ => 0.0,
        };
        let draw: f64 = StandardUniform.sample(&mut self.random);
        if draw < probability {
            self.skipped += 1;
            return true;
        }
        self.skipped = 0;
        self.reference = Some(picture.rgb.clone());
        false
    }
}

/// Cosine of two pictures as values in -1..1, `v / 127.5 - 1`; sums are of whole numbers, in units of 1/255.
fn cosine(a: &[u8], b: &[u8]) -> f64 {
    if a.len() != b.len() {
        return -1.0;
    }
    let centred = |v: u8| 2 * i64::from(v) - 255;
    let (mut dot, mut aa, mut bb) = (0i64, 0i64, 0i64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (centred(a), centred(b));
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    // No value is 0, so that no length is.
    dot as f64 / ((aa as f64) * (bb as f64)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(values: impl Iterator<Item = u8>) -> Picture {
        let rgb: Vec<u8> = values.collect();
        Picture { width: rgb.len() as u32 / 3, height: 1, rgb, parameters: None }
    }

    fn still() -> Picture {
        picture((0..48).map(|i| (i * 5) as u8))
    }

    #[test]
    fn a_still_scene_is_drawn_once_and_then_every_so_often() {
        let mut filter = SimilarityFilter::new(Similarity { threshold: 0.98, max_skip: 10 }, 1);
        let skips: Vec<bool> = (0..34).map(|_| filter.skips(&still())).collect();
        let drawn: Vec<usize> = (0..34).filter(|&i| !skips[i]).collect();
        assert_eq!(drawn, [0, 11, 22, 33]);
    }

    #[test]
    fn a_picture_that_is_drawn_starts_the_count_anew() {
        let (a, b) = (still(), picture((0..48).map(|i| 255 - (i * 5) as u8)));
        let mut filter = SimilarityFilter::new(Similarity { threshold: 0.98, max_skip: 2 }, 1);
        let skips: Vec<bool> = [&a, &a, &b, &b, &b, &b].iter().map(|p| filter.skips(p)).collect();
        assert_eq!(skips, [false, true, false, true, true, false]);
    }

    #[test]
    fn skipping_is_as_probable_as_the_cosine_says() {
        // Half way between the threshold and 1, about half of the pictures are skipped.
        let a = picture((0..3000).map(|i| if i % 2 == 0 { 200 } else { 50 }));
        let b = picture((0..3000).map(|i| {
            if i < 60 {
                127
            } else if i % 2 == 0 {
                200
            } else {
                50
            }
        }));
        let cosine = cosine(&a.rgb, &b.rgb);
        let threshold = 1.0 - 2.0 * (1.0 - cosine);
        let mut skipped = 0;
        for seed in 0..1000 {
            let mut filter = SimilarityFilter::new(Similarity { threshold, max_skip: 10 }, seed);
            assert!(!filter.skips(&a));
            skipped += usize::from(filter.skips(&b));
        }
        assert!((430..570).contains(&skipped), "{skipped}");
    }

    #[test]
    fn a_threshold_of_one_skips_nothing() {
        let mut filter = SimilarityFilter::new(Similarity { threshold: 1.0, max_skip: 10 }, 1);
        assert!((0..20).all(|_| !filter.skips(&still())));
    }
}
