//! How cores that share one memory slow each other down. The rule is a fixed point: each core's rate depends on how much the others
//! stream, and their streaming on their rates.

use crate::Phase;

/// Rounds in which the shares of cores that wait for the memory settle; the error falls by more than half in each.
const ROUNDS: usize = 12;

/// The memory that all cores share.
///
/// A phase computes and streams in turns, much finer than the phase. While it streams, the other cores stream as well with the probability
/// that is their share of streaming. Cores that stream at once have one core's rate each, as long as the memory gives it, and divide evenly
/// what it gives beyond that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Bytes a second that one core reaches alone.
    pub core_bytes_per_second: f64,
    /// Bytes a second of all cores together.
    pub shared_bytes_per_second: f64,
}

/// The RK3588's, measured with an int8 Add of 10.8 MB, in and out (docs/rk3588.md 2.2): 945 us on one core, 573 us on three.
impl Default for Memory {
    fn default() -> Self {
        Memory { core_bytes_per_second: 11.7e9, shared_bytes_per_second: 19.3e9 }
    }
}

impl Memory {
    /// How much longer streaming takes beside `others` cores that stream.
    fn slowdown(&self, others: usize) -> f64 {
        ((others + 1) as f64 * self.core_bytes_per_second / self.shared_bytes_per_second).max(1.0)
    }

    /// For each of the phases that are under way together, by what its time grows (1 and more).
    pub fn stretch(&self, phases: &[Phase]) -> Vec<f64> {
        let share = |p: &Phase, factor: f64| {
            let streaming = p.streaming.min(p.micros) * factor;
            let total = p.micros - p.streaming.min(p.micros) + streaming;
            if total > 0.0 { streaming / total } else { 0.0 }
        };
        let mut factors = vec![1.0; phases.len()];
        for _ in 0..ROUNDS {
            let shares: Vec<f64> = phases.iter().zip(&factors).map(|(p, &f)| share(p, f)).collect();
            for (i, factor) in factors.iter_mut().enumerate() {
                // Probability of each number of others that stream.
                let mut likely = vec![1.0];
                for (_, &s) in shares.iter().enumerate().filter(|(j, _)| *j != i) {
                    let mut next = vec![0.0; likely.len() + 1];
                    for (k, p) in likely.iter().enumerate() {
                        next[k] += p * (1.0 - s);
                        next[k + 1] += p * s;
                    }
                    likely = next;
                }
                *factor = likely.iter().enumerate().map(|(k, p)| p * self.slowdown(k)).sum();
            }
        }
        let stretched = |(p, f): (&Phase, f64)| {
            let streaming = p.streaming.min(p.micros);
            if p.micros > 0.0 { (p.micros - streaming + streaming * f) / p.micros } else { 1.0 }
        };
        phases.iter().zip(factors).map(stretched).collect()
    }
}
