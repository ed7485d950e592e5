//! The heavy operators against plain f64 loops, in both precisions and with any number of threads.

mod attention_and_norms;

use half::f16;
use rockshard_graph::{Binary, Op, Pool, Reduce, Resize, Window};
use rockshard_kernels::{Precision, evaluate, evaluate_weighted};
use rockshard_tensor::{DType, Tensor};

/// Values in -1..1 that f16 holds exactly.
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape.iter().product::<usize>()).map(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f16::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0).to_f32()
    });
    Tensor::from_f32(shape.to_vec(), values.collect())
}

fn f64s(t: &Tensor) -> Vec<f64> {
    t.to_f32().unwrap().iter().map(|&v| v.into()).collect()
}

fn window(
    kernel: [usize; 2],
    strides: [usize; 2],
    pads: [usize; 4],
    dilations: [usize; 2],
) -> Window {
    Window { kernel, strides, pads, dilations }
}

/// Compare in f32 (from f32 and from f16 storage) and in f16 with an f64 result; `scale` is the size of the sums.
fn check(op: &Op, inputs: &[&Tensor], expected: &[f64], scale: f64) {
    check_rounded(op, inputs, expected, scale, 0.0);
}

/// As [`check`], for operators that f16 also rounds in between, at values of up to `between`.
fn check_rounded(op: &Op, inputs: &[&Tensor], expected: &[f64], scale: f64, between: f64) {
    let narrow: Vec<Tensor> =
        inputs.iter().map(|t| t.to_float(DType::F16).unwrap_or_else(|_| (*t).clone())).collect();
    let narrow: Vec<&Tensor> = narrow.iter().collect();
    for (inputs, precision) in [
        (inputs, Precision::F32),
        (&narrow, Precision::F32),
        (inputs, Precision::F16),
        (&narrow, Precision::F16),
    ] {
        let out = evaluate(op, inputs, precision).unwrap();
        assert_eq!(out.dtype(), precision.dtype(), "{op:?}");
        assert_eq!(out.len(), expected.len(), "{op:?}");
        for (i, (found, exact)) in f64s(&out).into_iter().zip(expected).enumerate() {
            let rounding = if precision == Precision::F16 {
                (exact.abs() + between) * 0.000_489 + 6e-8
            } else {
                0.0
            };
            assert!(
                (found - exact).abs() <= rounding + scale * 2e-6,
                "{op:?} {precision:?} element {i}: {found}, exact {exact}"
            );
        }
    }
}

fn naive_conv(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    window: &Window,
    group: usize,
    out: [usize; 2],
) -> Vec<f64> {
    let (xs, ws) = (x.shape(), w.shape());
    let (xv, wv, bv) = (f64s(x), f64s(w), bias.map(f64s));
    let mut all = Vec::new();
    for n in 0..xs[0] {
        for o in 0..ws[0] {
            let first = o / (ws[0] / group) * ws[1];
            for i in 0..out[0] * out[1] {
                let mut sum = bv.as_ref().map_or(0.0, |b| b[o]);
                for c in 0..ws[1] {
                    for tap in 0..ws[2] * ws[3] {
                        let y = i / out[1] * window.strides[0] + tap / ws[3] * window.dilations[0];
                        let x = i % out[1] * window.strides[1] + tap % ws[3] * window.dilations[1];
                        let (Some(y), Some(x)) =
                            (y.checked_sub(window.pads[0]), x.checked_sub(window.pads[1]))
                        else {
                            continue;
                        };
                        if y < xs[2] && x < xs[3] {
                            sum += xv[((n * xs[1] + first + c) * xs[2] + y) * xs[3] + x]
                                * wv[(o * ws[1] + c) * ws[2] * ws[3] + tap];
                        }
                    }
                }
                all.push(sum);
            }
        }
    }
    all
}

