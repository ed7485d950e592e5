#!/usr/bin/env python3
"""Convert and run every node test of the onnx package, and some models that ONNX Runtime judges; write what came of it as a table.

    python tools/check_operators.py ROCKSHARD                              print the table
    python tools/check_operators.py ROCKSHARD --write docs/operators.md    write it
    python tools/check_operators.py ROCKSHARD --check docs/operators.md    compare it with the file
    python tools/check_operators.py ROCKSHARD --only NAME ...              tests whose name contains one of NAME; prints each verdict

Exit code 1: a model was converted and computes something else than it should, a command crashed, or --check found a difference.
Needs: onnx onnxruntime numpy.
"""
import argparse
import collections
import difflib
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from operator_cases import MICROSOFT, OLDER, Case, infer, own_cases

SECONDS = 60
NPU, HOST, RANGE, REFUSED, WRONG = "npu", "host", "range", "refused", "wrong"
# Inputs that files have as initializers: shapes, axes, sizes, quantisation and weights. A test that is refused with these as inputs of the
# graph is tried once more with these as initializers.
CONSTANT = {
    "AffineGrid": [1], "BatchNormalization": [1, 2, 3, 4], "BlackmanWindow": [0], "CausalConvWithState": [1, 2], "CenterCropPad": [1], "Clip": [1, 2],
    "Col2Im": [1, 2], "ConstantOfShape": [0], "Conv": [1, 2], "ConvInteger": [1, 2, 3], "ConvTranspose": [1, 2], "CumProd": [1], "CumSum": [1], "DFT": [1, 2],
    "DeformConv": [1, 3], "DequantizeLinear": [1, 2], "Dropout": [1, 2], "Expand": [1], "GRU": [1, 2, 3, 4], "Gemm": [1, 2], "GroupNormalization": [1, 2],
    "HammingWindow": [0], "HannWindow": [0], "InstanceNormalization": [1, 2], "LSTM": [1, 2, 3, 4, 7], "LayerNormalization": [1, 2], "Loop": [0, 1],
    "MatMulInteger": [1, 2, 3], "MaxUnpool": [2], "MelWeightMatrix": [0, 1, 2, 3, 4], "NonMaxSuppression": [2, 3, 4], "OneHot": [1, 2], "PRelu": [1],
    "Pad": [1, 2, 3], "QLinearConv": [1, 2, 3, 4, 5, 6, 7, 8], "QLinearMatMul": [1, 2, 3, 4, 5, 6, 7], "QuantizeLinear": [1, 2], "RMSNormalization": [1],
    "RNN": [1, 2, 3, 4], "Range": [0, 1, 2], "Reshape": [1], "Resize": [1, 2, 3], "RotaryEmbedding": [1, 2], "STFT": [1, 2, 3], "Slice": [1, 2, 3, 4],
    "Split": [1], "SplitToSequence": [1], "Squeeze": [1], "Tile": [1], "TopK": [1], "Trilu": [1], "Unsqueeze": [1], "Upsample": [1],
} | {f"Reduce{kind}": [1] for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")}
# Relative distance that a device may be from the expected output, by the type of that output; half types carry the test's own rounding.
CPU_BOUND = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
SIM_BOUND = 5e-3
# Root of the mean square error that is nothing, where the values themselves are nothing.
CPU_TINY, SIM_TINY = 1e-6, 1e-4
HALF_LARGEST = 65504.0
# Reason of a verdict: right as ONNX Runtime is, which differs from the test.
AS_ONNXRUNTIME = "as ONNX Runtime"
# Their outputs are random.
RANDOM = {"Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}
BODIES = "functions as their bodies"
SECTIONS = ["", MICROSOFT, OLDER, BODIES, "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"]
TITLES = {"": "ONNX", MICROSOFT: "`com.microsoft` and `SimplifiedLayerNormalization`, by ONNX Runtime", OLDER: "Forms of operator sets 9 to 14, by ONNX Runtime",
          BODIES: "Functions written out as their bodies"}
HEADER = """# Operators

What becomes of each ONNX operator. `tools/check_operators.py` makes this table: it converts every node test that the `onnx` package {onnx}
ships, runs it on the reference device `cpu` and on the simulated NPU, and compares both with the outputs that come with the test. Operators of
ONNX Runtime and forms of older operator sets have models in `tools/operator_cases.py`; their outputs come from ONNX Runtime {onnxruntime}.

- **NPU**: tests that are right on both devices and run on the NPU only. **Host**: right on both, and at least one shard runs on the host.
- **Range**: right on the reference; a value of the test is over 65504, float16's largest, and the simulator differs.
- **Refused**: `convert` says that it cannot, naming the node, and leaves nothing behind; the reasons stand beside. Nothing is refused later than that.
- **Wrong**: converted, but something else than the test expects, or a command that failed. There must be none.
- Right is, for real numbers, a relative distance of at most {cpu:g} on the reference ({half:g} where the test is in float16) and {sim:g} on the simulator, which
  computes in float16; the simulator is also right where its outputs are those for inputs rounded to float16. Integers and truth values must be equal.
  {another}
- *(n const)*: n of them with shapes, axes or weights as initializers, as exporters write them; the test has them as inputs of the graph, and was
  refused like that. A test of an operator set that is not read is tried as one of a set that is, where that computes the same.

{sums}
"""


def node_tests():
    """The onnx package's node tests as cases; outputs that are random are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests
        tests = load_model_tests(kind="node")
    operators = {t.name: (t.model.graph.node[0].domain, t.model.graph.node[0].op_type) for t in tests}
    for test in tests:
        base = re.sub(r"_expanded(_ver\d+)?$", "", test.name)
        domain, operator = operators.get(base, operators[test.name])
        if base in operators and base != test.name:
            domain = BODIES
        elif domain == "ai.onnx":
            domain = ""
        if operator in RANDOM:
            continue
        inputs, outputs = test.data_sets[0]
        graph = test.model.graph
        yield Case(test.name.removeprefix("test_"), domain, operator, test.model, dict(zip((i.name for i in graph.input), inputs)),
                   dict(zip((o.name for o in graph.output), outputs)))


def array_of(value):
    """A test's tensor as numpy array; None for sequences and absent optionals."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if isinstance(value, (np.ndarray, np.generic)) else None


def is_real(dtype):
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def with_constants(case):
    """The case's model with the inputs of CONSTANT as initializers, or None if there are none."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    made = {name for node in model.graph.node for i in CONSTANT.get(node.op_type, []) if i < len(node.input) for name in [node.input[i]]}
    chosen = [i for i in model.graph.input if i.name in made and array_of(case.inputs[i.name]) is not None]
    if not chosen:
        return None
    for value in chosen:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array_of(case.inputs[value.name])), value.name))
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, 8)
    return model


def all_nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from all_nodes(inner)


def restated(case, oldest, newest):
    """The case's model with another operator set between two that gives the same outputs, or None."""
    stated = next((o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx")), None)
    names = {n.op_type for n in all_nodes(case.model.graph) if n.domain in ("", "ai.onnx")}
    if stated is None or case.model.functions:
        return None

    def at(opset):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        next(o for o in model.opset_import if o.domain in ("", "ai.onnx")).version = opset
        return model

    def versions(opset):
        try:
            return [onnx.defs.get_schema(op, opset, "").since_version for op in sorted(names)]
        except onnx.defs.SchemaError:
            return None

    for opset in range(newest, oldest - 1, -1):
        if versions(opset) is not None and versions(opset) == versions(stated):
            return at(opset)
    # Versions that only add element types compute the same.
    if versions(newest) is not None:
        model = at(newest)
        try:
            onnx.checker.check_model(model)
            outputs = computed(model, {n: array_of(v) for n, v in case.inputs.items()})
            if outputs and all(judge(np.asarray(outputs[n]), array_of(v), "cpu") is None for n, v in case.want.items() if n):
                return model
        except Exception:
            return None
    return None


def command(*arguments):
    try:
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=SECONDS, errors="replace")
    except subprocess.TimeoutExpired:
        return 124, f"took over {SECONDS} s"
    return done.returncode, done.stderr.strip()


def file_of(output):
    return re.sub(r"[^A-Za-z0-9._-]", "_", output) + ".npy"


def judge(got, want, device):
    """What is wrong with an output, or None."""
    want = np.asarray(want)
    if got.shape != want.shape:
        return f"shape {list(got.shape)}, not {list(want.shape)}"
    if not is_real(want.dtype):
        if is_real(got.dtype):
            return f"{got.dtype} instead of {want.dtype}"
        different = np.count_nonzero(got.astype(np.int64) != want.astype(np.int64))
        return f"{different} of {want.size} differ" if different else None
    bound, tiny = CPU_BOUND.get(want.dtype.name, CPU_BOUND["bfloat16"]), CPU_TINY
    got, want = got.astype(np.float64), want.astype(np.float64)
    if device == "sim":
        bound, tiny = max(bound, SIM_BOUND), SIM_TINY
        # Over the largest number of float16 is infinity there.
        got, want = (np.where(np.isfinite(a) & (np.abs(a) >= HALF_LARGEST), np.copysign(np.inf, a), a) for a in (got, want))
    finite = np.isfinite(want)
    if not np.array_equal(np.where(finite, 0, want), np.where(np.isfinite(got), 0, got), equal_nan=True):
        return "other infinities or NaN"
    if not finite.any():
        return None
    error, size = np.linalg.norm(got[finite] - want[finite]), np.linalg.norm(want[finite])
    if error <= bound * size + tiny * finite.sum() ** 0.5:
        return None
    return f"relative distance {error / size if size else np.inf:.1e}"


def computed(model, inputs):
    """The model's outputs by onnx's reference or ONNX Runtime; None where neither has it."""
    try:
        from onnx.reference import ReferenceEvaluator
        evaluator = ReferenceEvaluator(model)
        return dict(zip(evaluator.output_names, evaluator.run(None, inputs)))
    except Exception:
        return by_onnxruntime(model, inputs) or None


def by_onnxruntime(model, inputs):
    """The model's outputs by ONNX Runtime; none where it has not all of the model's operators."""
    try:
        return infer(model, inputs)
    except Exception:
        return {}


def on_rounded(model, inputs):
    """As `computed`, for inputs rounded to float16."""
    with np.errstate(all="ignore"):
        return computed(model, {n: a.astype(np.float16).astype(a.dtype) if is_real(np.asarray(a).dtype) else a for n, a in inputs.items()})


def beyond_half(model, inputs):
    """Whether a value of the model, an input or a result in between, is finite and over float16's largest."""
    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for node in model.graph.node for name in node.output if name)
    try:
        from onnx.reference import ReferenceEvaluator
        values = [*inputs.values(), *ReferenceEvaluator(every).run(None, inputs)]
    except Exception:
        values = inputs.values()
    arrays = [np.asarray(v) for v in values if array_of(v) is not None]
    return any((np.abs(a[np.isfinite(a)].astype(np.float64)) > HALF_LARGEST).any() for a in arrays if is_real(a.dtype))


def attempt(model, inputs, want, folder, rockshard):
    """(verdict, reason) of one model."""
    file, pack = folder / "model.onnx", folder / "pack"
    onnx.save(model, file)
    code, error = command(rockshard, "convert", file, "--out", pack, "-q")
    if code:
        if code > 2:
            return WRONG, f"convert ended with {code}: {error[-200:]}"
        if left := [f.name for f in folder.iterdir() if f != file]:
            return WRONG, f"convert failed and left {', '.join(left)}: {error[-200:]}"
        if "calibration:" in error:
            return WRONG, f"converted, but the reference fails: {error[-300:]}"
        names = [n.op_type for n in model.graph.node] + [i.name for i in model.graph.input] + [n.domain for n in model.graph.node if n.domain] + ["opset"]
        return (REFUSED, error) if any(n in error for n in names) else (WRONG, f"refused without naming the operator: {error[-200:]}")
    manifest = json.loads((pack / "manifest.json").read_text())
    host = any(s["core"] == "host" for m in manifest["models"] for s in m["shards"])
    arguments = []
    needed = {i["name"]: i["dtype"] for m in manifest["models"] for i in m["inputs"]}
    for number, (name, value) in enumerate(inputs.items()):
        array = array_of(value)
        if name not in needed:
            continue
        if array is None:
            return WRONG, f"converted, but input {name!r} is not a tensor"
        np.save(folder / f"in{number}.npy", np.asarray(array).astype(needed[name]))
        arguments += ["--input", f"{name}={folder / f'in{number}.npy'}"]
    another = False
    for device in ("cpu", "sim"):
        out = folder / device
        code, error = command(rockshard, "run", pack, "-q", "--device", device, "--out", out, *arguments)
        if code:
            return WRONG, f"run on {device} ended with {code}: {error[-200:]}"
        other = rounded = None
        for name, value in want.items():
            if not name:
                continue
            array = array_of(value)
            if array is None:
                return WRONG, f"converted, but output {name!r} is not a tensor"
            if not (out / file_of(name)).exists():
                return WRONG, f"output {name!r} is missing"
            got = np.load(out / file_of(name))
            wrong = judge(got, array, device)
            if wrong:
                other = by_onnxruntime(model, inputs) if other is None else other
                if name in other and judge(got, other[name], device) is None:
                    another = True
                    continue
            if wrong and device == "sim":
                rounded = on_rounded(model, inputs) if rounded is None else rounded
                if rounded and judge(got, rounded[name], device) is None:
                    continue
                if beyond_half(model, inputs):
                    return RANGE, ""
            if wrong:
                return WRONG, f"{device}, output {name!r}: {wrong}"
    return (HOST if host else NPU), AS_ONNXRUNTIME if another else ""


def check(task):
    """(verdict, reason, with constants?) of a case, as given or as exporters write it."""
    warnings.simplefilter("ignore")
    case, rockshard, opsets = task
    with tempfile.TemporaryDirectory() as scratch:
        tried = 0

        def attempted(model):
            nonlocal tried
            tried += 1
            folder = Path(scratch) / str(tried)
            folder.mkdir()
            inputs = {i.name: case.inputs[i.name] for i in model.graph.input}
            try:
                return attempt(model, inputs, case.want, folder, rockshard)
            except Exception as error:
                return WRONG, f"not checked: {type(error).__name__}: {error}"

        verdict, reason, model = *attempted(case.model), case.model
        if verdict == REFUSED and opsets and re.search(r"opset \d+ is not supported", reason):
            other = restated(case, *opsets)
            if other is not None:
                model = other
                verdict, reason = attempted(model)
        if verdict == REFUSED:
            constant = with_constants(Case(case.name, case.section, case.operator, model, case.inputs, case.want))
            if constant is not None:
                second = attempted(constant)
                return (*second, second[0] != REFUSED)
    return verdict, reason, False


def read_opsets(rockshard):
    """The oldest and newest operator set that convert reads, from what it says of one that it does not."""
    with tempfile.TemporaryDirectory() as scratch:
        model = onnx.helper.make_model(onnx.helper.make_graph(
            [onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])]), opset_imports=[onnx.helper.make_opsetid("", 99)])
        onnx.save(model, Path(scratch) / "model.onnx")
        error = command(rockshard, "convert", Path(scratch) / "model.onnx", "--out", Path(scratch) / "pack", "-q")[1]
    found = re.search(r"from (\d+) to (\d+)", error)
    return (int(found[1]), int(found[2])) if found else None


