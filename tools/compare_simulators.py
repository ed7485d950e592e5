#!/usr/bin/env python3
"""Compare the simulated NPU with Rockchip's own simulator, bit by bit.

    cargo build --release -p rockshard-device-sim --example run_shard
    TOOLKIT/bin/python tools/compare_simulators.py operators                 single operators and fused patterns
    TOOLKIT/bin/python tools/compare_simulators.py shards PACK [NAME...]     the NPU shards of a pack (whose names hold one of NAME)

Both run the same ONNX file on the same seeded float16 inputs. A difference is counted in units in the last place (ulp). Where terms
cancel, the order of float32 sums alone moves a result by many of its own ulps, so the largest difference is also given in ulps of
the tensor's root mean square ("at rms", the value's own ulp where that is larger).

Exits with 1 when an operator is bit-identical in less than 99 % of its elements or off by more than one ulp at rms for each rounding
that it makes in a row (where it is several operators, or a sum in pieces), or when a shard's cosine is below 0.99999. Python needs rknn-toolkit2 2.5.0, onnx and numpy; one process a model, as the toolkit wants.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
EXACT, COSINE = 0.99, 0.99999


def in_process(folder, action):
    """Run `action` in a child whose working directory is `folder` and whose output goes to `folder/log`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
            log = os.open("log", os.O_CREAT | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            action()
            code = 0
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
        os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("".join((folder / "log").read_text(errors="replace").splitlines(True)[-12:]))


def vendor(model, inputs, folder):
    """Outputs of Rockchip's simulator, as float32 arrays that hold float16 values."""
    from rknn.api import RKNN

    def action():
        rknn = RKNN(verbose=True)
        steps = [
            lambda: rknn.config(target_platform="rk3588", optimization_level=3),
            lambda: rknn.load_onnx(model=str(model)),
            lambda: rknn.build(do_quantization=False),
            lambda: rknn.init_runtime(),
        ]
        for step in steps:
            if step() != 0:
                raise RuntimeError("the toolkit refused the model")
        found = rknn.inference(inputs=inputs, data_format=["nchw"] * len(inputs))
        np.savez("found.npz", *found)

    in_process(folder, action)
    with np.load(folder / "found.npz") as found:
        return [found[f"arr_{i}"] for i in range(len(found.files))]


def ours(runner, model, inputs, folder):
    """Outputs of rockshard's simulator."""
    files = []
    for i, array in enumerate(inputs):
        files.append(folder / f"input{i}.npy")
        np.save(files[-1], array)
    subprocess.run([runner, model, folder / "sim", *files], check=True)
    return [np.load(folder / "sim" / f"{i}.npy") for i in range(len(list((folder / "sim").iterdir())))]


def ordered(values):
    """float16 values as integers that count units in the last place; both zeros are 0."""
    bits = np.asarray(values, np.float16).view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


class Difference:
    """How two lists of tensors differ."""

    def __init__(self, expected, found):
        self.count = self.equal = self.one = self.worst = 0
        self.at_rms, self.cosine = 0.0, 1.0
        for e, f in zip(expected, found, strict=True):
            e, f = np.asarray(e, np.float32).ravel(), np.asarray(f, np.float32).ravel()
            steps = np.abs(ordered(e) - ordered(f))
            self.count += steps.size
            self.equal += int((steps == 0).sum())
            self.one += int((steps == 1).sum())
            self.worst = max(self.worst, int(steps.max(initial=0)))
            a, b = e.astype(np.float64), f.astype(np.float64)
            rms = np.sqrt(np.mean(a * a)) if a.size else 0.0
            unit = np.spacing(np.maximum(np.abs(a), rms).clip(2.0**-14, 65504).astype(np.float16)).astype(np.float64)
            self.at_rms = max(self.at_rms, float(np.max(np.abs(a - b) / unit, initial=0)))
            norms = np.linalg.norm(a) * np.linalg.norm(b)
            self.cosine = min(self.cosine, float(a @ b / norms) if norms > 0 else float(np.array_equal(a, b)))

    HEAD = "| {} | elements | bit-identical | 1 ulp | more | worst | worst at rms | 1 - cosine |\n|---|---|---|---|---|---|---|---|"

    def row(self, name):
        more = self.count - self.equal - self.one
        return (f"| {name} | {self.count} | {100 * self.equal / self.count:.3f} % | {100 * self.one / self.count:.3f} % | {more} "
                f"| {self.worst} | {self.at_rms:.2g} | {max(1 - self.cosine, 0):.1e} |")

    def exact(self, roundings):
        return self.equal >= EXACT * self.count and self.at_rms <= roundings


def compare(model, inputs, runner):
    folder = Path(tempfile.mkdtemp(prefix="simulators-"))
    try:
        return Difference(vendor(model, inputs, folder), ours(runner, model, inputs, folder))
    finally:
        shutil.rmtree(folder)


def operators(a):
    from operator_models import models
    failed = []
    print(Difference.HEAD.format("operator"))
    for name, model, inputs, roundings in models():
        if a.names and not any(part in name for part in a.names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString())
            difference = compare(path, inputs, a.runner)
        print(difference.row(name), flush=True)
        if roundings and not difference.exact(roundings):
            failed.append(name)
    return failed


def shards(a):
    failed = []
    print(Difference.HEAD.format("shard"))
    manifest = json.loads((a.pack / "manifest.json").read_text())
    for shard in (s for m in manifest["models"] for s in m["shards"]):
        if shard["core"] == "host" or (a.names and not any(part in shard["name"] for part in a.names)):
            continue
        rng = np.random.default_rng(0)
        inputs = [rng.standard_normal(x["shape"]).astype(np.float16).astype(np.float32) for x in shard["inputs"]]
        try:
            difference = compare((a.pack / shard["file"]).resolve(), inputs, a.runner)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{shard['name']}: {error}", file=sys.stderr)
            failed.append(shard["name"])
            continue
        print(difference.row(shard["name"]), flush=True)
        if difference.cosine < COSINE:
            failed.append(shard["name"])
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", type=Path, default=ROOT / "target/release/examples/run_shard")
    what = parser.add_subparsers(required=True)
    part = what.add_parser("operators")
    part.add_argument("names", nargs="*")
    part.set_defaults(run=operators)
    part = what.add_parser("shards")
    part.add_argument("pack", type=Path)
    part.add_argument("names", nargs="*")
    part.set_defaults(run=shards)
    a = parser.parse_args()
    a.runner = a.runner.resolve()
    failed = a.run(a)
    if failed:
        print("Not as Rockchip's simulator: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
