//! Speed of the heavy kernels on this machine: `cargo run --release -p rockshard-kernels --example speed [-- WORDS]`
//! runs the lines with all these words.
#![allow(clippy::print_stdout)]

use rockshard_graph::{Op, Window};
use rockshard_kernels::{Precision, evaluate};
use rockshard_tensor::{DType, Tensor};
use std::time::Instant;

fn noise(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_f32(
        shape.to_vec(),
        (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect(),
    )
}

fn main() {
    let conv = |k: usize| Op::Conv {
        window: Window { kernel: [k, k], strides: [1, 1], pads: [k / 2; 4], dilations: [1, 1] },
        group: 1,
    };
    let cases = [
        (
            "MatMul 1024x640x2560",
            Op::MatMul,
            vec![noise(&[1024, 640]), noise(&[640, 2560])],
            2.0 * 1024.0 * 640.0 * 2560.0,
        ),
        (
            "MatMul 4096x320x2560",
            Op::MatMul,
            vec![noise(&[4096, 320]), noise(&[320, 2560])],
            2.0 * 4096.0 * 320.0 * 2560.0,
        ),
        (
            "MatMul 256x1280x1280",
            Op::MatMul,
            vec![noise(&[256, 1280]), noise(&[1280, 1280])],
            2.0 * 256.0 * 1280.0 * 1280.0,
        ),
        (
            "MatMul 77x768x3072",
            Op::MatMul,
            vec![noise(&[77, 768]), noise(&[768, 3072])],
            2.0 * 77.0 * 768.0 * 3072.0,
        ),
        (
            "Conv 1x1 320->320 at 64x64",
            conv(1),
            vec![noise(&[1, 320, 64, 64]), noise(&[320, 320, 1, 1])],
            2.0 * 320.0 * 320.0 * 4096.0,
        ),
        (
            "Conv 3x3 320->320 at 64x64",
            conv(3),
            vec![noise(&[1, 320, 64, 64]), noise(&[320, 320, 3, 3])],
            18.0 * 320.0 * 320.0 * 4096.0,
        ),
        (
            "Conv 3x3 1280->640 at 32x32",
            conv(3),
            vec![noise(&[1, 1280, 32, 32]), noise(&[640, 1280, 3, 3])],
            18.0 * 1280.0 * 640.0 * 1024.0,
        ),
        (
            "Conv 3x3 1280->1280 at 16x16",
            conv(3),
            vec![noise(&[1, 1280, 16, 16]), noise(&[1280, 1280, 3, 3])],
            18.0 * 1280.0 * 1280.0 * 256.0,
        ),
        (
            "Conv 3x3 1280->1280 at 8x8",
            conv(3),
            vec![noise(&[1, 1280, 8, 8]), noise(&[1280, 1280, 3, 3])],
            18.0 * 1280.0 * 1280.0 * 64.0,
        ),
        (
            "Conv 3x3 128->128 at 256x256",
            conv(3),
            vec![noise(&[1, 128, 256, 256]), noise(&[128, 128, 3, 3])],
            18.0 * 128.0 * 128.0 * 65536.0,
        ),
        (
            "Attention 8 heads, 4096 tokens, d 40",
            Op::Attention { scale: 0.158 },
            vec![noise(&[8, 4096, 40]), noise(&[8, 40, 4096]), noise(&[8, 4096, 40])],
            4.0 * 8.0 * 4096.0 * 4096.0 * 40.0,
        ),
        (
            "Attention 12 heads, 1024 tokens, d 64",
            Op::Attention { scale: 0.125 },
            vec![noise(&[12, 1024, 64]), noise(&[12, 64, 1024]), noise(&[12, 1024, 64])],
            4.0 * 12.0 * 1024.0 * 1024.0 * 64.0,
        ),
        (
            "GroupNorm 320x64x64",
            Op::GroupNorm { groups: 32, epsilon: 1e-5 },
            vec![noise(&[1, 320, 64, 64]), noise(&[320]), noise(&[320])],
            0.0,
        ),
        (
            "LayerNorm 4096x320",
            Op::LayerNorm { axis: 1, epsilon: 1e-5 },
            vec![noise(&[4096, 320]), noise(&[320]), noise(&[320])],
            0.0,
        ),
        ("Swish 320x64x64", Op::Swish { beta: 1.0 }, vec![noise(&[320, 4096])], 0.0),
        ("Gelu 4096x1280", Op::Gelu { tanh: false }, vec![noise(&[4096, 1280])], 0.0),
        (
            "Add 320x64x64",
            Op::Binary(rockshard_graph::Binary::Add),
            vec![noise(&[320, 4096]), noise(&[320, 4096])],
            0.0,
        ),
        ("Transpose 4096x320", Op::Transpose { perm: vec![1, 0] }, vec![noise(&[4096, 320])], 0.0),
    ];
    let words: Vec<String> = std::env::args().skip(1).collect();
    for (name, op, inputs, work) in cases {
        let narrow: Vec<Tensor> =
            inputs.iter().map(|t| t.to_float(DType::F16).expect("floats")).collect();
        for (precision, inputs) in [(Precision::F32, &inputs), (Precision::F16, &narrow)] {
            let line = format!("{name:38} {precision:?}");
            if !words.iter().all(|word| line.contains(word)) {
                continue;
            }
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            let mut times: Vec<f64> = (0..25)
                .map(|_| {
                    let start = Instant::now();
                    evaluate(&op, &inputs, precision).expect("valid inputs");
                    start.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let rate = if work > 0.0 {
                format!("{:6.1} GFLOP/s", work / times[0] * 1e-9)
            } else {
                String::new()
            };
            println!(
                "{line} {:9.3} ms best {:9.3} ms median {rate}",
                times[0] * 1e3,
                times[12] * 1e3
            );
        }
    }
}