#[test]
fn convolutions() {
    let cases = [
        ([2, 3, 9, 11], [4, 3, 3, 3], window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1]), 1),
        ([1, 5, 9, 11], [4, 5, 3, 3], window([3, 3], [2, 2], [1, 1, 1, 1], [1, 1]), 1),
        ([1, 5, 9, 12], [4, 5, 3, 3], window([3, 3], [2, 2], [0, 0, 1, 1], [1, 1]), 1),
        ([2, 6, 8, 8], [9, 2, 3, 3], window([3, 3], [1, 1], [2, 2, 2, 2], [2, 2]), 3),
        ([1, 6, 7, 5], [6, 1, 5, 3], window([5, 3], [3, 2], [4, 0, 1, 2], [1, 1]), 6),
        ([1, 40, 40, 41], [70, 40, 1, 1], window([1, 1], [1, 1], [0; 4], [1, 1]), 1),
        ([2, 4, 6, 6], [3, 4, 1, 1], window([1, 1], [2, 3], [1, 0, 0, 1], [1, 1]), 1),
        ([1, 3, 32, 32], [5, 3, 16, 16], window([16, 16], [16, 16], [0; 4], [1, 1]), 1),
        ([1, 2, 2, 1], [3, 2, 1, 3], window([1, 3], [1, 1], [0, 3, 0, 3], [1, 1]), 1),
        ([1, 16, 64, 64], [8, 16, 3, 3], window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1]), 1),
        // Wide enough for the transformed form in f16: odd extents, more than one block of channels.
        ([2, 70, 33, 35], [75, 70, 3, 3], window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1]), 1),
        ([1, 300, 32, 32], [64, 300, 3, 3], window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1]), 1),
    ];
    for (x, w, window, group) in cases {
        let (x, w, bias) = (noise(&x, 1), noise(&w, 2), noise(&[w[0]], 3));
        let op = Op::Conv { window: window.clone(), group };
        let shape = evaluate(&op, &[&x, &w], Precision::F32).unwrap().shape().to_vec();
        let scale = w.len() as f64 / w.shape()[0] as f64;
        for bias in [None, Some(&bias)] {
            let expected = naive_conv(&x, &w, bias, &window, group, [shape[2], shape[3]]);
            let inputs: Vec<&Tensor> = [&x, &w].into_iter().chain(bias).collect();
            check(&op, &inputs, &expected, scale.max(1.0));
        }
    }
}

#[test]
fn an_infinity_reaches_only_the_outputs_that_touch_it() {
    let mut values = noise(&[1, 64, 40, 40], 1).to_f32().unwrap().into_owned();
    values[7 * 1600 + 20 * 40 + 13] = f32::INFINITY;
    let (x, w) = (Tensor::from_f32([1, 64, 40, 40], values), noise(&[64, 64, 3, 3], 2));
    let conv = Op::Conv { window: window([3, 3], [1, 1], [1; 4], [1, 1]), group: 1 };
    let out = evaluate(&conv, &[&x, &w], Precision::F16).unwrap();
    for (i, value) in out.to_f32().unwrap().iter().enumerate() {
        let touched = (19..=21).contains(&(i / 40 % 40)) && (12..=14).contains(&(i % 40));
        assert!(value.is_finite() != touched, "element {i}: {value}");
    }
}

fn naive_matmul(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect()
}

#[test]
fn matrix_products() {
    let (a, b) = (noise(&[2, 1, 7, 33], 1), noise(&[3, 33, 9], 2));
    let mut expected = Vec::new();
    for i in 0..2 {
        for j in 0..3 {
            expected.extend(naive_matmul(
                &f64s(&a)[i * 231..][..231],
                &f64s(&b)[j * 297..][..297],
                [7, 33, 9],
            ));
        }
    }
    check(&Op::MatMul, &[&a, &b], &expected, 33.0);
    for (left, right, m, k, n) in [
        (vec![150, 300], vec![300, 1100], 150, 300, 1100),
        (vec![3, 50, 300], vec![300, 70], 150, 300, 70),
        (vec![300], vec![300, 70], 1, 300, 70),
        (vec![5, 300], vec![300], 5, 300, 1),
        (vec![300], vec![300], 1, 300, 1),
        (vec![4, 0], vec![0, 3], 4, 0, 3),
    ] {
        let (a, b) = (noise(&left, 3), noise(&right, 4));
        check(
            &Op::MatMul,
            &[&a, &b],
            &naive_matmul(&f64s(&a), &f64s(&b), [m, k, n]),
            k as f64 + 1.0,
        );
    }
}

