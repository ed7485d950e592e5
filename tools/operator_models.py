"""The table of single operators and fused patterns that compare_simulators.py runs: ONNX models at sizes of SD 1.5 and SmolVLM, with
seeded inputs that float16 holds."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Builder:
    """A model that grows node by node, with seeded constants and inputs."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.arrays = [], [], [], []

    def input(self, *shape, scale=1.0):
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.arrays.append((self.rng.standard_normal(shape) * scale).astype(np.float16).astype(np.float32))
        return name

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape, scale=1.0, mean=0.0):
        return self.constant((self.rng.standard_normal(shape) * scale + mean).astype(np.float32))

    def scalar(self, value):
        return self.constant(np.float32(value))

    def node(self, op, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def model(self, output):
        shapeless = helper.make_empty_tensor_value_info(output)
        shapeless.type.tensor_type.elem_type = TensorProto.FLOAT
        graph = helper.make_graph(self.nodes, "operator", self.inputs, [shapeless], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        from onnx import shape_inference
        return shape_inference.infer_shapes(model, strict_mode=True), self.arrays

    def conv(self, x, channels, out, kernel=1, stride=1, bias=True):
        depth = channels * kernel * kernel
        operands = [x, self.weight(out, channels, kernel, kernel, scale=depth**-0.5)] + ([self.weight(out)] if bias else [])
        return self.node("Conv", *operands, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, strides=[stride] * 2)

    def linear(self, x, depth, out, bias=True):
        y = self.node("MatMul", x, self.weight(depth, out, scale=depth**-0.5))
        return self.node("Add", y, self.weight(out)) if bias else y

    def swish(self, x, beta=None):
        gate = x if beta is None else self.node("Mul", x, self.scalar(beta))
        return self.node("Mul", x, self.node("Sigmoid", gate))

    def gelu(self, x):
        gate = self.node("Add", self.node("Erf", self.node("Div", x, self.scalar(2**0.5))), self.scalar(1))
        return self.node("Mul", self.node("Mul", x, gate), self.scalar(0.5))

    def group_norm(self, x, shape, groups=32):
        channels = shape[1]
        rows = self.node("Reshape", x, self.constant(np.array([shape[0], groups, -1])))
        ones, zeros = self.constant(np.ones(groups, np.float32)), self.constant(np.zeros(groups, np.float32))
        normal = self.node("InstanceNormalization", rows, ones, zeros, epsilon=1e-5)
        normal = self.node("Reshape", normal, self.constant(np.array(shape)))
        by_channel = [channels] + [1] * (len(shape) - 2)
        scaled = self.node("Mul", normal, self.weight(*by_channel, scale=0.1, mean=1))
        return self.node("Add", scaled, self.weight(*by_channel, scale=0.1))

    def layer_norm(self, x, width):
        return self.node("LayerNormalization", x, self.weight(width, scale=0.1, mean=1), self.weight(width, scale=0.1), axis=-1, epsilon=1e-5)

    def attention(self, heads, queries, keys, width, causal=False):
        """Projected tokens to heads, attention, and back, as exporters write it."""
        def split(tokens, perm):
            x = self.input(1, tokens, heads * width)
            x = self.node("Reshape", x, self.constant(np.array([1, tokens, heads, width])))
            return self.node("Transpose", x, perm=perm)
        q, k, v = split(queries, [0, 2, 1, 3]), split(keys, [0, 2, 3, 1]), split(keys, [0, 2, 1, 3])
        scores = self.node("Mul", self.node("MatMul", q, k), self.scalar(width**-0.5))
        if causal:
            scores = self.node("Add", scores, self.constant(np.triu(np.full((queries, keys), -10000, np.float32), 1)))
        y = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        y = self.node("Transpose", y, perm=[0, 2, 1, 3])
        return self.node("Reshape", y, self.constant(np.array([1, queries, heads * width])))


def plain(op, *shape, scale=2.0, **attributes):
    return lambda b: b.node(op, b.input(*shape, scale=scale), **attributes)


def pieces(channels, taps):
    """Roundings of a sum that the compiler cuts: every piece but the last makes one more, each followed by that of a sum."""
    return 2 * -(-channels // (1536 // taps // 16 * 16 or channels)) - 1 if channels * taps > 1536 else 1


def table():
    """Name, builder, and how many roundings the operator makes one after the other; 0: not held to the limits."""
    for depth, out, rows in [(320, 320, 4096), (768, 3072, 77), (1280, 1280, 256), (1440, 640, 256), (1552, 64, 256), (2048, 768, 77),
                             (2560, 640, 1024), (3072, 768, 77), (5120, 1280, 256)]:
        yield f"MatMul by constant [1,{rows},{depth}] x [{depth},{out}] + bias", lambda b, d=depth, o=out, r=rows: b.linear(b.input(1, r, d), d, o), pieces(depth, 1)
    yield "MatMul [2,1280] x [1280,320] (Gemm)", lambda b: b.node(
        "Gemm", b.input(2, 1280), b.weight(1280, 320, scale=1280**-0.5), b.weight(320)), 1
    for batch, rows, depth, columns in [(8, 1024, 40, 1024), (8, 256, 1280, 64), (2, 64, 2560, 64)]:
        yield f"MatMul of activations [{batch},{rows},{depth}] x [{batch},{depth},{columns}]", lambda b, n=batch, r=rows, d=depth, c=columns: b.node(
            "MatMul", b.input(n, r, d), b.input(n, d, c)), 1
    for channels, out, kernel, stride, size in [
        (4, 320, 3, 1, 64), (3, 128, 3, 1, 128), (320, 320, 1, 1, 64), (160, 320, 3, 1, 32), (320, 320, 3, 1, 32), (320, 320, 3, 2, 64),
        (640, 640, 3, 1, 32), (1280, 320, 3, 1, 16), (1280, 1280, 1, 1, 16), (2560, 320, 3, 1, 8), (2560, 1280, 1, 1, 16), (512, 256, 3, 1, 32),
        (3, 768, 16, 16, 256),
    ]:
        def conv(b, c=channels, o=out, k=kernel, s=stride, n=size):
            if k == 16:
                return b.node("Conv", b.input(1, c, n, n), b.weight(o, c, k, k, scale=(c * k * k)**-0.5), b.weight(o), kernel_shape=[k, k], strides=[s, s])
            return b.conv(b.input(1, c, n, n), c, o, k, s)
        yield f"Conv {kernel}x{kernel}/{stride} {channels} to {out}, {size}x{size}, sum of {channels * kernel * kernel}", conv, pieces(channels, kernel * kernel)
    yield "Conv 3x3 640 to 320 without bias, 16x16", lambda b: b.conv(b.input(1, 640, 16, 16), 640, 320, 3, bias=False), pieces(640, 9)
    shape = (1, 320, 32, 32)
    yield "Conv 3x3 + residual", lambda b: b.node("Add", b.conv(b.input(*shape), 320, 320, 3), b.input(*shape)), pieces(320, 9) + 1
    yield "Conv 1x1 * activation", lambda b: b.node("Mul", b.conv(b.input(*shape), 320, 320), b.input(*shape)), 2
    yield "Conv 1x1 * constant", lambda b: b.node("Mul", b.conv(b.input(*shape), 320, 320), b.scalar(0.37)), 1
    yield "Conv 1x1 * constant - constant", lambda b: b.node("Sub", b.node("Mul", b.conv(b.input(*shape), 320, 320), b.scalar(0.37)), b.scalar(0.11)), 1
    yield "constant * MatMul by constant + bias", lambda b: b.node("Mul", b.linear(b.input(1, 77, 768), 768, 768), b.scalar(0.37)), 1
    yield "x / constant, Conv 3x3", lambda b: b.conv(b.node("Div", b.input(1, 64, 32, 32), b.scalar(3)), 64, 64, 3), 1
    yield "Conv 1x1, GELU (ConvExGelu)", lambda b: b.gelu(b.conv(b.input(*shape), 320, 320)), 2
    yield "MatMul by constant, GELU (ConvExGelu)", lambda b: b.gelu(b.linear(b.input(1, 1024, 320), 320, 1280)), 2
    yield "Conv 3x3, Swish", lambda b: b.swish(b.conv(b.input(1, 128, 32, 32), 128, 128, 3)), 2
    yield "MatMul by constant, quick GELU (ConvExSwish)", lambda b: b.swish(b.linear(b.input(1, 77, 768), 768, 3072), 1.702), 2
    yield "MatMul by constant + residual", lambda b: b.node("Add", b.linear(b.input(1, 256, 1280), 1280, 320), b.input(1, 256, 320)), 2
    yield "LayerNorm [1,1024,640]", lambda b: b.layer_norm(b.input(1, 1024, 640, scale=2), 640), 1
    yield "LayerNorm [1,77,768]", lambda b: b.layer_norm(b.input(1, 77, 768, scale=2), 768), 1
    for channels, size in [(320, 64), (1280, 16), (128, 128), (512, 64)]:
        yield f"GroupNorm {channels}, {size}x{size}", lambda b, s=(1, channels, size, size): b.group_norm(b.input(*s, scale=2), s), 2
    yield "GroupNorm, Swish, 640, 32x32", lambda b, s=(1, 640, 32, 32): b.swish(b.group_norm(b.input(*s, scale=2), s)), 3
    yield "GroupNorm, Conv 1x1, 320, 32x32", lambda b, s=(1, 320, 32, 32): b.conv(b.group_norm(b.input(*s, scale=2), s), 320, 320), 2
    def tokens(b):
        x = b.node("Reshape", b.input(1, 512, 32, 32, scale=2), b.constant(np.array([1, 512, 1024])))
        y = b.node("Transpose", b.group_norm(x, (1, 512, 1024)), perm=[0, 2, 1])
        return b.node("Mul", b.linear(y, 512, 512), b.linear(y, 512, 512))
    yield "GroupNorm of tokens [1,512,1024], two MatMul, product", tokens, 5
    yield "InstanceNorm 64, 32x32", lambda b: b.node("InstanceNormalization", b.input(1, 64, 32, 32), b.weight(64), b.weight(64), epsilon=1e-5), 3
    for heads, queries, keys, width in [(8, 1024, 1024, 40), (8, 1024, 77, 40), (8, 256, 256, 80), (8, 64, 64, 160), (12, 1024, 1024, 64), (1, 1024, 1024, 512)]:
        yield f"Attention, {heads} heads, {queries} queries, {keys} keys, {width} wide", lambda b, a=(heads, queries, keys, width): b.attention(*a), 1
    yield "Attention, causal, 12 heads, 77 tokens, 64 wide", lambda b: b.attention(12, 77, 77, 64, True), 1
    for shape in [(1, 320, 32, 32), (1, 1024, 768)]:
        yield f"GELU (erf) {list(shape)}", lambda b, s=shape: b.gelu(b.input(*s, scale=2)), 1
        yield f"Swish {list(shape)}", lambda b, s=shape: b.swish(b.input(*s, scale=2)), 1
        yield f"quick GELU {list(shape)}", lambda b, s=shape: b.swish(b.input(*s, scale=2), 1.702), 1
    for op in ["Sigmoid", "Erf", "Tanh", "Exp"]:
        yield f"{op} [1,64,32,32]", plain(op, 1, 64, 32, 32), 0
    yield "Sqrt [1,64,32,32]", lambda b: b.node("Sqrt", b.node("Abs", b.input(1, 64, 32, 32))), 0
    yield "Softmax [8,256,256]", plain("Softmax", 8, 256, 256, axis=-1), 0
    yield "Softmax [1,8,256,256]", plain("Softmax", 1, 8, 256, 256, axis=-1), 0
    yield "x / constant", lambda b: b.node("Div", b.input(1, 64, 32, 32), b.scalar(0.37)), 0
    yield "x * constant + constant", lambda b: b.node("Add", b.node("Mul", b.input(1, 64, 32, 32), b.scalar(0.37)), b.scalar(0.11)), 0


def models():
    """Name, model, inputs, and how many roundings there are (see `table`)."""
    for seed, (name, build, roundings) in enumerate(table()):
        builder = Builder(seed)
        output = build(builder)
        yield (name, *builder.model(output), roundings)
