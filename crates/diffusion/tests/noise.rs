//! The noise is what it was, normal, and independent of what else runs.

use rockshard_diffusion::noise::{START, standard_normal};

#[test]
fn values_are_fixed() {
    let values = standard_normal(42, 0, START, 6);
    assert_eq!(values, GOLDEN, "{values:?}");
}

const GOLDEN: [f32; 6] = [-0.3976885, 0.7220873, 1.0343965, -0.6046501, 0.48617524, -0.80515647];

#[test]
fn a_stream_depends_on_seed_item_and_step_only() {
    let long = standard_normal(7, 3, 2, 1000);
    assert_eq!(standard_normal(7, 3, 2, 10), long[..10]);
    for other in [
        standard_normal(8, 3, 2, 1000),
        standard_normal(7, 4, 2, 1000),
        standard_normal(7, 3, 3, 1000),
    ] {
        let product: f32 = long.iter().zip(&other).map(|(a, b)| a * b).sum::<f32>() / 1000.0;
        assert!(product.abs() < 0.12, "correlation {product}");
    }
    assert_ne!(standard_normal(u64::MAX, u32::MAX, u32::MAX, 4), standard_normal(0, 0, 0, 4));
}

#[test]
fn values_are_standard_normal() {
    let n = 200_000;
    let values = standard_normal(1, 0, 0, n);
    let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n as f64;
    for (k, expected, tolerance) in
        [(1, 0.0, 0.01), (2, 1.0, 0.015), (3, 0.0, 0.04), (4, 3.0, 0.12)]
    {
        assert!((moment(k) - expected).abs() < tolerance, "moment {k}: {}", moment(k));
    }
    let beyond = values.iter().filter(|v| v.abs() > 1.96).count() as f64 / n as f64;
    assert!((beyond - 0.05).abs() < 0.003, "{beyond}");
}
