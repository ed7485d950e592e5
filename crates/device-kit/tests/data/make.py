"""Writes shard.onnx and integers.onnx, which every device must run as crates/device/src/conformance says.

Run with Python 3, onnx and numpy: `python make.py`.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h

HERE = Path(__file__).parent
rng = np.random.default_rng(5)


def write(name, nodes, inputs, outputs, weights):
    values = [[h.make_tensor_value_info(n, t, s) for n, t, s in side] for side in (inputs, outputs)]
    initializers = [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()]
    model = h.make_model(h.make_graph(nodes, name, *values, initializers), opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, HERE / f"{name}.onnx")


# The outputs are not in the order of the nodes.
write(
    "shard",
    [
        h.make_node("Conv", ["image", "weight", "bias"], ["conv"], kernel_shape=[1, 1]),
        h.make_node("Add", ["conv", "residual"], ["sum"]),
        h.make_node("Mul", ["tokens", "factor"], ["scaled"]),
    ],
    [("image", T.FLOAT, [1, 8, 6, 4]), ("residual", T.FLOAT, [1, 8, 6, 4]), ("tokens", T.FLOAT, [1, 5, 8])],
    [("scaled", T.FLOAT, [1, 5, 8]), ("sum", T.FLOAT, [1, 8, 6, 4])],
    {
        "weight": rng.standard_normal((8, 8, 1, 1)).astype(np.float32) * np.float32(0.3),
        "bias": rng.standard_normal(8).astype(np.float32),
        "factor": rng.standard_normal(8).astype(np.float32) + np.float32(2),
    },
)
write(
    "integers",
    [h.make_node("Gather", ["table", "ids"], ["rows"], axis=0)],
    [("ids", T.INT64, [1, 5])],
    [("rows", T.FLOAT, [1, 5, 8])],
    {"table": rng.standard_normal((10, 8)).astype(np.float32)},
)
