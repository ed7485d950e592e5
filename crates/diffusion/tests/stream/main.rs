//! A stream's arithmetic against a float64 restatement, and StreamDiffusion's upstream defects, which are not here.

mod defects;
#[path = "../fake/mod.rs"]
mod fake;
mod restated;

use proptest::prelude::*;
use restated::{Batch, Cfg};
use rockshard_diffusion::noise::standard_normal;
use rockshard_diffusion::stream::{CfgType, Chain, Level, Steer};
use rockshard_diffusion::{LcmSampler, SamplerConfig};
use std::sync::Arc;

const VALUES: usize = 12;

fn noise(step: u32) -> Vec<f32> {
    standard_normal(5, 0, step, VALUES)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Largest difference, relative to the largest value.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(1e-9f64, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs());
    worst.fold(0.0, f64::max) / largest
}

fn spread(levels: usize) -> Vec<usize> {
    (0..levels).map(|i| 4 + i * 45 / levels).collect()
}

fn kind(cfg: Cfg) -> CfgType {
    match cfg {
        Cfg::None => CfgType::None,
        Cfg::Full => CfgType::Full,
        Cfg::Own => CfgType::SelfNegative,
        Cfg::Initialize => CfgType::Initialize,
    }
}

/// A U-Net that finds some of the noise, and some that is not there.
fn unet(x: &[f64], timestep: i64, away: bool) -> Vec<f64> {
    let shift = timestep as f64 * 0.01 + f64::from(u8::from(away)) * 0.7;
    let value = |(i, x): (usize, &f64)| 0.8 * x + 0.3 * (x * 3.0 + i as f64 + shift).sin();
    // What is recorded is what a network gives: float32.
    x.iter().enumerate().map(value).map(|v| f64::from(v as f32)).collect()
}

/// Frames through both, every row compared; gives the worst relative difference.
fn compared(t: usize, f: usize, cfg: Cfg, g: f64, delta: f64, add_noise: bool) -> f64 {
    let indices = spread(t);
    let sampler = LcmSampler::new(&SamplerConfig::default()).unwrap();
    let levels = Arc::new(Level::all(&sampler, 50, &indices).unwrap());
    let shared: Arc<Vec<Vec<f32>>> = Arc::new((0..t as u32).map(noise).collect());
    let mut batch = Batch {
        levels: restated::levels(&indices),
        f,
        cfg,
        g,
        delta,
        add_noise,
        noise: shared.iter().map(|n| wide(n)).collect(),
        buffer: vec![vec![0.0; VALUES]; (t - 1) * f],
        residual: vec![vec![0.0; VALUES]; (t - 1) * f],
    };
    let steer = Steer { cfg: kind(cfg), scale: g, delta, add_noise };
    let groups = 3;
    let clean = |n: usize| standard_normal(9, n as u32, 0, VALUES);
    let calls: Vec<_> = (0..groups + t - 1)
        .map(|call| {
            let level = batch.levels[0];
            let enter = |j: usize| {
                let (z, n) = (wide(&clean(call * f + j)), &batch.noise[0]);
                z.iter().zip(n).map(|(z, n)| level.alpha * z + level.beta * n).collect()
            };
            let entering: Vec<Vec<f64>> = (0..f).map(enter).collect();
            batch.call(&entering, &mut unet)
        })
        .collect();
    let mut worst = 0.0f64;
    for group in 0..groups {
        let mut chain = Chain::new(levels.clone(), steer);
        (0..f).for_each(|j| chain.enter_latent(&clean(group * f + j), shared.clone()));
        for step in 0..t {
            let call = &calls[group + step];
            let rows = step * f..(step + 1) * f;
            let mut given: Vec<Vec<f32>> = Vec::new();
            let away = !call.away.is_empty() && rows.end <= call.away.len();
            let asked = chain.rows();
            assert_eq!(asked.len(), if away { 2 * f } else { f }, "{cfg:?} step {step}");
            for (row, of) in asked.iter().zip(if away {
                [rows.clone(), rows.clone()].concat_ranges()
            } else {
                rows.clone().collect()
            }) {
                assert_eq!(row.timestep, batch.levels[step].timestep);
                worst = worst.max(difference(row.latent, &call.rows[of]));
                given.push(narrow(if row.away { &call.away[of] } else { &call.predicted[of] }));
            }
            let last = chain.advance(given);
            assert_eq!(last, step + 1 == t);
            for (j, (latent, residual)) in chain.state().enumerate() {
                let row = step * f + j;
                let expected = if last { &call.out[j] } else { &call.next[row] };
                worst = worst.max(difference(latent, expected));
                if matches!(cfg, Cfg::Own | Cfg::Initialize) && g > 1.0 && !last {
                    worst = worst.max(difference(residual, &call.next_residual[row]));
                }
            }
        }
    }
    worst
}

