#!/usr/bin/env python3
"""Write the decoder of a 32-bit pack as a network that reads a whole prompt at once, to be converted for the NPU: what reading a prompt would take there.

    python benches/prefill.py PACK prefill.onnx [--prompt 1152]
    rockshard convert prefill.onnx --out out/prefill --placement split && rockshard plan out/prefill

The network takes the embeddings of a prompt, padded at its end, and gives keys, values and the last layer's rows. Queries of the heads that share keys are
rows of one product, so that keys are not copied. Needs: numpy onnx.
"""
import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from gqa import Graph
from language import weights


class Prefill(Graph):
    def constant(self, values):
        return self.weight(f"constant{len(self.weights)}", values)

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def floats(self, *values):
        return self.constant(np.array(values, np.float32))

    def op(self, operator, *inputs, **attributes):
        return self.add(operator, list(inputs), [f"{operator.lower()}{len(self.nodes)}"], **attributes)

    def reshaped(self, value, *shape):
        return self.op("Reshape", value, self.ints(*shape))

    def normed(self, rows, gains, epsilon):
        mean = self.op("ReduceMean", self.op("Mul", rows, rows), self.ints(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.floats(epsilon)))
        return self.op("Mul", self.op("Div", rows, root), self.constant(gains))

    def turned(self, heads, cosines, sines, width):
        """Rotary positions, the halves of a head turned against each other."""
        low, high = (self.op("Slice", heads, self.ints(a), self.ints(b), self.ints(-1)) for a, b in ((0, width // 2), (width // 2, width)))
        swapped = self.op("Concat", high, low, axis=-1)
        return self.op("Add", self.op("Mul", heads, cosines), self.op("Mul", swapped, sines))


def build(shape, tensor, prompt):
    width, heads, kv, head, inner = (shape[k] for k in ("width", "heads", "kv_heads", "head_width", "inner"))
    graph, shared = Prefill(), heads // kv
    angles = np.outer(np.arange(prompt), shape["theta"] ** (-np.arange(0, head, 2) / head))
    cosines = np.concatenate([np.cos(angles)] * 2, 1).astype(np.float32)
    sines = np.concatenate([-np.sin(angles), np.sin(angles)], 1).astype(np.float32)
    of_queries, of_keys = ([graph.constant(np.tile(v, (times, 1))) for v in (cosines, sines)] for times in (shared, 1))
    visible = np.tril(np.ones((prompt, prompt), bool))
    mask = graph.constant(np.tile(np.where(visible, 0, -1e4).astype(np.float32), (shared, 1))[None])
    rows, outputs = "embeddings", []
    for layer in range(shape["layers"]):
        part = lambda name: tensor(f"layers.{layer}.{name}")
        normed = graph.normed(rows, part("attention_norm"), shape["epsilon"])
        matrices = np.split(part("qkv"), [heads * head, (heads + kv) * head])
        queries, keys, values = (graph.multiply(normed, f"layers.{layer}.{name}", m) for name, m in zip("qkv", matrices))
        queries = graph.op("Transpose", graph.reshaped(queries, prompt, kv, shared, head), perm=[1, 2, 0, 3])
        queries = graph.turned(graph.reshaped(queries, kv, shared * prompt, head), *of_queries, head)
        keys, values = (graph.op("Transpose", graph.reshaped(v, prompt, kv, head), perm=[1, 0, 2]) for v in (keys, values))
        keys = graph.turned(keys, *of_keys, head)
        outputs += [(f"keys.{layer}", keys, [kv, prompt, head]), (f"values.{layer}", values, [kv, prompt, head])]
        scaled = graph.op("Mul", queries, graph.floats(head ** -0.5))
        scores = graph.op("MatMul", scaled, graph.op("Transpose", keys, perm=[0, 2, 1]))
        attended = graph.op("MatMul", graph.op("Softmax", graph.op("Add", scores, mask), axis=-1), values)
        attended = graph.op("Transpose", graph.reshaped(attended, kv, shared, prompt, head), perm=[2, 0, 1, 3])
        attended = graph.multiply(graph.reshaped(attended, 1, prompt, heads * head), f"layers.{layer}.output", part("output"))
        rows = graph.op("Add", rows, attended)
        normed = graph.normed(rows, part("feed_norm"), shape["epsilon"])
        gate, up = (graph.multiply(normed, f"layers.{layer}.{name}", m) for name, m in zip(("gate", "up"), np.split(part("gate_up"), 2)))
        gated = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        rows = graph.op("Add", rows, graph.multiply(gated, f"layers.{layer}.down", part("down")))
    outputs.append(("rows", rows, [1, prompt, width]))
    for name, value, _ in outputs:
        graph.add("Identity", [value], [name])
    declared = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    body = helper.make_graph(graph.nodes, "prefill", [declared("embeddings", [1, prompt, width])],
                             [declared(name, dims) for name, _, dims in outputs], graph.weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompt", type=int, default=1152)
    a = parser.parse_args()
    onnx.save(build(*weights(a.pack), a.prompt), a.out)


if __name__ == "__main__":
    main()
