#!/usr/bin/env python3
"""Record what Rockchip's simulator gives for small models, for crates/device-sim/tests/recorded.rs.

    TOOLKIT/bin/python tools/record_simulator.py crates/device-sim/tests/data

Writes NAME.onnx, NAME.x0.npy, ..., NAME.y.npy for each case. Needs what tools/compare_simulators.py needs.
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
from compare_simulators import vendor
from operator_models import Builder


def gelu_tanh(b, x):
    cube = b.node("Mul", b.node("Pow", x, b.scalar(3)), b.scalar(0.044715))
    gate = b.node("Tanh", b.node("Mul", b.node("Add", x, cube), b.scalar((2 / np.pi) ** 0.5)))
    return b.node("Mul", b.node("Mul", x, b.node("Add", gate, b.scalar(1))), b.scalar(0.5))


def tokens(b):
    x = b.node("Reshape", b.input(1, 64, 8, 8, scale=2), b.constant(np.array([1, 64, 64])))
    y = b.node("Transpose", b.group_norm(x, (1, 64, 64), 8), perm=[0, 2, 1])
    return b.node("Mul", b.linear(y, 64, 16), b.linear(y, 64, 16))


SHAPE = (1, 16, 8, 8)
CASES = {
    "sum-whole": lambda b: b.linear(b.input(1, 16, 1536), 1536, 4),
    "sum-halves": lambda b: b.linear(b.input(1, 16, 1568), 1568, 4),
    "sum-three": lambda b: b.linear(b.input(1, 16, 3200), 3200, 4),
    "conv-rest": lambda b: b.conv(b.input(1, 176, 4, 4), 176, 4, 3),
    "conv-halves": lambda b: b.conv(b.input(1, 192, 4, 4), 192, 4, 3),
    "conv-residual": lambda b: b.node("Add", b.conv(b.input(*SHAPE), 16, 16, 3), b.input(*SHAPE)),
    "conv-product": lambda b: b.node("Mul", b.conv(b.input(*SHAPE), 16, 16), b.input(*SHAPE)),
    "conv-swish": lambda b: b.swish(b.conv(b.input(*SHAPE), 16, 16, 3)),
    "conv-gelu": lambda b: b.gelu(b.conv(b.input(*SHAPE), 16, 16)),
    "conv-folded": lambda b: b.node("Sub", b.node("Mul", b.conv(b.input(*SHAPE), 16, 16), b.scalar(0.37)), b.scalar(0.11)),
    "conv-scaled": lambda b: b.conv(b.node("Div", b.input(*SHAPE), b.scalar(3)), 16, 16, 3),
    "layer-norm": lambda b: b.layer_norm(b.input(1, 32, 64, scale=2), 64),
    "group-norm": lambda b: b.group_norm(b.input(*SHAPE, scale=2), SHAPE, 8),
    "group-norm-conv": lambda b: b.conv(b.group_norm(b.input(*SHAPE, scale=2), SHAPE, 8), 16, 16),
    "group-norm-tokens": tokens,
    "instance-norm": lambda b: b.node("InstanceNormalization", b.input(*SHAPE), b.weight(16), b.weight(16), epsilon=1e-5),
    "attention": lambda b: b.attention(4, 32, 48, 16),
    "gelu": lambda b: b.gelu(b.input(1, 32, 64, scale=2)),
    "gelu-tanh": lambda b: gelu_tanh(b, b.linear(b.input(1, 32, 64), 64, 64)),
    "division": lambda b: b.node("Div", b.input(*SHAPE), b.scalar(3)),
    "sigmoid": lambda b: b.node("Sigmoid", b.input(*SHAPE, scale=3)),
}


def main():
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, build) in enumerate(CASES.items()):
        builder = Builder(seed)
        model, inputs = builder.model(build(builder))
        path = out / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        for i, array in enumerate(inputs):
            np.save(out / f"{name}.x{i}.npy", array.astype(np.float16))
        with tempfile.TemporaryDirectory() as folder:
            (found,) = vendor(path, inputs, Path(folder))
        np.save(out / f"{name}.y.npy", found.astype(np.float16))


if __name__ == "__main__":
    main()
