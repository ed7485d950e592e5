//! Operators with exact results: integers, movement, element-wise functions, and what is refused.

use half::f16;
use proptest::prelude::*;
use rockshard_graph::{Binary, Op, Reduce, Unary};
use rockshard_kernels::{KernelError, Precision, evaluate};
use rockshard_tensor::{DType, Tensor};

fn run(op: Op, inputs: &[&Tensor]) -> Tensor {
    evaluate(&op, inputs, Precision::F32).unwrap()
}

fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64(shape, values.to_vec())
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_f32([values.len()], values.to_vec())
}

#[test]
fn integer_arithmetic_keeps_the_type() {
    use Binary::*;
    let (a, b) = (ints(&[4], &[7, -7, 7, -7]), ints(&[4], &[3, 3, -3, -3]));
    for (op, expected) in [
        (Add, [10, -4, 4, -10]),
        (Sub, [4, -10, 10, -4]),
        (Mul, [21, -21, -21, 21]),
        (Div, [2, -2, -2, 2]),
        (Mod, [1, 2, -2, -1]),
        (Min, [3, -7, -3, -7]),
        (Max, [7, 3, 7, -3]),
    ] {
        assert_eq!(run(Op::Binary(op), &[&a, &b]), ints(&[4], &expected), "{op:?}");
        let narrow = |t: &Tensor| {
            Tensor::from_i32([4], t.to_i64().unwrap().iter().map(|&v| v as i32).collect())
        };
        let expected: Vec<i32> = expected.iter().map(|&v| v as i32).collect();
        assert_eq!(
            run(Op::Binary(op), &[&narrow(&a), &narrow(&b)]),
            Tensor::from_i32([4], expected),
            "{op:?}"
        );
    }
    for (op, expected) in [
        (Equal, [false, false, false, false]),
        (Less, [false, true, false, true]),
        (LessOrEqual, [false, true, false, true]),
        (Greater, [true, false, true, false]),
        (GreaterOrEqual, [true, false, true, false]),
    ] {
        assert_eq!(
            run(Op::Binary(op), &[&a, &b]),
            Tensor::from_bool([4], expected.to_vec()),
            "{op:?}"
        );
        let real = |t: &Tensor| run(Op::Cast(DType::F32), &[t]);
        assert_eq!(
            run(Op::Binary(op), &[&real(&a), &real(&b)]),
            Tensor::from_bool([4], expected.to_vec()),
            "{op:?}"
        );
    }
    assert_eq!(run(Op::Binary(Pow), &[&a, &ints(&[1], &[2])]), ints(&[4], &[49; 4]));
    assert_eq!(run(Op::Binary(Pow), &[&floats(&[1.5]), &ints(&[1], &[2])]), floats(&[2.25]));
    assert_eq!(run(Op::Unary(Unary::Neg), &[&a]), ints(&[4], &[-7, 7, -7, 7]));
    assert_eq!(run(Op::Unary(Unary::Abs), &[&a]), ints(&[4], &[7; 4]));
    assert_eq!(run(Op::Clip { min: -1.0, max: 2.5 }, &[&a]), ints(&[4], &[2, -1, 2, -1]));
    let flags = Tensor::from_bool([2], vec![true, false]);
    assert_eq!(run(Op::Unary(Unary::Not), &[&flags]), Tensor::from_bool([2], vec![false, true]));
    let column = Tensor::from_bool([2, 1], vec![true, false]);
    assert_eq!(
        run(Op::Binary(And), &[&flags, &column]),
        Tensor::from_bool([2, 2], vec![true, false, false, false])
    );
    assert_eq!(
        run(Op::Binary(Or), &[&flags, &column]),
        Tensor::from_bool([2, 2], vec![true, true, true, false])
    );
}

/// Steps of float32 arithmetic, each rounded to float16.
fn stepwise(start: f32, steps: &[&dyn Fn(f32) -> f32]) -> f32 {
    steps.iter().fold(start, |v, step| f16::from_f32(step(v)).to_f32())
}