def shortened(reason):
    """A reason without the node's name and the numbers that only this test has."""
    text = re.sub(r"^rockshard: ", "", reason.splitlines()[-1] if reason else "")
    node = re.search(r'node "[^"]*" \((\w+), opset \d+\): (.*)', text)
    owner, text = (node[1], node[2]) if node else ("", text)
    text = re.sub(r"^model \(\S*\): ", "", text)
    text = re.sub(r'"[^"]*"', "…", text)
    text = re.sub(r"\[[-\d, ]*\]", "[…]", text)
    text = re.sub(r"element type \d+", "element type N", text)
    text = re.sub(r"(; export the model with|; known dimensions:| \(use ).*", "", text)
    return owner, text[:90] + ("…" if len(text) > 90 else "")


def cell(counts, constant):
    return "" if not counts else f"{counts}" + (f" ({constant} const)" if constant else "")


def table(results):
    """Markdown of all results: {(section, operator): [(case name, verdict, reason, constant)]}."""
    lines, sums = [], collections.Counter()
    for section in SECTIONS:
        rows = sorted((operator, found) for (s, operator), found in results.items() if s == section)
        if not rows:
            continue
        lines += ["", f"## {TITLES.get(section, f'`{section}`')}", "", "| operator | NPU | host | range | refused | wrong |", "|---|---|---|---|---|---|"]
        for operator, found in rows:
            counts = collections.Counter(verdict for _, verdict, _, _ in found)
            constant = collections.Counter(verdict for _, verdict, _, const in found if const)
            sums.update(counts)
            reasons = collections.Counter()
            for _, verdict, reason, _ in found:
                if verdict == REFUSED:
                    owner, text = shortened(reason)
                    reasons[text if owner in ("", operator) else f"{owner}: {text}"] += 1
            refused = "; ".join(f"{count}: {text}" for text, count in sorted(reasons.items(), key=lambda r: (-r[1], r[0]))).replace("|", "\\|")
            lines.append(f"| {operator} | {cell(counts[NPU], constant[NPU])} | {cell(counts[HOST], constant[HOST])} | "
                         f"{cell(counts[RANGE], constant[RANGE])} | {refused} | {counts[WRONG] or ''} |")
    total = sum(sums.values())
    summary = (f"Of {total} tests, {sums[NPU]} are right on the NPU, {sums[HOST]} are right with a part on the host, {sums[RANGE]} are beyond "
               f"float16, {sums[REFUSED]} are refused, {sums[WRONG]} are wrong.")
    names = sorted(name for found in results.values() for name, _, reason, _ in found if reason == AS_ONNXRUNTIME)
    another = f"Where ONNX Runtime differs from a test, right is also what it gives: {', '.join(names)}." if names else ""
    header = HEADER.format(onnx=onnx.__version__, onnxruntime=__import__("onnxruntime").__version__, cpu=CPU_BOUND["float32"], half=CPU_BOUND["float16"],
                           sim=SIM_BOUND, sums=summary, another=another)
    return header.rstrip() + "\n" + "\n".join(lines) + "\n", sums


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rockshard", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--check", type=Path, metavar="FILE")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each test's verdict")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    start = time.time()
    rockshard = arguments.rockshard.resolve()
    cases = [*node_tests(), *own_cases()]
    if arguments.only:
        cases = [c for c in cases if any(part in c.name for part in arguments.only)]
    opsets = read_opsets(rockshard)
    results, verdicts = collections.defaultdict(list), []
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        for case, (verdict, reason, constant) in zip(cases, pool.imap(check, ((c, rockshard, opsets) for c in cases), chunksize=8)):
            results[case.section, case.operator].append((case.name, verdict, reason, constant))
            verdicts.append({"test": case.name, "section": case.section, "operator": case.operator, "verdict": verdict, "reason": reason,
                             "constants": constant})
            if verdict == WRONG or arguments.only:
                print(f"{verdict}: {case.name}: {reason}", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(verdicts, indent=1))
    text, sums = table(results)
    failed = sums[WRONG] > 0
    if arguments.write:
        arguments.write.write_text(text)
    elif arguments.check:
        lines = list(difflib.unified_diff(arguments.check.read_text().splitlines(), text.splitlines(), str(arguments.check), "now", lineterm="", n=0))
        print("\n".join(lines))
        failed |= bool(lines)
    elif not arguments.only:
        print(text)
    print(f"{dict(sums)} in {time.time() - start:.0f} s", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
