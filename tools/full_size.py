#!/usr/bin/env python3
"""The full-size run: real architectures exported, converted, proven equal to ONNX Runtime, compiled by the vendor's toolkit.

    cargo build --release
    python tools/full_size.py --work DIR --rknn-python TOOLKIT/bin/python            everything; hours, 40 GB of disk, 12 GB of memory
    python tools/full_size.py --work DIR --only chains --models smolvlm-vision       a piece of it

`chains`: for each model, exporter, resolution and tiling, the shards run one after the other in float32 against ONNX Runtime on the
exported file, and the simulator's float16 against the same. `compile`: every shard through rknn-toolkit2, Rockchip's simulator against
the float32 reference. Tables go to standard output; docs/full-size.md keeps them. Exports are made once and kept in DIR.
Needs: torch diffusers transformers onnx onnxscript onnxruntime numpy.
"""
import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROCKSHARD = ROOT / "target/release/rockshard"
FLOAT32, REWRITTEN = 1e-5, 1e-4
EXPORTS = {
    "sd15-lcm": [("torchscript", "sdpa"), ("torchscript", "plain"), ("dynamo", "sdpa")],
    "taesd": [("torchscript", "sdpa")],
    "smolvlm-vision": [("torchscript", "sdpa"), ("torchscript", "plain"), ("dynamo", "sdpa")],
}
RESOLUTIONS = ["384x384", "512x512", "768x512"]
TILINGS = [("off", "off"), ("auto", "auto"), ("rows:512", "off"), ("grid:256x256", "off"), ("heads", "off"), ("auto", "10")]


def run(*command):
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)


def exported(work, model, exporter, attention):
    """Folder of an export; the dynamo exporter fixes shapes, so it is made at 512 only."""
    folder = work / f"{model}-{exporter}-{attention}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, ROOT / "tools/export_models.py", model, "--out", folder, "--exporter", exporter, "--attention", attention)
        (folder / "done").touch()
    return folder


def source_of(folder, part):
    return folder / "onnx/vision_encoder.onnx" if part == "vision" else folder / part / "model.onnx"


def inputs_of(model, scratch):
    """Seeded inputs as npy files, and as arrays."""
    import numpy as np
    rng = np.random.default_rng(0)
    arrays = {}
    for tensor in model["inputs"]:
        if tensor["name"] == "timestep":
            arrays["timestep"] = np.full(tensor["shape"], 499, np.int64)
        elif tensor["dtype"] == "int64":
            arrays[tensor["name"]] = rng.integers(0, 400, tensor["shape"])
        else:
            arrays[tensor["name"]] = rng.standard_normal(tensor["shape"]).astype(np.float32)
    for name, array in arrays.items():
        np.save(scratch / f"{name}.npy", array)
    return arrays


def expected_of(source, model, arrays, cache):
    """ONNX Runtime's output, in a process of its own so that its memory is given back; kept for the next tiling."""
    import numpy as np
    if not cache.exists():
        code = ("import sys, numpy as np, onnxruntime as o; a = dict(np.load(sys.argv[2])); s = o.SessionOptions(); s.intra_op_num_threads = 2; "
                "np.save(sys.argv[4], o.InferenceSession(sys.argv[1], s).run([sys.argv[3]], a)[0])")
        np.savez(cache.with_suffix(".in.npz"), **arrays)
        run(sys.executable, "-c", code, source, cache.with_suffix(".in.npz"), model["outputs"][0]["name"], cache)
    return np.load(cache)


def chains(a):
    import numpy as np
    print("| model | export | resolution | batch | tile, sandwich | shards | float32 rel. L2 | sim cosine |\n|---|---|---|---|---|---|---|---|")
    failed = 0
    for name in a.models:
        for exporter, attention in EXPORTS[name]:
            folder = exported(a.work, name, exporter, attention)
            fixed = name == "smolvlm-vision" or exporter == "dynamo"
            for resolution in ["512x512"] if fixed else a.resolutions:
                for batch in [1] if exporter == "dynamo" else [1, 2]:
                    for tile, sandwich in a.tilings if batch == 1 else a.tilings[:1]:
                        pack, scratch = a.work / "pack", a.work / "io"
                        shutil.rmtree(pack, ignore_errors=True)
                        scratch.mkdir(exist_ok=True)
                        size = [] if name == "smolvlm-vision" else ["--resolution", resolution]
                        run(ROCKSHARD, "--quiet", "convert", folder, "--out", pack, *size, "--batch", batch, "--tile", tile, "--sandwich", sandwich,
                            "--shards", a.shards)
                        for model in json.loads((pack / "manifest.json").read_text())["models"]:
                            arrays = inputs_of(model, scratch)
                            cache = scratch / f"{folder.name}-{model['name']}-{resolution}-{batch}.npy"
                            expected = expected_of(source_of(folder, model["name"]), model, arrays, cache)
                            found = []
                            for device in (["cpu", "--rewritten"], ["sim"]) if a.sim else (["cpu", "--rewritten"],):
                                given = [x for n in arrays for x in ("--input", f"{n}={scratch / n}.npy")]
                                run(ROCKSHARD, "--quiet", "run", pack, "--model", model["name"], "--device", *device, "--out", scratch / "out", *given)
                                found.append(np.load(scratch / "out" / f"{model['outputs'][0]['name']}.npy").astype(np.float64))
                            e = expected.astype(np.float64)
                            error = np.linalg.norm(found[0] - e) / np.linalg.norm(e)
                            limit = FLOAT32 if (tile, sandwich) == ("off", "off") else REWRITTEN
                            failed += error > limit
                            cosine = f"{(found[1] * e).sum() / np.linalg.norm(found[1]) / np.linalg.norm(e):.7f}" if a.sim else "-"
                            print(f"| {model['name']} | {exporter}, {attention} | {resolution} | {batch} | {tile}, {sandwich} | {len(model['shards'])} "
                                  f"| {error:.1e}{'' if error <= limit else ' **over ' + str(limit) + '**'} | {cosine} |", flush=True)
    return failed


def compile_all(a):
    failed = 0
    for name in a.models:
        folder = exported(a.work, name, "torchscript", "sdpa")
        for resolution in ["512x512"] if name == "smolvlm-vision" else a.resolutions[:2]:
            pack = a.work / f"compiled-{name}-{resolution}"
            size = [] if name == "smolvlm-vision" else ["--resolution", resolution]
            if not pack.exists():
                run(ROCKSHARD, "--quiet", "convert", folder, "--out", pack, *size, "--shards", a.shards, "--compile", "--verify", "--jobs", a.jobs,
                    "--resume", "--rknn-python", a.rknn_python)
            failed += subprocess.run([sys.executable, ROOT / "tools/check_compiled.py", pack], check=False).returncode
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=["chains", "compile"])
    parser.add_argument("--models", nargs="+", choices=EXPORTS, default=list(EXPORTS))
    parser.add_argument("--resolutions", nargs="+", default=RESOLUTIONS)
    parser.add_argument("--tilings", nargs="+", type=lambda t: tuple(t.split(",")), default=TILINGS, metavar="TILE,SANDWICH")
    parser.add_argument("--shards", default="block")
    parser.add_argument("--sim", action="store_true", help="run the simulator too")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--rknn-python", default="python3")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    failed = sum(step(a) for name, step in (("chains", chains), ("compile", compile_all)) if a.only in (None, name))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