#[test]
fn operators_that_the_npu_runs_as_several_round_in_between() {
    let values = [-3.1f32, -0.7, -0.02, 0.3, 1.1, 2.9].map(|v| f16::from_f32(v).to_f32());
    let gelu = evaluate(&Op::Gelu { tanh: true }, &[&floats(&values)], Precision::F16).unwrap();
    for (&x, &found) in values.iter().zip(&*gelu.to_f32().unwrap()) {
        let [cubic, factor] = [0.044_715, 0.797_884_6].map(|v| f16::from_f32(v).to_f32());
        let expected = stepwise(
            x,
            &[
                &|v| v * v * v,
                &|v| v * cubic,
                &|v| v + x,
                &|v| v * factor,
                &|v| v.tanh(),
                &|v| v + 1.0,
                &|v| v * x,
                &|v| v * 0.5,
            ],
        );
        assert_eq!(found, expected, "{x}");
    }
    // Two channels of two values, which become -1 and 1 (nearly, with this epsilon).
    let (x, gamma, beta, epsilon) =
        ([1.0f32, 5.0, -2.0, 4.0], [1.2345f32, 0.777], [0.1234f32, -0.4321], 0.3);
    let normal = |channel: usize, i: usize| {
        let (a, b) = (x[2 * channel], x[2 * channel + 1]);
        let half = (b - a) / 2.0;
        f16::from_f32(if i == 0 { -half } else { half } / (half * half + epsilon).sqrt()).to_f32()
    };
    let narrow = |v: f32| f16::from_f32(v).to_f32();
    let inputs = |shape: &[usize]| {
        [Tensor::from_f32(shape.to_vec(), x.to_vec()), floats(&gamma), floats(&beta)]
    };
    for (op, shape, once) in [
        (Op::GroupNorm { groups: 2, epsilon }, vec![1, 2, 1, 2], true),
        (Op::GroupNorm { groups: 2, epsilon }, vec![1, 2, 2], false),
        (Op::InstanceNorm { epsilon }, vec![1, 2, 1, 2], false),
    ] {
        let inputs = inputs(&shape);
        let found = evaluate(&op, &inputs.each_ref(), Precision::F16).unwrap();
        for (i, &found) in found.to_f32().unwrap().iter().enumerate() {
            let (channel, n) = (i / 2, normal(i / 2, i % 2));
            let expected = match once {
                true => narrow(n * gamma[channel] + beta[channel]),
                false => narrow(narrow(n * narrow(gamma[channel])) + narrow(beta[channel])),
            };
            assert_eq!(found, expected, "{op:?} {shape:?} {i}");
        }
    }
}

