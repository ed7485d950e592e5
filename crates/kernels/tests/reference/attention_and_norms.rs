//! Operators that divide by a sum over an axis: attention, softmax, norms.

use super::*;

fn naive_attention(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    mask: impl Fn(usize, usize) -> f64,
    scale: f64,
    [l, d, s, e]: [usize; 4],
) -> Vec<f64> {
    let scores = naive_matmul(q, k, [l, d, s]);
    let mut out = Vec::new();
    for i in 0..l {
        let row: Vec<f64> = (0..s).map(|j| scores[i * s + j] * scale + mask(i, j)).collect();
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = row.iter().map(|x| (x - max).exp()).collect();
        let total: f64 = p.iter().sum();
        out.extend((0..e).map(|c| (0..s).map(|j| p[j] * v[j * e + c]).sum::<f64>() / total));
    }
    out
}

#[test]
fn attention_with_and_without_masks() {
    for (l, d, s, e) in [(1, 3, 1, 2), (5, 4, 9, 6), (140, 40, 77, 40), (33, 8, 5000, 8)] {
        let (q, k, v) = (noise(&[2, 3, l, d], 1), noise(&[2, 3, d, s], 2), noise(&[2, 3, s, e], 3));
        let scale = 1.0 / (d as f32).sqrt();
        // Causal, and a mask over keys alone; some keys of every row stay.
        let causal: Vec<f32> =
            (0..l * s).map(|i| if i % s <= i / s { 0.0 } else { f32::NEG_INFINITY }).collect();
        let masks = [
            None,
            Some(Tensor::from_f32([l, s], causal)),
            Some(noise(&[2, 1, 1, s], 5)),
            Some(noise(&[3, l, 1], 6)),
        ];
        for (kind, mask) in masks.iter().enumerate() {
            let mut expected = Vec::new();
            for head in 0..6 {
                let part = |t: &Tensor, n: usize| f64s(t)[head * n..(head + 1) * n].to_vec();
                let m = mask.as_ref().map(f64s);
                let at = |i: usize, j: usize| match (&m, kind) {
                    (Some(m), 1) => m[i * s + j],
                    (Some(m), 2) => m[head / 3 * s + j],
                    (Some(m), 3) => m[head % 3 * l + i],
                    _ => 0.0,
                };
                expected.extend(naive_attention(
                    &part(&q, l * d),
                    &part(&k, d * s),
                    &part(&v, s * e),
                    at,
                    scale.into(),
                    [l, d, s, e],
                ));
            }
            let inputs: Vec<&Tensor> = [&q, &k, &v].into_iter().chain(mask).collect();
            check(&Op::Attention { scale }, &inputs, &expected, 1.0);
        }
    }
}

#[test]
fn attention_shares_keys_between_heads_and_marks_rows_without_keys() {
    let (q, k, v) = (noise(&[4, 6, 8], 1), noise(&[8, 10], 2), noise(&[1, 10, 8], 3));
    let shared = evaluate(&Op::Attention { scale: 0.5 }, &[&q, &k, &v], Precision::F32).unwrap();
    let full = |t: &Tensor| {
        evaluate(
            &Op::Expand { shape: [&[4], &t.shape()[t.shape().len() - 2..]].concat() },
            &[t],
            Precision::F32,
        )
        .unwrap()
    };
    let separate =
        evaluate(&Op::Attention { scale: 0.5 }, &[&q, &full(&k), &full(&v)], Precision::F32)
            .unwrap();
    assert_eq!(shared, separate);
    let mut mask = vec![0.0; 60];
    mask[10..20].fill(f32::NEG_INFINITY);
    let out = evaluate(
        &Op::Attention { scale: 0.5 },
        &[&q, &k, &v, &Tensor::from_f32([6, 10], mask)],
        Precision::F16,
    )
    .unwrap();
    for (i, v) in f64s(&out).into_iter().enumerate() {
        assert_eq!(v.is_nan(), i / 8 % 6 == 1, "element {i}");
    }
}

#[test]
fn softmax_along_every_axis() {
    let x = noise(&[3, 5, 70], 1);
    let v = f64s(&x);
    for (axis, stride, extent) in [(0, 350, 3), (1, 70, 5), (2, 1, 70)] {
        let expected: Vec<f64> = (0..v.len())
            .map(|i| {
                let first = i - i / stride % extent * stride;
                v[i].exp() / (0..extent).map(|j| v[first + j * stride].exp()).sum::<f64>()
            })
            .collect();
        check(&Op::Softmax { axis }, &[&x], &expected, 1.0);
    }
    let masked = Tensor::from_f32(
        [2, 3],
        vec![
            f32::NEG_INFINITY,
            0.0,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
        ],
    );
    let out = f64s(&evaluate(&Op::Softmax { axis: 1 }, &[&masked], Precision::F16).unwrap());
    assert_eq!(out[..3], [0.0, 1.0, 0.0]);
    assert!(out[3..].iter().all(|v| v.is_nan()));
}

fn normalised(v: &[f64], epsilon: f64) -> impl Iterator<Item = f64> + '_ {
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    let variance = v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / v.len() as f64;
    v.iter().map(move |x| (x - mean) / (variance + epsilon).sqrt())
}

#[test]
fn normalisations_are_accurate_far_from_zero() {
    // Mean 600 with spread 1: a one-pass variance in f32 would be wrong in the second digit.
    let (eps, e) = (1e-5, f64::from(1e-5f32));
    let shifted: Vec<f32> = noise(&[2, 6, 4, 8], 1)
        .to_f32()
        .unwrap()
        .iter()
        .map(|v| f16::from_f32(600.0 + v).to_f32())
        .collect();
    let x = Tensor::from_f32([2, 6, 4, 8], shifted);
    let v = f64s(&x);
    let (gamma, beta) = (noise(&[4, 8], 2), noise(&[4, 8], 3));
    let affine = |(i, n): (usize, f64), g: &Tensor, b: &Tensor, channel: usize| {
        let _ = i;
        n * f64s(g)[channel] + f64s(b)[channel]
    };
    let expected: Vec<f64> = v
        .chunks(32)
        .flat_map(|row| {
            normalised(row, e)
                .enumerate()
                .map(|(i, n)| affine((i, n), &gamma, &beta, i))
                .collect::<Vec<_>>()
        })
        .collect();
    check(&Op::LayerNorm { axis: 2, epsilon: eps }, &[&x, &gamma, &beta], &expected, 30.0);
    let (gamma, beta) = (noise(&[6], 2), noise(&[6], 3));
    for groups in [1, 2, 3, 6] {
        let size = 6 / groups * 32;
        let expected: Vec<f64> =
            v.chunks(size).flat_map(|part| normalised(part, e).collect::<Vec<_>>()).collect();
        let expected: Vec<f64> = expected
            .into_iter()
            .enumerate()
            .map(|(i, n)| affine((i, n), &gamma, &beta, i / 32 % 6))
            .collect();
        check_rounded(
            &Op::GroupNorm { groups, epsilon: eps },
            &[&x, &gamma, &beta],
            &expected,
            30.0,
            2.0,
        );
        if groups == 6 {
            check_rounded(
                &Op::InstanceNorm { epsilon: eps },
                &[&x, &gamma, &beta],
                &expected,
                30.0,
                4.0,
            );
        }
    }
}
