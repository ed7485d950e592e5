"""The decoder of a 32-bit pack as a graph of ONNX Runtime's contrib operators: packed queries, keys and values, grouped-query attention with rotary positions
inside, fused norms, logits of the last token only. The fastest form that ONNX Runtime has for it; `benches/language.py` runs it as a peer.
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONTEXT = 8192


class Graph:
    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, name, values):
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator, inputs, outputs, domain="", **attributes):
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=f"n{len(self.nodes)}", domain=domain, **attributes))
        return outputs[0]

    def multiply(self, rows, name, values):
        """Rows times a matrix that has a row of inputs for each output."""
        return self.add("MatMul", [rows, self.weight(f"{name}.weight", values.T)], [f"{name}.out"])


def write_gqa(shape, tensor, path):
    """`tensor` gives a matrix of the pack by name. Inputs: inputs_embeds, seqlens_k, total_sequence_length, past_key_values.N.key/value."""
    width, heads, kv, head, inner, vocabulary = (shape[k] for k in ("width", "heads", "kv_heads", "head_width", "inner", "vocabulary"))
    graph, epsilon = Graph(), shape["epsilon"]
    angles = np.outer(np.arange(CONTEXT), shape["theta"] ** (-np.arange(0, head, 2) / head))
    cosines, sines = (graph.weight(name, f(angles).astype(np.float32)) for name, f in (("cosines", np.cos), ("sines", np.sin)))
    floats = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    inputs = [floats("inputs_embeds", 1, "tokens", width), helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, [1]),
              helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, [])]
    outputs = [floats("logits", 1, 1, vocabulary)]
    rows = None
    for layer in range(shape["layers"]):
        name = f"layers.{layer}."
        norm = graph.weight(f"{name}attention_norm", tensor(f"{name}attention_norm"))
        if rows is None:
            stream = "inputs_embeds"
            normed = graph.add("SimplifiedLayerNormalization", [stream, norm], [f"{name}normed"], epsilon=epsilon, axis=-1)
        else:
            normed = graph.add("SkipSimplifiedLayerNormalization", [stream, rows, norm], [f"{name}normed", "", "", f"{name}stream"],
                               "com.microsoft", epsilon=epsilon)
            stream = f"{name}stream"
        qkv = graph.multiply(normed, f"{name}qkv", tensor(f"{name}qkv"))
        past, present = ([f"{kind}.{layer}.{part}" for part in ("key", "value")] for kind in ("past_key_values", "present"))
        inputs += [floats(p, 1, kv, "past", head) for p in past]
        outputs += [floats(p, 1, kv, "total", head) for p in present]
        attended = graph.add("GroupQueryAttention", [qkv, "", "", *past, "seqlens_k", "total_sequence_length", cosines, sines],
                             [f"{name}attended", *present], "com.microsoft", num_heads=heads, kv_num_heads=kv, do_rotary=1)
        output = graph.multiply(attended, f"{name}output", tensor(f"{name}output"))
        norm = graph.weight(f"{name}feed_norm", tensor(f"{name}feed_norm"))
        normed = graph.add("SkipSimplifiedLayerNormalization", [stream, output, norm], [f"{name}fed", "", "", f"{name}between"],
                           "com.microsoft", epsilon=epsilon)
        stream = f"{name}between"
        both = graph.multiply(normed, f"{name}gate_up", tensor(f"{name}gate_up"))
        graph.add("Split", [both], [f"{name}gate", f"{name}up"], axis=-1, num_outputs=2)
        sigmoid = graph.add("Sigmoid", [f"{name}gate"], [f"{name}sigmoid"])
        silu = graph.add("Mul", [f"{name}gate", sigmoid], [f"{name}silu"])
        rows = graph.multiply(graph.add("Mul", [silu, f"{name}up"], [f"{name}gated"]), f"{name}down", tensor(f"{name}down"))
    last = graph.weight("last", np.array([-1]))
    ends = [graph.add("Gather", [value, last], [f"{value}.last"], axis=1) for value in (stream, rows)]
    normed = graph.add("SkipSimplifiedLayerNormalization", [*ends, graph.weight("norm", tensor("norm"))], ["normed"], "com.microsoft", epsilon=epsilon)
    graph.add("MatMul", [normed, graph.weight("head.weight", tensor("head").T)], ["logits"])
    model = helper.make_model(helper.make_graph(graph.nodes, "decoder", inputs, outputs, graph.weights),
                              opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)], ir_version=9)
    onnx.save(model, path)