#[test]
fn integer_reductions_selections_and_casts() {
    let x = ints(&[2, 3], &[1, 5, 5, -2, -9, 4]);
    let reduce =
        |kind, axes: &[usize], keep| run(Op::Reduce { kind, axes: axes.to_vec(), keep }, &[&x]);
    assert_eq!(reduce(Reduce::Sum, &[1], false), ints(&[2], &[11, -7]));
    assert_eq!(reduce(Reduce::Prod, &[0], true), ints(&[1, 3], &[-2, -45, 20]));
    assert_eq!(reduce(Reduce::Max, &[0, 1], false), ints(&[], &[5]));
    assert_eq!(reduce(Reduce::Min, &[0, 1], false), ints(&[], &[-9]));
    assert_eq!(reduce(Reduce::Mean, &[1], false), ints(&[2], &[3, -2]));
    assert_eq!(run(Op::ArgMax { axis: 1, keep: false }, &[&x]), ints(&[2], &[1, 2]));
    assert_eq!(
        run(Op::ArgMax { axis: 0, keep: true }, &[&run(Op::Cast(DType::F32), &[&x])]),
        ints(&[1, 3], &[0, 0, 0])
    );
    assert_eq!(
        run(Op::Gather { axis: 1 }, &[&x, &ints(&[2], &[-1, 0])]),
        ints(&[2, 2], &[5, 1, 4, -2])
    );
    assert_eq!(run(Op::Gather { axis: 0 }, &[&x, &ints(&[], &[1])]), ints(&[3], &[-2, -9, 4]));
    let pad = Op::Pad { before: vec![1, 0], after: vec![0, 1], value: 9.0 };
    assert_eq!(run(pad, &[&x]), ints(&[3, 4], &[9, 9, 9, 9, 1, 5, 5, 9, -2, -9, 4, 9]));
    let condition = Tensor::from_bool([3], vec![true, false, true]);
    assert_eq!(
        run(Op::Where, &[&condition, &x, &ints(&[1], &[0])]),
        ints(&[2, 3], &[1, 0, 5, -2, 0, 4])
    );
    let real = floats(&[2.9, -2.9, f32::NAN, 1e20]);
    assert_eq!(run(Op::Cast(DType::I64), &[&real]), ints(&[4], &[2, -2, 0, i64::MAX]));
    assert_eq!(
        run(Op::Cast(DType::I32), &[&real]),
        Tensor::from_i32([4], vec![2, -2, 0, i32::MAX])
    );
    assert_eq!(
        run(Op::Cast(DType::Bool), &[&floats(&[0.0, -0.5])]),
        Tensor::from_bool([2], vec![false, true])
    );
}

#[test]
fn casts_to_real_numbers_follow_the_precision() {
    let x = ints(&[2], &[2049, 70000]);
    assert_eq!(run(Op::Cast(DType::F32), &[&x]), floats(&[2049.0, 70000.0]));
    let npu = evaluate(&Op::Cast(DType::F32), &[&x], Precision::F16).unwrap();
    assert_eq!((npu.dtype(), &*npu.to_f32().unwrap()), (DType::F16, &[2048.0, f32::INFINITY][..]));
}

#[test]
fn elementwise_functions_in_both_precisions() {
    use Unary::*;
    let values = [-8.0f32, -1.5, -0.25, -0.0, 0.0, 0.125, 1.0, 3.5, 60.0];
    let erf = |x: f64| libm::erf(x);
    type Exact = fn(f64) -> f64;
    let cases: [(Op, Exact); 14] = [
        (Op::Unary(Neg), |x| -x),
        (Op::Unary(Abs), f64::abs),
        (Op::Unary(Exp), f64::exp),
        (Op::Unary(Sin), f64::sin),
        (Op::Unary(Cos), f64::cos),
        (Op::Unary(Tanh), f64::tanh),
        (Op::Unary(Sigmoid), |x| 1.0 / (1.0 + (-x).exp())),
        (Op::Unary(Relu), |x| x.max(0.0)),
        (Op::Unary(LeakyRelu(0.25)), |x| if x < 0.0 { 0.25 * x } else { x }),
        (Op::Unary(Floor), f64::floor),
        (Op::Unary(Erf), |x| libm::erf(x)),
        (Op::Swish { beta: 1.0 }, |x| x / (1.0 + (-x).exp())),
        (Op::Gelu { tanh: false }, |x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))),
        (Op::Gelu { tanh: true }, |x| {
            0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh())
        }),
    ];
    assert!((erf(0.5) - 0.520_499_877_8).abs() < 1e-9);
    for (op, f) in cases {
        let wide = run(op.clone(), &[&floats(&values)]);
        let narrow = evaluate(&op, &[&floats(&values)], Precision::F16).unwrap();
        for (i, (&x, &found)) in values.iter().zip(&*wide.to_f32().unwrap()).enumerate() {
            let exact = f(x.into());
            assert!(
                (f64::from(found) - exact).abs() <= exact.abs() * 1e-6 + 1e-7,
                "{op:?}({x}): {found}, exact {exact}"
            );
            // The f16 result is the rounded f32 one: nothing in between is rounded, but in the tanh form of GELU.
            if op == (Op::Gelu { tanh: true }) {
                continue;
            }
            assert_eq!(
                narrow.to_f32().unwrap()[i].to_bits(),
                f16::from_f32(found).to_f32().to_bits(),
                "{op:?}({x})"
            );
        }
    }
    let positive = floats(&[0.25, 4.0]);
    assert_eq!(run(Op::Unary(Sqrt), &[&positive]), floats(&[0.5, 2.0]));
    assert_eq!(run(Op::Unary(Reciprocal), &[&positive]), floats(&[4.0, 0.25]));
    assert_eq!(run(Op::Unary(Log), &[&floats(&[1.0])]), floats(&[0.0]));
    assert_eq!(
        run(Op::Clip { min: -1.0, max: 2.0 }, &[&floats(&[-3.0, 0.5, 7.0])]),
        floats(&[-1.0, 0.5, 2.0])
    );
}