#[test]
fn a_bias_is_added_before_the_rounding() {
    // 2048 + 1 + 1: two roundings would stop at 2048.
    let (a, b, bias) = (
        Tensor::from_f32([1, 2], vec![2048.0, 1.0]),
        Tensor::from_f32([2, 1], vec![1.0; 2]),
        Tensor::from_f32([1], vec![1.0]),
    );
    let product = |bias| evaluate_weighted(&Op::MatMul, &a, &b, bias, &[], Precision::F16);
    assert_eq!(f64s(&product(None).unwrap()), [2048.0]);
    assert_eq!(f64s(&product(Some(&bias)).unwrap()), [2050.0]);
    assert!(product(Some(&a)).is_err());
}

#[test]
fn pieces_of_the_depth_are_rounded_and_added() {
    let conv =
        |size| Op::Conv { window: window([size, size], [1, 1], [size / 2; 4], [1, 1]), group: 1 };
    let cases = [
        (Op::MatMul, noise(&[3, 50, 700], 1), noise(&[700, 40], 2), vec![300, 512]),
        (conv(1), noise(&[1, 90, 9, 9], 1), noise(&[20, 90, 1, 1], 2), vec![32]),
        (conv(3), noise(&[2, 90, 9, 9], 1), noise(&[20, 90, 3, 3], 2), vec![32, 64]),
        (conv(3), noise(&[2, 200, 33, 34], 1), noise(&[70, 200, 3, 3], 2), vec![64, 128]),
    ];
    for (op, x, weight, cuts) in cases {
        let columns = if op == Op::MatMul { weight.shape()[1] } else { weight.shape()[0] };
        let bias = noise(&[columns], 3);
        let found =
            evaluate_weighted(&op, &x, &weight, Some(&bias), &cuts, Precision::F16).unwrap();
        let (x_axis, weight_axis) = if op == Op::MatMul { (2, 0) } else { (1, 1) };
        let slice = |t: &Tensor, axis: usize, begin: usize, end: usize| {
            let (mut from, mut to) = (vec![0; t.shape().len()], t.shape().to_vec());
            (from[axis], to[axis]) = (begin, end);
            evaluate(
                &Op::Slice { step: vec![1; from.len()], begin: from, end: to },
                &[t],
                Precision::F16,
            )
            .unwrap()
        };
        let depth = x.shape()[x_axis];
        let mut expected: Option<Tensor> = None;
        for (begin, end) in
            [0].into_iter().chain(cuts.clone()).zip(cuts.iter().copied().chain([depth]))
        {
            let (x, weight) =
                (slice(&x, x_axis, begin, end), slice(&weight, weight_axis, begin, end));
            let piece = evaluate_weighted(
                &op,
                &x,
                &weight,
                (begin == 0).then_some(&bias),
                &[],
                Precision::F16,
            )
            .unwrap();
            expected = Some(match expected {
                None => piece,
                Some(sum) => {
                    evaluate(&Op::Binary(Binary::Add), &[&sum, &piece], Precision::F16).unwrap()
                }
            });
        }
        assert!(found == expected.unwrap(), "{op:?}");
        for bad in [vec![0], vec![depth], vec![40, 20], vec![20, 20]] {
            assert!(
                evaluate_weighted(&op, &x, &weight, None, &bad, Precision::F16).is_err(),
                "{op:?} {bad:?}"
            );
        }
    }
}

#[test]
fn sums_are_rounded_once() {
    // docs/rk3588.md 2.1: 0.1 in f16 times 1, summed over K.
    for (k, sum) in [(256, 25.59375), (4096, 409.5)] {
        let (a, b) =
            (Tensor::from_f32([1, k], vec![0.1; k]), Tensor::from_f32([k, 1], vec![1.0; k]));
        let out = evaluate(&Op::MatMul, &[&a, &b], Precision::F16).unwrap();
        assert_eq!((out.dtype(), f64s(&out)), (DType::F16, vec![sum]));
    }
}

#[test]
fn sums_beyond_65504_become_infinite() {
    let (a, b) = (
        Tensor::from_f32([1, 2], vec![255.0, 256.0]),
        Tensor::from_f32([2, 1], vec![255.0, 256.0]),
    );
    let product = |precision| f64s(&evaluate(&Op::MatMul, &[&a, &b], precision).unwrap());
    assert_eq!(product(Precision::F16), [f64::INFINITY]);
    assert_eq!(product(Precision::F32), [130561.0]);
}

