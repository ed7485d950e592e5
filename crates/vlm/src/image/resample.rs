//! Resampling as Pillow does it, bit for bit on bytes: `Image.resize` with `Resampling.LANCZOS` (Pillow 13's `src/libImaging/Resample.c`).
//!
//! A Lanczos filter of three lobes, widened where the image shrinks, in two passes with rounding to bytes between them. Weights are fixed-point
//! numbers of 22 bits that add up to about 1. An axis that keeps its extent is not filtered. Image libraries for Rust round otherwise.
//!
//! Rows are filtered first, unless the image loses more than twice as many rows as columns: since its version 13 Pillow filters columns first then
//! (pull request 9549). Earlier versions give other bytes for such images, by a level here and there.

use super::Rgb;
use std::f64::consts::PI;

/// Lobes of the filter on each side.
const LOBES: f64 = 3.0;
/// Bits behind the point of a weight: 8 bits of a value and 2 of headroom for what rings over are left of 32.
const BITS: u32 = 32 - 8 - 2;

/// The weights of one output position: from which input position on.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// An image at another size.
pub(super) fn resized(image: &Rgb, width: usize, height: usize) -> Rgb {
    if columns_first(image, width, height) {
        across(&down(image, height), width)
    } else {
        down(&across(image, width), height)
    }
}

fn columns_first(image: &Rgb, width: usize, height: usize) -> bool {
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let rows = lost(image.height, height);
    rows > 0 && rows > 2 * lost(image.width, width)
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = LOBES * widening;
    let window = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weight = |x: usize| lanczos((x as f64 - centre + 0.5) * (1.0 / widening));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: &f64| {
            let w = if sum == 0.0 { *w } else { w / sum } * f64::from(1 << BITS);
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        Window { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Half of the last bit that is kept.
const HALF: i32 = 1 << (BITS - 1);

fn across(image: &Rgb, width: usize) -> Rgb {
    if width == image.width {
        return image.clone();
    }
    let windows = windows(image.width, width);
    let mut bytes = Vec::with_capacity(width * image.height * 3);
    for row in image.bytes.chunks_exact(image.width * 3) {
        for Window { first, weights } in &windows {
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            bytes.extend(sums.map(byte));
        }
    }
    Rgb { width, height: image.height, bytes }
}

fn down(image: &Rgb, height: usize) -> Rgb {
    if height == image.height {
        return image.clone();
    }
    let row = image.width * 3;
    let mut bytes = Vec::with_capacity(row * height);
    let mut sums = vec![0; row];
    for Window { first, weights } in windows(image.height, height) {
        sums.fill(HALF);
        for (values, weight) in image.bytes[first * row..].chunks_exact(row).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(value) * weight;
            }
        }
        bytes.extend(sums.iter().map(|&sum| byte(sum)));
    }
    Rgb { width: image.width, height, bytes }
}