#[test]
fn not_a_number_survives() {
    let x = floats(&[f32::NAN, 1.0]);
    for op in [
        Op::Unary(Unary::Relu),
        Op::Clip { min: 0.0, max: 1.0 },
        Op::Swish { beta: 1.0 },
        Op::Reduce { kind: Reduce::Max, axes: vec![0], keep: true },
        Op::Softmax { axis: 0 },
    ] {
        assert!(run(op.clone(), &[&x]).to_f32().unwrap()[0].is_nan(), "{op:?}");
    }
    for op in [Binary::Min, Binary::Max] {
        assert!(run(Op::Binary(op), &[&x, &floats(&[0.0])]).to_f32().unwrap()[0].is_nan());
        assert!(run(Op::Binary(op), &[&floats(&[0.0, 0.0]), &x]).to_f32().unwrap()[0].is_nan());
    }
}

#[test]
fn two_operators_round_twice() {
    let (a, b) = (floats(&[2048.0]), floats(&[1.0]));
    let add =
        |x: &Tensor, precision| evaluate(&Op::Binary(Binary::Add), &[x, &b], precision).unwrap();
    assert_eq!(&*add(&add(&a, Precision::F16), Precision::F16).to_f32().unwrap(), &[2048.0]);
    assert_eq!(&*add(&add(&a, Precision::F32), Precision::F32).to_f32().unwrap(), &[2050.0]);
    let square =
        evaluate(&Op::Binary(Binary::Mul), &[&floats(&[256.0]), &floats(&[256.0])], Precision::F16)
            .unwrap();
    assert_eq!(&*square.to_f32().unwrap(), &[f32::INFINITY]);
}

#[test]
fn movement_keeps_every_bit_of_every_type() {
    let payload = Tensor::from_f32([2, 2], vec![f32::from_bits(0x7fc1_2345), -0.0, 1e-42, 1e30]);
    let half = Tensor::from_f16(
        [2, 2],
        vec![f16::from_bits(0x7e55), f16::from_bits(0x8001), f16::ONE, f16::INFINITY],
    );
    for x in [
        payload,
        half,
        Tensor::from_bool([2, 2], vec![true, false, false, true]),
        ints(&[2, 2], &[i64::MIN, 1, 2, 3]),
    ] {
        for precision in [Precision::F32, Precision::F16] {
            let run = |op: Op, x: &Tensor| evaluate(&op, &[x], precision).unwrap();
            let turn = Op::Transpose { perm: vec![1, 0] };
            let back = run(turn.clone(), &run(turn, &x));
            assert_eq!((back.dtype(), back.bytes()), (x.dtype(), x.bytes()));
            let wide = run(Op::Expand { shape: vec![3, 2, 2] }, &x);
            let part = run(
                Op::Slice { begin: vec![2, 0, 0], end: vec![3, 2, 2], step: vec![1; 3] },
                &wide,
            );
            assert_eq!(run(Op::Reshape { shape: vec![2, 2] }, &part).bytes(), x.bytes());
        }
    }
}

