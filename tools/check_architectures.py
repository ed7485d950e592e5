#!/usr/bin/env python3
"""Convert and run what export_architectures.py exported, and compare with ONNX Runtime's outputs.

    python tools/check_architectures.py ROCKSHARD DIR            every model in DIR
    python tools/check_architectures.py ROCKSHARD DIR NAME ...   some

Each is converted by convert's own choices, and told sizes where DIR/NAME/options.txt has them. It must be within a relative distance of 1e-5 on the reference
device `cpu`, and at a cosine of at least 0.999 on the simulated NPU, for every output. A file in float16 may be at 1e-4 on the reference: its constants
are rounded (the square root of 2 in GELU is 1.4141), and the importer takes them for what they mean. ppocr-rec's simulated output must also read as
the text that was drawn. Exit code 1 when something fails. Needs: numpy onnx, and rapidocr-onnxruntime for ppocr-rec.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

TEXT = "Three cores at once"
CPU_BOUND, CPU_BOUND_OF_HALF, SIM_COSINE = 1e-5, 1e-4, 0.999
SECONDS = 300


class Failure(Exception):
    pass


def command(step, *arguments):
    try:
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Failure(f"{step} took over {SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Failure(f"{step} ended with {done.returncode}: {next((n for n in lines if n.startswith('error:')), lines[-1])}")


def distance(got, want):
    """Relative distance, whole numbers as numbers."""
    got, want = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)


def cosine(got, want):
    got, want = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    return got @ want / max(np.linalg.norm(got) * np.linalg.norm(want), 1e-30) if np.isfinite(got).all() else 0.0


def read(model, scores):
    """The text that a recogniser's scores [1, steps, characters] spell, by the model's own dictionary."""
    characters = next(p.value for p in model.metadata_props if p.key == "character").splitlines()
    best = scores[0].argmax(axis=1)
    kept = [c for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1])]
    # 0 is the blank; after the dictionary comes the space.
    return "".join(characters[c - 1] if c <= len(characters) else " " for c in kept)


def check(rockshard, folder, scratch):
    """(largest distance on the reference, smallest cosine on the simulator, shards on NPU, shards on the host)."""
    pack = scratch / "pack"
    options = (folder / "options.txt").read_text().split() if (folder / "options.txt").exists() else []
    command("convert", rockshard, "convert", folder / "model.onnx", "--out", pack, "-q", *options)
    manifest = json.loads((pack / "manifest.json").read_text())
    shards = [s for m in manifest["models"] for s in m["shards"]]
    inputs = []
    for model in manifest["models"]:
        for declared in model["inputs"]:
            array = np.load(folder / (re.sub(r"[^A-Za-z0-9._-]", "_", declared["name"]) + ".npy"))
            file = scratch / f"in{len(inputs)}.npy"
            np.save(file, array.astype(np.float32) if array.dtype == np.float16 else array)
            inputs += ["--input", f"{declared['name']}={file}"]
    wanted = {f.name.removeprefix("want_"): np.load(f) for f in sorted(folder.glob("want_*.npy"))}
    worst, least, wrong = 0.0, 1.0, []
    for device in ("cpu", "sim"):
        out = scratch / device
        command(f"run on {device}", rockshard, "run", pack, "-q", "--device", device, "--out", out, *inputs)
        for name, want in wanted.items():
            got = np.load(out / name)
            if got.shape != want.shape:
                wrong.append(f"{device}: {name} is {got.shape}, not {want.shape}")
            elif device == "cpu":
                worst = max(worst, distance(got, want))
            else:
                least = min(least, cosine(got, want))
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in onnx.load(folder / "model.onnx").graph.initializer)
    if not worst <= (CPU_BOUND_OF_HALF if half else CPU_BOUND):
        wrong.append(f"cpu: relative distance {worst:.1e}")
    if not least >= SIM_COSINE:
        wrong.append(f"sim: cosine {least:.6f}")
    if folder.name == "ppocr-rec":
        model = onnx.load(folder / "model.onnx")
        for source, scores in (("ONNX Runtime", next(iter(wanted.values()))), ("sim", np.load(scratch / "sim" / next(iter(wanted))))):
            text = read(model, scores)
            if text != TEXT:
                wrong.append(f"{source} reads {text!r}")
    if wrong:
        raise Failure("; ".join(wrong))
    host = sum(s["core"] == "host" for s in shards)
    return worst, least, len(shards) - host, host


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rockshard", type=Path)
    parser.add_argument("dir", type=Path)
    parser.add_argument("name", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    names = arguments.name or sorted(f.parent.name for f in arguments.dir.glob("*/model.onnx"))
    if not names:
        parser.error(f"{arguments.dir} has no NAME/model.onnx: run export_architectures.py")
    failures = 0
    print(f"{'architecture':<28} {'cpu distance':>12} {'sim cosine':>11} {'NPU':>4} {'host':>4} {'time':>6}")
    for name in names:
        start = time.time()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                worst, least, npu, host = check(arguments.rockshard.resolve(), arguments.dir / name, Path(scratch))
                print(f"{name:<28} {worst:12.1e} {least:11.6f} {npu:4} {host:4} {time.time() - start:4.0f} s", flush=True)
            except Failure as failure:
                failures += 1
                print(f"{name:<28} FAILED {str(failure).replace(scratch, '')}", flush=True)
    print(f"{len(names) - failures} of {len(names)} are right")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
