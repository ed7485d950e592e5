//! Seeded standard normal noise.
//!
//! Every `(seed, item, step)` has its own ChaCha20 stream: the seed is the key, item and step select the stream. A latent's
//! noise therefore depends on nothing else: not on how many items run, in which order, or on what other steps drew.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// Step number of the noise a run starts from; step `i` of the schedule draws from stream `i + 1`.
pub const START: u32 = 0;

/// `count` independent standard normal values of stream `(seed, item, step)`.
pub fn standard_normal(seed: u64, item: u32, step: u32, count: usize) -> Vec<f32> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut generator = ChaCha20Rng::from_seed(key);
    generator.set_stream(u64::from(item) << 32 | u64::from(step));
    let values = StandardNormal.sample_iter(&mut generator).take(count);
    values.map(|v: f32| v).collect()
}