#[test]
fn mixed_storage_is_joined_in_the_precision() {
    let (a, b) = (floats(&[1.0 / 3.0]), Tensor::from_f16([1], vec![f16::ONE]));
    for precision in [Precision::F32, Precision::F16] {
        assert_eq!(
            evaluate(&Op::Concat { axis: 0 }, &[&a, &b], precision).unwrap().dtype(),
            precision.dtype()
        );
        let pick = Tensor::from_bool([1], vec![false]);
        assert_eq!(
            evaluate(&Op::Where, &[&pick, &a, &b], precision).unwrap(),
            b.to_float(precision.dtype()).unwrap()
        );
    }
}

#[test]
fn empty_tensors_run() {
    let x = Tensor::from_f32([0, 4], vec![]);
    for op in [
        Op::Unary(Unary::Exp),
        Op::Softmax { axis: 1 },
        Op::Softmax { axis: 0 },
        Op::Transpose { perm: vec![1, 0] },
        Op::Reduce { kind: Reduce::Sum, axes: vec![0], keep: true },
        Op::ArgMax { axis: 1, keep: true },
        Op::Pad { before: vec![1, 0], after: vec![0, 0], value: 1.0 },
    ] {
        for precision in [Precision::F32, Precision::F16] {
            assert!(evaluate(&op, &[&x], precision).is_ok(), "{op:?}");
        }
    }
    let (gamma, beta) = (floats(&[1.0; 4]), floats(&[0.0; 4]));
    assert!(run(Op::LayerNorm { axis: 1, epsilon: 0.1 }, &[&x, &gamma, &beta]).is_empty());
    assert!(run(Op::GroupNorm { groups: 2, epsilon: 0.1 }, &[&x, &gamma, &beta]).is_empty());
    assert!(run(Op::MatMul, &[&x, &Tensor::from_f32([4, 3], vec![0.0; 12])]).is_empty());
}

