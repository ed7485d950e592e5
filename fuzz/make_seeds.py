"""Writes seeds/onnx_import (one tiny model for each family of operators), seeds/lora and seeds/picture.

Run with Python 3, onnx, numpy and Pillow: `python make_seeds.py`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from onnx import TensorProto as T, helper as h, numpy_helper

ROOT = Path(__file__).parent / "seeds"
OUT = ROOT / "onnx_import"
X = [1, 4, 4, 4]


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def floats(name, shape=(), fill=0.5, dtype=np.float32):
    return numpy_helper.from_array(np.full(shape, fill, dtype), name)


def seed(name, nodes, constants=(), shape=X, kind=T.FLOAT, opset=17, output="y"):
    inputs = [h.make_tensor_value_info("x", kind, shape)]
    graph = h.make_graph(nodes, "g", inputs, [h.make_empty_tensor_value_info(output)], list(constants))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8, producer_name="")
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString())


def n(op, inputs, output="y", **attributes):
    return h.make_node(op, inputs.split(), output.split(), **attributes)


OUT.mkdir(parents=True, exist_ok=True)
weight = floats("w", (4, 2, 3, 3))
seed("conv", [n("Conv", "x w b", pads=[1, 1, 1, 1], strides=[2, 2], dilations=[1, 1], group=2)], [weight, floats("b", (4,))])
seed("conv_same", [n("Conv", "x w", auto_pad="SAME_UPPER", group=2)], [weight])
seed("conv_folded", [n("Conv", "c w", "t", pads=[1, 1, 1, 1], group=2), n("Add", "x t")], [weight, floats("c", X)])
seed("gemm", [n("Gemm", "x w b", alpha=0.5, beta=2.0, transB=1)], [floats("w", (3, 4)), floats("b", (3,))], shape=[2, 4])
seed("matmul_folded", [n("MatMul", "a b", "t"), n("MatMul", "x t")], [floats("a", (4, 2)), floats("b", (2, 4))])
seed("pool", [n("MaxPool", "x", "t", kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1]), n("AveragePool", "t", kernel_shape=[2, 2], count_include_pad=1)])
seed("pool_folded", [n("AveragePool", "c", "t", kernel_shape=[3, 3]), n("GlobalAveragePool", "t", "p"), n("Add", "x p")], [floats("c", X)])
seed("norms", [n("InstanceNormalization", "x g g", "a", epsilon=1e-5), n("LayerNormalization", "a g", "y", axis=-1)], [floats("g", (4,))])
seed("group_norm", [n("GroupNormalization", "x g g", num_groups=2)], [floats("g", (2,))], opset=18)
seed("resize", [n("Resize", "x  s".replace("  ", " roi "), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
     [floats("roi", (0,)), numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")])
seed("resize_linear", [n("Resize", "x roi roi s", mode="linear")], [floats("roi", (0,)), ints("s", 1, 4, 6, 8)])
seed("reshape", [n("Reshape", "x s", "r"), n("Transpose", "r", "t", perm=[1, 0]), n("Flatten", "t", "y", axis=1)], [ints("s", 0, -1)])
seed("shapes", [n("Shape", "x", "s"), n("Gather", "s i", "d", axis=0), n("Concat", "d m", "c", axis=0), n("Reshape", "x c")], [ints("i", 0), ints("m", -1)])
seed("squeeze", [n("Unsqueeze", "x a", "u"), n("Squeeze", "u a")], [ints("a", 0, 2)])
seed("slice", [n("Slice", "x b e a s")], [ints("b", 1, 0), ints("e", 4, -1), ints("a", 1, -1), ints("s", 2, 1)])
seed("slice_folded", [n("Slice", "c b e a s", "t"), n("Add", "x t")], [floats("c", (4, 4)), ints("b", 1), ints("e", 4), ints("a", 0), ints("s", 4)])
seed("slice_backwards", [n("Slice", "x b e a s")], [ints("b", -1), ints("e", -9), ints("a", 1), ints("s", -2)])
seed("split", [n("Split", "x s", "p y", axis=1)], [ints("s", 1, 3)])
seed("split_18", [n("Split", "x", "p y", axis=1, num_outputs=2)], opset=18)
seed("expand", [n("ConstantOfShape", "s", "c", value=T(data_type=T.FLOAT, dims=[1], raw_data=b"\0\0\0\0")), n("Expand", "c t", "e"), n("Add", "x e")],
     [ints("s", 1, 1), ints("t", 4, 4)])
seed("tile", [n("Tile", "x r", "t"), n("Pad", "t p v")], [ints("r", 1, 2, 1, 1), ints("p", 0, 0, 1, 1, 0, 0, 1, 1), floats("v")])
seed("range", [n("Range", "a b d", "r"), n("Cast", "r", "f", to=T.FLOAT), n("Mul", "x f")], [numpy_helper.from_array(np.int64(v), k) for k, v in zip("abd", (0, 4, 1))])
seed("trilu", [n("Trilu", "m", "t", upper=0), n("Add", "x t")], [floats("m", (4, 4))])
seed("reduce", [n("ReduceMean", "x", "m", axes=[-1], keepdims=1), n("Sub", "x m", "d"), n("ReduceSum", "d a", "y", keepdims=0)], [ints("a", 1, 2)])
seed("arg_max", [n("ArgMax", "x", "y", axis=1, keepdims=0)])
seed("where", [n("Equal", "i j", "c"), n("Where", "c x z")], [ints("i", 1, 2, 3, 4), ints("j", 1), floats("z")])
seed("chain", [n("Min", "x a a", "m"), n("Sum", "m a a", "s"), n("Pow", "s p", "q"), n("Mod", "i i", "k"), n("Clip", "q a b")], [floats("a"), floats("b"), ints("p", 2), ints("i", 5)])
seed("integers", [n("Div", "x i", "d"), n("Mod", "d i", "m"), n("Neg", "m", "g"), n("Cast", "g", "y", to=T.BOOL)], [ints("i", 3)], kind=T.INT64)
seed("embedding", [n("Gather", "w x", axis=0)], [floats("w", (5, 3), dtype=np.float16)], shape=[1, 3], kind=T.INT64)
seed("swish", [n("Sigmoid", "x", "s"), n("Mul", "x s")])
seed("gelu", [n("Div", "x r", "d"), n("Erf", "d", "e"), n("Add", "e one", "a"), n("Mul", "x a", "m"), n("Mul", "m half")],
     [floats("r", fill=2**0.5), floats("one", fill=1), floats("half")])
seed("layer_norm_parts", [n("ReduceMean", "x", "m", axes=[-1]), n("Sub", "x m", "d"), n("Pow", "d two", "p"), n("ReduceMean", "p", "v", axes=[-1]),
     n("Add", "v e", "w"), n("Sqrt", "w", "s"), n("Div", "d s", "q"), n("Mul", "q g", "h"), n("Add", "h g")],
     [floats("two", fill=2), floats("e", fill=1e-5), floats("g", (4,))])
seed("group_norm_parts", [n("Reshape", "x s", "r"), n("InstanceNormalization", "r one zero", "i"), n("Reshape", "i t", "b"), n("Mul", "b g", "m"), n("Add", "m g")],
     [ints("s", 1, 2, -1), ints("t", *X), floats("one", (2,), 1), floats("zero", (2,), 0), floats("g", (1, 4, 1, 1))])
seed("attention", [n("Transpose", "x", "k", perm=[0, 1, 3, 2]), n("MatMul", "x k", "s"), n("Mul", "s f", "c"), n("Add", "c m", "a"), n("Softmax", "a", "p", axis=-1),
     n("MatMul", "p x")], [floats("f"), floats("m", (4, 4))])
seed("attention_not_nan", [n("MatMul", "x x", "s"), n("Add", "s m", "a"), n("Softmax", "a", "p", axis=-1), n("IsNaN", "p", "n"), n("Where", "n z p", "w"),
     n("MatMul", "w x")], [numpy_helper.from_array(np.triu(np.full((4, 4), -np.inf, np.float32), 1), "m"), floats("z", fill=0)])
# Patterns of the fusions at the edges: a factor that adds axes, and no axis to normalise over.
seed("swish_more_axes", [n("Mul", "x f", "b"), n("Sigmoid", "b", "s"), n("Mul", "x s", "z"), n("Transpose", "z", "y", perm=[1, 0])], [floats("f", (1, 1))], shape=[4])
seed("layer_norm_scalar", [n("ReduceMean", "x", "m"), n("Sub", "x m", "d"), n("Pow", "d two", "p"), n("ReduceMean", "p", "v"), n("Add", "v e", "w"),
     n("Sqrt", "w", "s"), n("Div", "d s", "q"), n("Mul", "q g", "h"), n("Add", "h g")], [floats("two", fill=2), floats("e", fill=1e-5), floats("g")], shape=[])
seed("attention_scale_axes", [n("Transpose", "x", "k", perm=[1, 0]), n("MatMul", "x k", "s"), n("Mul", "s f", "c"), n("Add", "c m", "a"),
     n("Softmax", "a", "p", axis=-1), n("MatMul", "p x")], [floats("f", (1, 1, 1)), floats("m", (1, 4, 4))], shape=[4, 4])
seed("attention_vector", [n("MatMul", "x k", "s"), n("Softmax", "s", "p", axis=-1), n("MatMul", "p k")], [floats("k", (4, 4))], shape=[4])
seed("group_norm_empty", [n("Reshape", "x s", "r"), n("InstanceNormalization", "r e e", "i"), n("Reshape", "i t", "b"), n("Mul", "b g", "m"), n("Add", "m g")],
     [ints("s", 1, 0, 8), ints("t", 1, 0, 4), floats("e", (0,)), floats("g", (1, 1, 1))], shape=[1, 0, 4])
seed("constant", [n("Constant", "", "c", value_floats=[1.0, 2.0, 3.0, 4.0]), n("CastLike", "c x", "l"), n("Identity", "l", "i"), n("Add", "x i")])
external = T(name="w", data_type=T.FLOAT, dims=[4], data_location=T.EXTERNAL)
for key, value in {"location": "weights.bin", "offset": "0", "length": "16"}.items():
    external.external_data.add(key=key, value=value)
seed("external", [n("Add", "x w")], [external])


def safetensors_file(tensors, metadata=None):
    """The bytes of a safetensors file: its header's length, the header, the tensors."""
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for key, (kind, array) in tensors.items():
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def lora_seeds():
    """LoRA files in three spellings, for the modules of the fuzz target's model."""
    out = ROOT / "lora"
    out.mkdir(parents=True, exist_ok=True)
    halves = lambda down, up: (np.full(down, 0.5, np.float32), np.full(up, 0.25, np.float32))
    down, up = halves((2, 3), (4, 2))
    kernel, outer = halves((2, 2, 3, 3), (4, 2, 1, 1))
    names = ["lora_unet_mid_block_attentions_0_to_q", "lora_unet_mid_block_resnets_0_conv1"]
    kohya = {f"{names[0]}.lora_down.weight": ("F32", down), f"{names[0]}.lora_up.weight": ("F32", up), f"{names[0]}.alpha": ("F32", np.float32(1)),
             f"{names[1]}.lora_down.weight": ("F32", kernel), f"{names[1]}.lora_up.weight": ("F32", outer), f"{names[1]}.alpha": ("I64", np.array([2]))}
    module = "base_model.model.mid_block.attentions.0.to_q"
    peft = {f"{module}.lora_A.weight": ("F16", down.astype(np.float16)), f"{module}.lora_B.weight": ("F16", up.astype(np.float16))}
    module = "unet.mid_block.attentions.0.processor.to_q_lora"
    old = {f"{module}.down.weight": ("F64", down.astype(np.float64)), f"{module}.up.weight": ("F64", up.astype(np.float64))}
    settings = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.use_rslora": True})}
    for name, contents in [("kohya", safetensors_file(kohya)), ("peft", safetensors_file(peft, settings)), ("diffusers", safetensors_file(old))]:
        (out / f"{name}.safetensors").write_bytes(contents)


def picture_seeds():
    """Images of a few pixels: each format and kind of pixel, turned by EXIF, animated."""
    out = ROOT / "picture"
    out.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(3, 5, 4) * 4
    rgba = Image.fromarray(pixels)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(out / "rgb.png", exif=turned)
    rgba.save(out / "rgba.png")
    rgb.quantize(4).save(out / "palette.png", transparency=1)
    Image.fromarray((np.arange(15, dtype=np.uint16) * 4000).reshape(3, 5)).save(out / "grey16.png")
    grey.convert("1").save(out / "bits.png")
    rgb.save(out / "animated.png", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)])
    grey.save(out / "grey.jpg", exif=turned)
    rgb.save(out / "progressive.jpg", progressive=True)
    rgb.convert("CMYK").save(out / "cmyk.jpg", restart_marker_blocks=1)
    rgb.save(out / "lossy.webp", quality=50, exif=turned)
    rgba.save(out / "alpha.webp", quality=50)
    rgba.save(out / "lossless.webp", lossless=True)
    rgb.save(out / "animated.webp", save_all=True, append_images=[grey.convert("RGB")], lossless=True)


lora_seeds()
picture_seeds()