/// Two ranges after each other, as indices.
trait ConcatRanges {
    fn concat_ranges(self) -> Vec<usize>;
}

impl ConcatRanges for [std::ops::Range<usize>; 2] {
    fn concat_ranges(self) -> Vec<usize> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn every_row_is_the_stream_batchs() {
    let mut worst = 0.0f64;
    for t in 1..=10 {
        for f in 1..=4 {
            for cfg in [Cfg::None, Cfg::Full, Cfg::Own, Cfg::Initialize] {
                for add_noise in [true, false] {
                    for (g, delta) in [(1.2, 1.0), (1.4, 0.5), (1.0, 1.0)] {
                        let found = compared(t, f, cfg, g, delta, add_noise);
                        assert!(
                            found < 1e-5,
                            "T {t} f {f} {cfg:?} noise {add_noise} g {g}: {found:e}"
                        );
                        worst = worst.max(found);
                    }
                }
            }
        }
    }
    eprintln!("960 streams, worst relative difference {worst:.1e}");
}

/// With noise between levels, what is left in a latent is the residual: X = alpha z + beta S.
#[test]
fn the_residual_is_what_is_left_in_the_latent() {
    let sampler = LcmSampler::new(&SamplerConfig::default()).unwrap();
    let mut worst = 0.0f64;
    for t in 2..=10 {
        let levels = Arc::new(Level::all(&sampler, 50, &spread(t)).unwrap());
        let shared: Arc<Vec<Vec<f32>>> = Arc::new((0..t as u32).map(noise).collect());
        let z = standard_normal(11, 3, 0, VALUES);
        let steer = Steer { cfg: CfgType::SelfNegative, scale: 1.2, delta: 1.0, add_noise: true };
        let mut chain = Chain::new(levels.clone(), steer);
        chain.enter_latent(&z, shared);
        loop {
            let rows = chain.rows();
            let outputs = rows.iter().map(|r| narrow(&unet(&wide(r.latent), r.timestep, false)));
            let outputs = outputs.collect();
            if chain.advance(outputs) {
                break;
            }
            let (latent, residual) = chain.state().next().unwrap();
            let level = levels[chain.step()];
            // The property is of the consistency function without its skip, which adds c_skip z.
            let expected: Vec<f64> = z
                .iter()
                .zip(residual)
                .map(|(&z, &s)| level.alpha * f64::from(z) + level.beta * f64::from(s))
                .collect();
            worst = worst.max(difference(latent, &expected));
        }
    }
    assert!(worst < 1e-6, "{worst:e}");
    eprintln!("worst difference from alpha z + beta S: {worst:.1e}");
}

proptest! {
    /// Frames that enter together get what they get alone.
    #[test]
    fn a_frame_buffer_changes_no_frame(t in 1usize..6, f in 2usize..5, own in any::<bool>()) {
        let sampler = LcmSampler::new(&SamplerConfig::default()).unwrap();
        let levels = Arc::new(Level::all(&sampler, 50, &spread(t)).unwrap());
        let shared: Arc<Vec<Vec<f32>>> = Arc::new((0..t as u32).map(noise).collect());
        let cfg = if own { CfgType::SelfNegative } else { CfgType::Initialize };
        let steer = Steer { cfg, scale: 1.3, delta: 0.8, add_noise: true };
        let run = |frames: &[u32]| {
            let mut chain = Chain::new(levels.clone(), steer);
            for &n in frames {
                chain.enter_latent(&standard_normal(1, n, 0, VALUES), shared.clone());
            }
            loop {
                let rows = chain.rows();
                let outputs = rows.iter().map(|r| narrow(&unet(&wide(r.latent), r.timestep, r.away))).collect();
                if chain.advance(outputs) {
                    return chain.latents();
                }
            }
        };
        let all: Vec<u32> = (0..f as u32).collect();
        let together = run(&all);
        for n in all {
            prop_assert_eq!(&run(&[n])[0], &together[n as usize]);
        }
    }
}
