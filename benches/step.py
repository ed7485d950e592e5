#!/usr/bin/env python3
"""One step in the simulator's float16 numerics against ONNX Runtime's float32 step, with the same threads, in one run.

    cargo build --release -p rockshard-benches --examples
    python benches/step.py MODEL.onnx PACK NAME [--rounds 5] [--threads 2]

Both programs stay loaded and take turns, so that a noisy machine disturbs both. Prints medians, their ratio and peak memory.
Needs: numpy onnxruntime.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPES = {"float32": "float32", "float16": "float32", "int64": "int64", "int32": "int32", "bool": "bool"}


def peer(model, manifest, name, threads):
    """ONNX Runtime's half: one run a line of standard input."""
    import resource
    import time

    import numpy as np
    import onnxruntime
    spec = next(m for m in json.loads(Path(manifest).read_text())["models"] if m["name"] == name)
    rng = np.random.default_rng(1)
    inputs = {t["name"]: rng.standard_normal(t["shape"]).astype(TYPES[t["dtype"]]) if t["dtype"] == "float32"
              else np.full(t["shape"], 499, TYPES[t["dtype"]]) for t in spec["inputs"]}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        session.run([spec["outputs"][0]["name"]], inputs)
        print(time.perf_counter() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pack", type=Path)
    parser.add_argument("name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--step", type=Path, default=ROOT / "target/release/examples/step", help="the program built from benches/")
    a = parser.parse_args()
    if a.peer:
        return peer(a.model, a.pack / "manifest.json", a.name, a.threads)
    ours = [str(a.step), str(a.pack), a.name]
    theirs = [sys.executable, __file__, a.model, str(a.pack), a.name, "--threads", str(a.threads), "--peer"]
    environment = os.environ | {"RAYON_NUM_THREADS": str(a.threads)}
    programs = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) for c in (ours, theirs)]
    times = [[], []]
    for program in programs:
        assert program.stdout.readline().strip() == "ready", "a program ended before it was ready"
    for _ in range(a.rounds):
        for program, seconds in zip(programs, times):
            program.stdin.write("run\n")
            program.stdin.flush()
            seconds.append(float(program.stdout.readline()))
    peaks = [int(program.communicate()[0].strip()) for program in programs]
    medians = [statistics.median(s) for s in times]
    for name, seconds, median, peak in zip(("rockshard sim f16", "ONNX Runtime f32"), times, medians, peaks):
        print(f"{name}: median {median:.2f} s of {', '.join(f'{s:.2f}' for s in seconds)}; peak {peak / 1e9:.2f} GB")
    print(f"ratio {medians[0] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
