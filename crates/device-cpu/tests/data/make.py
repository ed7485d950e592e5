"""Writes ops.onnx, ops.onnx_data and the npy files beside them.

Run with Python 3, onnx, onnxruntime and numpy: `python make.py`. The expected outputs are ONNX Runtime's.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h

HERE = Path(__file__).parent
rng = np.random.default_rng(7)
blob = bytearray()


def weight(name, array):
    """An initializer: integers inside the graph (ONNX Runtime's shape inference reads no external ones), others in
    ops.onnx_data with an explicit offset and length."""
    if array.dtype == np.int64 or array.size < 5:
        return onnx.numpy_helper.from_array(array, name)
    raw = np.ascontiguousarray(array).tobytes()
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=h.np_dtype_to_tensor_dtype(array.dtype))
    tensor.data_location = T.EXTERNAL
    for key, value in {"location": "ops.onnx_data", "offset": len(blob), "length": len(raw)}.items():
        tensor.external_data.add(key=key, value=str(value))
    blob.extend(raw)
    return tensor


def half(*shape):
    return (rng.standard_normal(shape) * 0.3).astype(np.float16)


def single(*shape):
    return rng.standard_normal(shape).astype(np.float32)


initializers = [
    weight("conv.w.half", half(4, 4, 3, 3)), weight("conv.b", single(4)),
    weight("table.half", half(10, 8)), weight("ln.w", single(8)), weight("ln.b", single(8)),
    weight("proj.half", half(8, 8)), weight("in.w", np.ones(2, np.float32)), weight("in.b", np.zeros(2, np.float32)),
    weight("groups", np.array([1, 2, -1], np.int64)), weight("back", np.array([1, 4, 6, 6], np.int64)),
    weight("resize", np.array([1, 1, 2, 2], np.float32)), weight("one", np.array([1], np.int64)),
    weight("three", np.array([3], np.int64)), weight("root2", np.array(1.4142135, np.float32)),
]
nodes = [
    *(h.make_node("Cast", [f"{n}.half"], [n], to=T.FLOAT) for n in ("conv.w", "table", "proj")),
    h.make_node("Conv", ["x", "conv.w", "conv.b"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    h.make_node("Reshape", ["conv", "groups"], ["grouped"]),
    h.make_node("InstanceNormalization", ["grouped", "in.w", "in.b"], ["normed"], epsilon=1e-5),
    h.make_node("Reshape", ["normed", "back"], ["ungrouped"]),
    h.make_node("Resize", ["ungrouped", "", "resize"], ["image"], mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="asymmetric"),
    h.make_node("Gather", ["table", "ids"], ["embedded"], axis=0),
    h.make_node("LayerNormalization", ["embedded", "ln.w", "ln.b"], ["ln"], axis=-1),
    h.make_node("MatMul", ["ln", "proj"], ["projected"]),
    h.make_node("Softmax", ["projected"], ["tokens"], axis=-1),
    h.make_node("Div", ["projected", "root2"], ["scaled"]),
    h.make_node("Erf", ["scaled"], ["erf"]),
    h.make_node("Sin", ["projected"], ["sin"]),
    h.make_node("Cos", ["projected"], ["cos"]),
    h.make_node("Concat", ["erf", "sin", "cos"], ["angles"], axis=-1),
    h.make_node("Add", ["ids", "one"], ["next_ids"]),
    h.make_node("Greater", ["ids", "three"], ["mask"]),
]
info = h.make_tensor_value_info
graph = h.make_graph(
    nodes, "ops", [info("x", T.FLOAT, [1, 4, 6, 6]), info("ids", T.INT64, [2, 3])],
    [info("image", T.FLOAT, [1, 4, 12, 12]), info("tokens", T.FLOAT, [2, 3, 8]), info("angles", T.FLOAT, [2, 3, 24]),
     info("next_ids", T.INT64, [2, 3]), info("mask", T.BOOL, [2, 3])], initializers)
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="make.py")

(HERE / "ops.onnx_data").write_bytes(bytes(blob))
(HERE / "ops.onnx").write_bytes(model.SerializeToString())
onnx.checker.check_model(str(HERE / "ops.onnx"))
inputs = {"x": single(1, 4, 6, 6).astype(np.float16).astype(np.float32), "ids": np.array([[0, 3, 9], [4, 4, 1]], np.int64)}
session = onnxruntime.InferenceSession(str(HERE / "ops.onnx"), providers=["CPUExecutionProvider"])
outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))
for name, array in {**inputs, **outputs}.items():
    np.save(HERE / f"{name}.npy", array)

# Boundaries that cutting can leave: an input nothing reads, a scalar, an output that is an input or a constant.
edges = h.make_graph(
    [h.make_node("Mul", ["a", "factor"], ["product"]), h.make_node("Identity", ["a"], ["same"])], "edges",
    [info("a", T.FLOAT, [2]), info("factor", T.FLOAT, []), info("unused", T.FLOAT, [3])],
    [info("product", T.FLOAT, [2]), info("same", T.FLOAT, [2]), info("a", T.FLOAT, [2]), info("constant", T.FLOAT, [1])],
    [onnx.numpy_helper.from_array(np.array([7], np.float32), "constant")])
(HERE / "edges.onnx").write_bytes(h.make_model(edges, opset_imports=[h.make_opsetid("", 19)], ir_version=9).SerializeToString())
