#!/usr/bin/env python3
"""Run the NPU shards of a pack one after the other in Rockchip's simulator, on the pack's golden inputs, and compare with the golden outputs.

    TOOLKIT/bin/python tools/check_chain.py PACK [MODEL] [--cosine 0.9999]

PACK was converted with --golden or --verify. Each shard takes what the simulator gave for those before it, so that errors add up as they do on a board. Fails
when the cosine of an output with the float32 reference is below the bound. Host shards are not run: a model that has some between NPU shards is refused. Python needs
rknn-toolkit2 2.5.0, onnx, numpy and safetensors.
"""
import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from compare_simulators import vendor


def cosine(a, b):
    a, b = (x.astype(np.float64).ravel() for x in (a, b))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("model", nargs="?", help="the pack's only model by default")
    parser.add_argument("--cosine", type=float, default=0.9999)
    a = parser.parse_args()
    manifest = json.loads((a.pack / "manifest.json").read_text())
    model = next(m for m in manifest["models"] if a.model in (None, m["name"]))
    if model["golden"] is None or any(s["core"] == "host" for s in model["shards"]):
        raise SystemExit(f"{model['name']} has no golden tensors, or host shards")
    scale = {t["name"]: t.get("scale", 1.0) for s in model["shards"] for t in s["inputs"] + s["outputs"]}
    first = load_file(a.pack / model["golden"]["inputs"])
    values = {k.split("/", 1)[1]: v.astype(np.float32) * scale.get(k.split("/", 1)[1], 1.0) for k, v in first.items() if k.startswith("0/")}
    failed = False
    for shard in model["shards"]:
        inputs = [values[t["name"]].astype(np.float16) for t in shard["inputs"]]
        with tempfile.TemporaryDirectory() as folder:
            outputs = vendor(a.pack.resolve() / shard["file"], inputs, Path(folder))
        golden = load_file(a.pack / shard["golden"])
        for spec, found in zip(shard["outputs"], outputs):
            name = spec["name"]
            values[name] = found.reshape(spec["shape"]).astype(np.float32)
            near = cosine(values[name], golden[f"0/{name}"])
            failed |= near < a.cosine
            print(f"{shard['name']}: {name} cosine {near:.6f}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
