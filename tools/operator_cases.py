"""Models of one operator that the onnx package has no test for: ONNX Runtime's own operators, and forms of older operator sets.

check_operators.py runs them. ONNX Runtime gives the right outputs; inputs are seeded.
"""
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MICROSOFT, OLDER = "com.microsoft", "older forms"
FLOAT_INT32 = (TensorProto.FLOAT, TensorProto.INT32)
FLOAT_INT64 = (TensorProto.FLOAT, TensorProto.INT64)
FLOAT_BOOL = (TensorProto.FLOAT, TensorProto.BOOL)


@dataclass
class Case:
    """One model with inputs and right outputs; `section` and `operator` say which row of the table it belongs to."""

    name: str
    section: str
    operator: str
    model: onnx.ModelProto
    inputs: dict
    want: dict


def element_type(array):
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def infer(model, inputs):
    """Outputs by name, by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


class Cases:
    """Collects cases; every array comes from one seeded generator."""

    def __init__(self):
        self.rng = np.random.default_rng(7)
        self.all = []

    def normal(self, *shape, scale=1.0):
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def uniform(self, *shape, low=0.0, high=1.0):
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def add(self, label, operator, inputs, weights=None, attributes=None, order=None, outputs=("y",), types=None, opset=17, domain=""):
        """One node. `inputs` are the graph's, `weights` initializers; `order` lists the node's inputs ("" for an omitted one)."""
        weights, attributes = weights or {}, attributes or {}
        order = order or [*inputs, *weights]
        node = helper.make_node(operator, order, list(outputs), "node", domain=domain, **attributes)
        declared = [helper.make_tensor_value_info(n, element_type(a), a.shape) for n, a in inputs.items()]
        constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
        made = [(n, TensorProto.FLOAT if types is None else types[i]) for i, n in enumerate(outputs) if n]
        open_outputs = [onnx.ValueInfoProto(name=n) for n, _ in made]
        for value, (_, kind) in zip(open_outputs, made):
            value.type.tensor_type.elem_type = kind
        opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        model = helper.make_model(helper.make_graph([node], "operator", declared, open_outputs, constants), opset_imports=opsets, ir_version=8)
        want = infer(model, inputs)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(n, element_type(a), a.shape) for n, a in want.items())
        section = MICROSOFT if operator == "SimplifiedLayerNormalization" else domain or OLDER
        self.all.append(Case(f"{section} {operator} {label}", section, operator, model, inputs, want))


def norms(c):
    x, skip, bias, beta = c.normal(2, 6, 32), c.normal(2, 6, 32), c.normal(32, scale=0.1), c.normal(32, scale=0.1)
    gamma = c.normal(32, scale=0.1) + 1
    c.add("last axis", "SimplifiedLayerNormalization", {"x": x}, {"gamma": gamma}, {"axis": -1, "epsilon": 1e-6})
    four = ("y", "", "", "sum")
    c.add("plain", "SkipLayerNormalization", {"x": x, "skip": skip}, {"gamma": gamma, "beta": beta}, {"epsilon": 1e-5}, domain=MICROSOFT)
    c.add("bias and sum", "SkipLayerNormalization", {"x": x, "skip": skip}, {"gamma": gamma, "beta": beta, "bias": bias}, {"epsilon": 1e-5},
          outputs=four, domain=MICROSOFT)
    c.add("plain", "SkipSimplifiedLayerNormalization", {"x": x, "skip": skip}, {"gamma": gamma}, {"epsilon": 1e-6}, domain=MICROSOFT)
    c.add("sum", "SkipSimplifiedLayerNormalization", {"x": x, "skip": skip}, {"gamma": gamma}, {"epsilon": 1e-6}, outputs=four, domain=MICROSOFT)
    c.add("bias and sum", "SkipSimplifiedLayerNormalization", {"x": x, "skip": skip}, {"gamma": gamma, "bias": bias}, {"epsilon": 1e-6},
          outputs=four, domain=MICROSOFT)
    ids = np.array([[3, 1, 4, 1, 5]], np.int32)
    tables = {"word": c.normal(16, 32), "position": c.normal(8, 32), "segment": c.normal(2, 32), "gamma": gamma, "beta": beta}
    c.add("segments", "EmbedLayerNormalization", {"ids": ids, "segments": np.array([[0, 0, 0, 1, 1]], np.int32)}, tables, {"epsilon": 1e-12},
          outputs=("y", "mask"), types=FLOAT_INT32, domain=MICROSOFT)


def activations(c):
    x, bias = c.normal(2, 6, 32), c.normal(32)
    c.add("plain", "FastGelu", {"x": x}, domain=MICROSOFT)
    c.add("bias", "FastGelu", {"x": x}, {"bias": bias}, domain=MICROSOFT)
    c.add("bias", "BiasGelu", {"x": x}, {"bias": bias}, domain=MICROSOFT)
    c.add("plain", "Gelu", {"x": x}, domain=MICROSOFT)
    c.add("default alpha", "QuickGelu", {"x": x}, domain=MICROSOFT)
    c.add("alpha 1", "QuickGelu", {"x": x}, attributes={"alpha": 1.0}, domain=MICROSOFT)


def products(c):
    a, b = c.normal(2, 3, 8, 16), c.normal(2, 3, 16, 8)
    c.add("alpha", "FusedMatMul", {"a": a, "b": b}, attributes={"alpha": 0.25}, domain=MICROSOFT)
    c.add("B transposed", "FusedMatMul", {"a": a, "b": c.normal(2, 3, 8, 16)}, attributes={"alpha": 0.5, "transB": 1}, domain=MICROSOFT)
    c.add("A transposed", "FusedMatMul", {"a": c.normal(2, 3, 16, 8), "b": b}, attributes={"transA": 1}, domain=MICROSOFT)
    c.add("Relu", "FusedGemm", {"a": c.normal(4, 16)}, {"b": c.normal(16, 8), "bias": c.normal(8)}, {"activation": "Relu"}, domain=MICROSOFT)
    image, kernel = c.normal(1, 8, 10, 12), c.normal(4, 8, 3, 3, scale=0.1)
    c.add("Relu", "FusedConv", {"x": image}, {"w": kernel, "bias": c.normal(4)}, {"activation": "Relu", "pads": [1, 1, 1, 1]}, domain=MICROSOFT)
    for bits in (4, 8):
        for block, depth in ((32, 64), (32, 80)):
            for zero_points in (False, True):
                quantised(c, bits, block, depth, zero_points)


def quantised(c, bits, block, depth, zero_points):
    width, blocks = 24, -(-depth // block)
    weights = {"b": c.rng.integers(0, 256, (width, blocks, block * bits // 8), dtype=np.uint8), "scales": c.uniform(width * blocks, low=0.01, high=0.03)}
    order = ["a", "b", "scales"]
    if zero_points:
        packed = -(-blocks * bits // 8)
        weights["zero_points"] = c.rng.integers(0, 256, width * packed, dtype=np.uint8)
        order += ["zero_points"]
    label = f"{bits} bits, depth {depth}" + (", zero points" if zero_points else "")
    c.add(label, "MatMulNBits", {"a": c.normal(2, 5, depth)}, weights, {"K": depth, "N": width, "bits": bits, "block_size": block},
          order, domain=MICROSOFT)


def attention(c):
    heads, width, length = 4, 32, 6
    q, k, v = (c.normal(2, length, width) for _ in range(3))
    bias = c.normal(3 * width, scale=0.1)
    c.add("plain", "MultiHeadAttention", {"q": q, "k": k, "v": v}, attributes={"num_heads": heads}, domain=MICROSOFT)
    c.add("bias", "MultiHeadAttention", {"q": q, "k": k, "v": v}, {"bias": bias}, {"num_heads": heads}, domain=MICROSOFT)
    c.add("cross, other length", "MultiHeadAttention", {"q": q, "k": c.normal(2, 9, width), "v": c.normal(2, 9, width)},
          attributes={"num_heads": heads, "scale": 0.2}, domain=MICROSOFT)
    c.add("scores' bias", "MultiHeadAttention", {"q": q, "k": k, "v": v, "scores": c.normal(1, heads, length, length)}, attributes={"num_heads": heads},
          order=["q", "k", "v", "", "", "scores"], domain=MICROSOFT)
    c.add("causal", "MultiHeadAttention", {"q": q, "k": k, "v": v}, attributes={"num_heads": heads, "unidirectional": 1}, domain=MICROSOFT)
    c.add("padding", "MultiHeadAttention", {"q": q, "k": k, "v": v, "padding": np.array([4, 6], np.int32)}, attributes={"num_heads": heads},
          order=["q", "k", "v", "", "padding"], domain=MICROSOFT)
    c.add("past", "MultiHeadAttention",
          {"q": c.normal(1, 1, width), "k": c.normal(1, 1, width), "v": c.normal(1, 1, width), "past_k": c.normal(1, heads, 5, 8), "past_v": c.normal(1, heads, 5, 8)},
          attributes={"num_heads": heads}, order=["q", "k", "v", "", "", "", "past_k", "past_v"], outputs=("y", "present_k", "present_v"), domain=MICROSOFT)
    packed = c.normal(width, 3 * width, scale=width**-0.5)
    c.add("plain", "Attention", {"x": q}, {"w": packed, "bias": bias}, {"num_heads": heads}, domain=MICROSOFT)
    c.add("causal", "Attention", {"x": q}, {"w": packed, "bias": bias}, {"num_heads": heads, "unidirectional": 1}, domain=MICROSOFT)
    c.add("mask", "Attention", {"x": q, "mask": np.array([[0, 0, 1, 1, 1, 1], [1] * 6], np.int32)}, {"w": packed, "bias": bias}, {"num_heads": heads},
          order=["x", "w", "bias", "mask"], domain=MICROSOFT)
    grouped(c)


def rotation(positions, size):
    angles = np.outer(np.arange(positions), 10000.0 ** (-np.arange(0, size, 2) / size))
    return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def grouped(c):
    heads, groups, size = 4, 2, 16
    prompt, cached = 5, 7
    sizes = {"num_heads": heads, "kv_num_heads": groups}
    order = ["q", "k", "v", "past_k", "past_v", "last", "total"]
    for label, length, past, extra, rotary in (("prompt", prompt, 0, {}, False), ("prompt, rotary", prompt, 0, {"do_rotary": 1}, True),
                                               ("prompt, rotary interleaved", prompt, 0, {"do_rotary": 1, "rotary_interleaved": 1}, True),
                                               ("window", prompt, 0, {"local_window_size": 3}, False), ("softcap", prompt, 0, {"softcap": 5.0}, False),
                                               ("step, rotary", 1, cached, {"do_rotary": 1}, True)):
        inputs = {"q": c.normal(1, length, heads * size), "k": c.normal(1, length, groups * size), "v": c.normal(1, length, groups * size),
                  "past_k": c.normal(1, groups, past, size), "past_v": c.normal(1, groups, past, size)}
        weights = {"last": np.array([past + length - 1], np.int32), "total": np.array(past + length, np.int32)}
        if rotary:
            weights |= rotation(16, size)
        c.add(label, "GroupQueryAttention", inputs, weights, sizes | extra, order + (["cos", "sin"] if rotary else []),
              ("y", "present_k", "present_v"), domain=MICROSOFT)
    c.add("lengths are inputs", "GroupQueryAttention",
          {"q": c.normal(1, prompt, heads * size), "k": c.normal(1, prompt, groups * size), "v": c.normal(1, prompt, groups * size),
           "last": np.array([prompt - 1], np.int32), "total": np.array(prompt, np.int32)}, attributes=sizes,
          order=["q", "k", "v", "", "", "last", "total"], outputs=("y", "present_k", "present_v"), domain=MICROSOFT)
    for label, shape, extra in (("[batch, length, width]", (2, 5, 32), {"num_heads": 4}), ("[batch, heads, length, size]", (2, 4, 5, 8), {}),
                                ("interleaved", (2, 4, 5, 8), {"interleaved": 1}), ("part of a head", (2, 4, 5, 12), {"rotary_embedding_dim": 8, "num_heads": 4})):
        positions = {"positions": np.tile(np.arange(5), (2, 1))}
        c.add(label, "RotaryEmbedding", {"x": c.normal(*shape)} | positions, rotation(16, 8), extra, domain=MICROSOFT)


def older_shapes(c):
    image, rows = c.normal(1, 4, 6, 8), c.normal(3, 4, 5)
    ints = lambda *values: np.array(values, np.int64)
    c.add("attributes, opset 9", "Slice", {"x": image}, attributes={"starts": [1, -7], "ends": [3, 1000], "axes": [1, 3]}, opset=9)
    c.add("attributes, opset 9", "Pad", {"x": image}, attributes={"pads": [0, 0, 1, 2, 0, 0, 3, 4], "mode": "reflect"}, opset=9)
    c.add("value, opset 9", "Pad", {"x": image}, attributes={"pads": [0, 0, 1, 2, 0, 0, 3, 4], "value": -1.5}, opset=9)
    c.add("negative, opset 11", "Pad", {"x": image}, {"pads": ints(0, 0, -1, 1, 0, 0, 2, -2)}, opset=11)
    c.add("attributes, opset 11", "Squeeze", {"x": c.normal(1, 3, 1, 5)}, attributes={"axes": [0, 2]}, opset=11)
    c.add("no axes, opset 11", "Squeeze", {"x": c.normal(1, 3, 1, 5)}, opset=11)
    c.add("attributes, opset 11", "Unsqueeze", {"x": rows}, attributes={"axes": [0, -1]}, opset=11)
    c.add("attributes, opset 11", "Split", {"x": image}, attributes={"axis": 3, "split": [2, 5, 1]}, outputs=("a", "b", "c"), opset=11)
    c.add("equal parts, opset 11", "Split", {"x": image}, attributes={"axis": 1}, outputs=("a", "b"), opset=11)
    c.add("opset 12", "Flatten", {"x": image}, attributes={"axis": -2}, opset=12)
    c.add("opset 10", "TopK", {"x": rows}, {"k": ints(3)}, outputs=("values", "indices"), types=FLOAT_INT64, opset=10)
    c.add("column-row-depth, opset 11", "DepthToSpace", {"x": image}, attributes={"blocksize": 2, "mode": "CRD"}, opset=11)
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"):
        c.add("attributes, opset 11", op, {"x": image}, attributes={"axes": [2, -1], "keepdims": 0}, opset=11)
    c.add("nearest, opset 9", "Upsample", {"x": image}, {"scales": np.array([1, 1, 2, 2], np.float32)}, {"mode": "nearest"}, opset=9)
    c.add("bilinear, opset 9", "Upsample", {"x": image}, {"scales": np.array([1, 1, 2, 2], np.float32)}, {"mode": "linear"}, opset=9)
    c.add("opset 10", "Resize", {"x": image}, {"scales": np.array([1, 1, 2, 1.5], np.float32)}, {"mode": "nearest"}, opset=10)
    c.add("bilinear, opset 10", "Resize", {"x": image}, {"scales": np.array([1, 1, 2, 2], np.float32)}, {"mode": "linear"}, opset=10)
    resizes(c, image)


def resizes(c, image):
    none = np.zeros(0, np.float32)
    for mode, nearest, coordinates in (("nearest", "floor", "asymmetric"), ("nearest", "round_prefer_floor", "half_pixel"), ("linear", "floor", "half_pixel"),
                                       ("linear", "floor", "pytorch_half_pixel"), ("linear", "floor", "align_corners"), ("cubic", "floor", "half_pixel"),
                                       ("cubic", "floor", "align_corners")):
        attributes = {"mode": mode, "nearest_mode": nearest, "coordinate_transformation_mode": coordinates, "cubic_coeff_a": -0.75}
        c.add(f"{mode}, {coordinates}, twice, opset 11", "Resize", {"x": image}, {"roi": none, "scales": np.array([1, 1, 2, 2], np.float32)}, attributes, opset=11)
        c.add(f"{mode}, {coordinates}, to 15x11, opset 11", "Resize", {"x": image},
              {"roi": none, "scales": none, "sizes": np.array([1, 4, 15, 11], np.int64)}, attributes, opset=11)
        c.add(f"{mode}, {coordinates}, to 3x4, opset 13", "Resize", {"x": image}, {"sizes": np.array([1, 4, 3, 4], np.int64)}, attributes,
              ["x", "", "", "sizes"], opset=13)


def older_numbers(c):
    image, rows = c.normal(1, 4, 6, 8), c.normal(3, 4, 5)
    for op in ("Softmax", "LogSoftmax"):
        c.add("of the flattened rest, opset 11", op, {"x": image}, attributes={"axis": 1}, opset=11)
        c.add("last axis, opset 11", op, {"x": rows}, attributes={"axis": 2}, opset=11)
    c.add("attributes, opset 9", "Clip", {"x": image}, attributes={"min": -0.5, "max": 0.75}, opset=9)
    c.add("ratio, opset 9", "Dropout", {"x": image}, attributes={"ratio": 0.4}, opset=9)
    c.add("both outputs, opset 13", "Dropout", {"x": image}, {"ratio": np.float32(0.4)}, outputs=("y", "mask"), types=FLOAT_BOOL, opset=13)
    statistics = {"scale": c.uniform(4, low=0.5), "bias": c.normal(4), "mean": c.normal(4), "var": c.uniform(4, low=0.5)}
    c.add("opset 9", "BatchNormalization", {"x": image}, statistics, {"epsilon": 1e-3, "momentum": 0.9}, opset=9)
    c.add("[batch, channels, length], opset 14", "BatchNormalization", {"x": rows[:, :4]}, statistics, opset=14)
    c.add("ceil mode, opset 10", "AveragePool", {"x": image}, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, opset=10)
    c.add("ceil mode, opset 10", "MaxPool", {"x": image}, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, opset=10)
    c.add("row bias, opset 9", "Gemm", {"a": c.normal(3, 6)}, {"b": c.normal(8, 6), "bias": c.normal(8)}, {"transB": 1, "beta": 0.5}, opset=9)
    w = lambda *shape: {"w": c.normal(*shape, scale=0.2), "bias": c.normal(shape[0])}
    for label, x, weights, attributes in (
            ("depthwise, stride 2", image, w(4, 1, 3, 3), {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
            ("groups", image, w(6, 2, 3, 3), {"group": 2}), ("dilated", image, w(5, 4, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
            ("lopsided pads", image, w(5, 4, 3, 3), {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
            ("SAME_UPPER", image, w(5, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
            ("of a line", c.normal(2, 4, 9), w(6, 4, 3), {"pads": [1, 1]}), ("of a volume", c.normal(1, 2, 4, 5, 6), w(3, 2, 2, 3, 3), {})):
        c.add(f"{label}, opset 11", "Conv", {"x": x}, weights, attributes, opset=11)
    for label, groups, attributes in (("stride 2", 1, {"strides": [2, 2]}), ("stride 2, pads", 1, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
                                      ("groups", 2, {"group": 2, "strides": [2, 2]})):
        weights = {"w": c.normal(4, 6 // groups, 3, 3, scale=0.2), "bias": c.normal(6)}
        c.add(f"{label}, opset 11", "ConvTranspose", {"x": image}, weights, attributes, opset=11)
    lstm = {"w": c.normal(2, 24, 5, scale=0.4), "r": c.normal(2, 24, 6, scale=0.4), "bias": c.normal(2, 48, scale=0.1)}
    c.add("both directions, opset 12", "LSTM", {"x": c.normal(7, 2, 5)}, lstm, {"hidden_size": 6, "direction": "bidirectional"}, outputs=("y", "h", "c"), opset=12)
    gru = {"w": c.normal(2, 18, 5, scale=0.4), "r": c.normal(2, 18, 6, scale=0.4), "bias": c.normal(2, 36, scale=0.1)}
    c.add("both directions, after the gate, opset 12", "GRU", {"x": c.normal(7, 2, 5)}, gru,
          {"hidden_size": 6, "direction": "bidirectional", "linear_before_reset": 1}, outputs=("y", "h"), opset=12)
    c.add("attention's scores, opset 12", "Einsum", {"a": c.normal(2, 3, 4, 5), "b": c.normal(2, 3, 6, 5)}, attributes={"equation": "bhid,bhjd->bhij"}, opset=12)
    c.add("attention's result, opset 12", "Einsum", {"a": c.normal(2, 3, 4, 5), "b": c.normal(2, 3, 5, 6)}, attributes={"equation": "bhij,bhjd->bihd"}, opset=12)


def own_cases():
    """All of them, in a fixed order."""
    cases = Cases()
    for group in (norms, activations, products, attention, older_shapes, older_numbers):
        group(cases)
    return cases.all