#[test]
fn bad_inputs_are_errors_that_name_the_place() {
    let (x, flag, i) =
        (floats(&[1.0, 2.0]), Tensor::from_bool([2], vec![true, false]), ints(&[2], &[1, 0]));
    let (minus_one, minus_three) = (ints(&[1], &[-1]), ints(&[1], &[-3]));
    let cases: [(Op, Vec<&Tensor>, &str); 11] = [
        (Op::MatMul, vec![&x], "MatMul: takes 2..=2 inputs, got 1"),
        (Op::Unary(Unary::Exp), vec![&i], "Exp: input 0 holds int64, expected real numbers"),
        (Op::Unary(Unary::Not), vec![&x], "Not: input 0 holds float32, expected bool"),
        (Op::Binary(Binary::Add), vec![&x, &i], "Add: input 1 holds int64, expected real numbers"),
        (Op::Binary(Binary::Div), vec![&i, &i], "Div: division of an integer by zero"),
        (Op::Binary(Binary::Pow), vec![&i, &minus_one], "Pow: a negative power of an integer"),
        (
            Op::Gather { axis: 0 },
            vec![&x, &minus_three],
            "Gather: index -3 of an axis with 2 entries",
        ),
        (Op::Where, vec![&x, &x, &x], "Where: input 0 holds float32, expected bool"),
        (
            Op::Where,
            vec![&flag, &i, &x],
            "Where: input 2 holds float32, expected the type of the others",
        ),
        (
            Op::Concat { axis: 0 },
            vec![&x, &i],
            "Concat: input 1 holds int64, expected real numbers, as the others",
        ),
        (
            Op::Expand { shape: vec![1 << 40, 2] },
            vec![&x],
            "Expand: an output of shape [1099511627776, 2] has more than 2^31 elements",
        ),
    ];
    for (op, inputs, message) in cases {
        let error: KernelError = evaluate(&op, &inputs, Precision::F32).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

fn shaped() -> impl Strategy<Value = Tensor> {
    prop::collection::vec(1usize..5, 1..5).prop_map(|shape| {
        let count: usize = shape.iter().product();
        Tensor::from_i32(shape, (0..count as i32).collect())
    })
}

proptest! {
    #[test]
    fn a_transpose_is_undone_by_its_inverse(x in shaped(), seed in any::<u64>()) {
        let mut perm: Vec<usize> = (0..x.shape().len()).collect();
        perm.sort_by_key(|&i| seed.rotate_left(7 * i as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let inverse = (0..perm.len()).map(|i| perm.iter().position(|&p| p == i).unwrap()).collect();
        let turned = run(Op::Transpose { perm }, &[&x]);
        prop_assert_eq!(run(Op::Transpose { perm: inverse }, &[&turned]), x);
    }

    #[test]
    fn slices_joined_again_are_the_whole(x in shaped(), axis in 0usize..4, cut in 0usize..5) {
        let axis = axis % x.shape().len();
        let cut = cut.min(x.shape()[axis]);
        let part = |from: usize, to: usize| {
            let (mut begin, mut end) = (vec![0; x.shape().len()], x.shape().to_vec());
            (begin[axis], end[axis]) = (from, to);
            run(Op::Slice { begin, end, step: vec![1; x.shape().len()] }, &[&x])
        };
        prop_assert_eq!(&run(Op::Concat { axis }, &[&part(0, cut), &part(cut, x.shape()[axis])]), &x);
    }

    #[test]
    fn a_pad_is_undone_by_a_slice(x in shaped(), border in 0usize..3) {
        let before = vec![border; x.shape().len()];
        let padded = run(Op::Pad { before: before.clone(), after: vec![1; before.len()], value: 7.0 }, &[&x]);
        let end = x.shape().iter().map(|d| d + border).collect();
        prop_assert_eq!(run(Op::Slice { begin: before.clone(), end, step: vec![1; before.len()] }, &[&padded]), x);
    }

    #[test]
    fn broadcasting_is_expanding_first(x in shaped(), mask in any::<u8>(), drop in 0usize..4) {
        // The other operand: x's shape with some axes 1 and some leading axes left out.
        let drop = drop.min(x.shape().len());
        let other: Vec<usize> = x.shape().iter().enumerate().skip(drop).map(|(i, &d)| if mask >> i & 1 == 1 { 1 } else { d }).collect();
        let count: usize = other.iter().product();
        let y = Tensor::from_i32(other, (0..count as i32).map(|v| v * 1000).collect());
        let full = run(Op::Expand { shape: x.shape().to_vec() }, &[&y]);
        let sub = || Op::Binary(Binary::Sub);
        prop_assert_eq!(run(sub(), &[&x, &y]), run(sub(), &[&x, &full]));
        let real = |t: &Tensor| run(Op::Cast(DType::F32), &[t]);
        let direct = run(sub(), &[&real(&y), &real(&x)]);
        prop_assert_eq!(run(Op::Cast(DType::I32), &[&direct]), run(sub(), &[&full, &x]));
    }

    #[test]
    fn steps_take_every_nth(x in shaped(), step in 1usize..4) {
        let axis = x.shape().len() - 1;
        let mut steps = vec![1; x.shape().len()];
        steps[axis] = step;
        let taken = run(Op::Slice { begin: vec![0; steps.len()], end: x.shape().to_vec(), step: steps }, &[&x]);
        let chosen: Vec<i64> = (0..x.shape()[axis] as i64).step_by(step).collect();
        prop_assert_eq!(taken, run(Op::Gather { axis }, &[&x, &ints(&[chosen.len()], &chosen)]));
    }
}