#[test]
fn pools_and_resizes() {
    let x = Tensor::from_f32([1, 1, 3, 3], (1..=9).map(|v| v as f32).collect());
    let w = window([2, 2], [2, 2], [0, 0, 1, 1], [1, 1]);
    let pool = |kind| Op::Pool { kind, window: w.clone() };
    check(&pool(Pool::Max), &[&x], &[5.0, 6.0, 8.0, 9.0], 0.0);
    check(&pool(Pool::Average(false)), &[&x], &[3.0, 4.5, 7.5, 9.0], 0.0);
    check(&pool(Pool::Average(true)), &[&x], &[3.0, 2.25, 3.75, 2.25], 0.0);
    let x = Tensor::from_f32([1, 1, 2, 2], vec![0.0, 4.0, 8.0, 12.0]);
    let resize = |mode, size| Op::Resize { mode, size };
    check(
        &resize(Resize::Nearest, [4, 3]),
        &[&x],
        &[0.0, 0.0, 4.0, 0.0, 0.0, 4.0, 8.0, 8.0, 12.0, 8.0, 8.0, 12.0],
        0.0,
    );
    check(&resize(Resize::Linear, [2, 4]), &[&x], &[0.0, 1.0, 3.0, 4.0, 8.0, 9.0, 11.0, 12.0], 1.0);
}

#[test]
fn reductions() {
    let x = noise(&[3, 4, 50], 1);
    let v = f64s(&x);
    let group = |i: usize| (0..3).flat_map(move |a| (0..50).map(move |c| (a * 4 + i) * 50 + c));
    for (kind, f) in [
        (Reduce::Sum, (|p| p.iter().sum()) as fn(&[f64]) -> f64),
        (Reduce::Mean, |p| p.iter().sum::<f64>() / p.len() as f64),
        (Reduce::Max, |p| p.iter().copied().fold(f64::MIN, f64::max)),
        (Reduce::Min, |p| p.iter().copied().fold(f64::MAX, f64::min)),
        (Reduce::Prod, |p| p.iter().product()),
    ] {
        let expected: Vec<f64> =
            (0..4).map(|i| f(&group(i).map(|j| v[j]).collect::<Vec<_>>())).collect();
        check(&Op::Reduce { kind, axes: vec![0, 2], keep: true }, &[&x], &expected, 1.0);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with = |threads: usize, op: &Op, inputs: &[&Tensor], precision| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| evaluate(op, inputs, precision).unwrap())
    };
    let conv = Op::Conv { window: window([3, 3], [1, 1], [1; 4], [1, 1]), group: 1 };
    let n = noise;
    let cases: Vec<(Op, Vec<Tensor>)> = vec![
        (conv.clone(), vec![n(&[1, 33, 40, 40], 1), n(&[70, 33, 3, 3], 2), n(&[70], 3)]),
        (conv, vec![n(&[1, 64, 40, 40], 1), n(&[70, 64, 3, 3], 2), n(&[70], 3)]),
        (Op::MatMul, vec![n(&[3, 130, 700], 1), n(&[700, 520], 2)]),
        (
            Op::Attention { scale: 0.2 },
            vec![n(&[3, 200, 24], 1), n(&[3, 24, 300], 2), n(&[3, 300, 24], 3)],
        ),
        (Op::Softmax { axis: 1 }, vec![n(&[9, 200, 30], 1)]),
        (
            Op::GroupNorm { groups: 8, epsilon: 1e-6 },
            vec![n(&[2, 32, 30, 30], 1), n(&[32], 2), n(&[32], 3)],
        ),
        (Op::Gelu { tanh: false }, vec![n(&[300, 300], 1)]),
    ];
    for (op, inputs) in cases {
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        for precision in [Precision::F32, Precision::F16] {
            let one = with(1, &op, &inputs, precision);
            assert!(
                [2, 3].iter().all(|&t| with(t, &op, &inputs, precision).bytes() == one.bytes()),
                "{op:?}"
            );
        }
    }
}
