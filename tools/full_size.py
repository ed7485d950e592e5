#!/usr/bin/env python3
"""The full-size run: real architectures exported, converted, proven equal to ONNX Runtime, compiled by the vendor's toolkit.

    cargo build --release
    python tools/full_size.py --work DIR --rknn-python TOOLKIT/bin/python            everything; hours, 60 GB of disk, 12 GB of memory
    python tools/full_size.py --work DIR --only chains --models vision               a piece of it

`chains`: the shards run one after the other in float32 against ONNX Runtime on the exported file; with `--sim`, the simulator's float16
against the same. `compile`: every shard through rknn-toolkit2, Rockchip's simulator against the float32 reference.

Without `--all`, chains cover: every tiling of a model on its first export at its first resolution, and every other resolution, batch and
export of it once. `--all` takes the product. Tables go to standard output; docs/full-size.md keeps them. Exports are made once and kept in
DIR. Needs: torch diffusers transformers onnx onnxscript onnxruntime numpy.
"""
import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ROCKSHARD = TARGET / "release/rockshard"
FLOAT32, REWRITTEN = 1e-5, 1e-4
PLAIN, CLOSED = ("off", "off"), ("auto", "10")


class Model(NamedTuple):
    """What is converted and checked together."""

    # Its name in tools/export_models.py.
    source: str
    # Its networks there; empty for all that there are.
    parts: tuple
    # Tile sizes that cut its attentions.
    rows: str
    grid: str
    # Exporter and attention; the first gets all tilings.
    exports: tuple
    # The first gets all tilings, the smallest the batch of 2; empty where pictures have no part in it.
    resolutions: tuple
    # Whether each resolution is an export of its own.
    fixed: bool = False
    # Whether norms are over so many values that ONNX Runtime's float32 ones are no judge; see `with_float64_norms`.
    large_norms: bool = False

    def tilings(self):
        return [PLAIN, ("auto", "off"), (self.rows, "off"), (self.grid, "off"), ("heads", "off"), CLOSED, ("auto", "auto")]


class Case(NamedTuple):
    """One conversion and its check."""

    exporter: str
    attention: str
    resolution: str | None
    batch: int
    tile: str
    sandwich: str


THREE = (("torchscript", "sdpa"), ("torchscript", "plain"), ("dynamo", "sdpa"))
SIZES = ("512x512", "384x384", "768x512")
MODELS = {
    "text-encoder": Model("sd15-lcm", ("text_encoder",), "rows:32", "grid:32x32", THREE, ()),
    "taesd": Model("taesd", (), "rows:512", "grid:256x256", (THREE[0], THREE[2]), SIZES),
    "vision": Model("smolvlm-vision", (), "rows:256", "grid:128x128", THREE, SIZES[:2], fixed=True),
    "unet": Model("sd15-lcm", ("unet",), "rows:512", "grid:256x256", THREE, SIZES),
    "vae": Model("sd15-lcm", ("vae_encoder", "vae_decoder"), "rows:512", "grid:256x256", THREE, SIZES, large_norms=True),
}


def cases(model, everything):
    """The conversions to check. The dynamo exporter fixes shapes, so it goes with the first resolution and a batch of 1."""
    resolutions = model.resolutions or (None,)
    if everything:
        product = itertools.product(model.exports, resolutions, (1, 2), model.tilings())
        possible = (c for c in product if c[0][0] != "dynamo" or (c[1], c[2]) == (resolutions[0], 1))
        return [Case(*export, resolution, batch, *tiling) for export, resolution, batch, tiling in possible]
    smallest = min(resolutions, key=lambda r: r or "")
    others = [(model.exports[0], r, 1) for r in resolutions[1:]] + [(model.exports[0], smallest, 2)]
    others += [(export, resolutions[0], 1) for export in model.exports[1:]]
    first = [Case(*model.exports[0], resolutions[0], 1, *tiling) for tiling in model.tilings()]
    return first + [Case(*export, r, batch, *tiling) for (export, r, batch), tiling in zip(others, itertools.cycle([PLAIN, CLOSED]))]


def run(*command):
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)


def exported(work, model, exporter, attention, resolution=None):
    """Folder of an export; `resolution` where the export fixes it."""
    folder = work / "-".join(filter(None, [model.source, exporter, attention, resolution if model.fixed else None]))
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        size = ["--resolution", resolution] if resolution and model.fixed else []
        run(sys.executable, ROOT / "tools/export_models.py", model.source, "--out", folder, "--exporter", exporter, "--attention", attention, *size)
        (folder / "done").touch()
    return folder


def view(work, model, folder):
    """The folder, or where only some networks of it are meant, one with links to those.

    Beside a U-Net there must be a text encoder and a decoder; TAESD's is the smallest.
    """
    if not model.parts:
        return folder
    links = work / "view"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir()
    shown = {part: folder / part for part in model.parts}
    if "unet" in shown:
        shown |= {"text_encoder": folder / "text_encoder", "scheduler": folder / "scheduler"}
        shown["vae_decoder"] = exported(work, MODELS["taesd"], "torchscript", "sdpa") / "vae_decoder"
    for name, target in shown.items():
        (links / name).symlink_to(target.resolve(), target_is_directory=True)
    return links


def source_of(folder, part):
    return folder / "onnx/vision_encoder.onnx" if part == "vision" else folder / part / "model.onnx"


def inputs_of(model, scratch):
    """Seeded inputs as npy files, and as arrays."""
    import numpy as np
    rng = np.random.default_rng(0)
    arrays = {}
    for tensor in model["inputs"]:
        if tensor["name"] == "timestep":
            arrays["timestep"] = np.full(tensor["shape"], 499, tensor["dtype"])
        elif tensor["dtype"] == "int64":
            arrays[tensor["name"]] = rng.integers(0, 400, tensor["shape"])
        else:
            arrays[tensor["name"]] = rng.standard_normal(tensor["shape"]).astype(np.float32)
    for name, array in arrays.items():
        np.save(scratch / f"{name}.npy", array)
    return arrays


def with_float64_norms(source):
    """The model with each InstanceNormalization spelled in ONNX Runtime's own float64 operators, beside the model for its weights' sake.

    ONNX Runtime's float32 kernel is off by 1e-5 over the million values of a group of the VAE's, more than the bound on the whole chain.
    Convolutions, products and everything else stay the kernels that judge the other models.
    """
    import onnx
    from onnx import TensorProto, helper
    target = source.with_name(f"float64-norms-{source.name}")
    if target.exists():
        return target
    model = onnx.load(str(source), load_external_data=False)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    names = {n: f"float64-norms/{n}" for n in ("flat", "column", "axis")}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "InstanceNormalization":
            nodes.append(node)
            continue
        x, gamma, beta = node.input
        at = f"float64-norms/{node.output[0]}"
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)

        def step(op, inputs, name, at=at, **attributes):
            name = name if name == node.output[0] else f"{at}/{name}"
            nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
            return name

        def mean(value, name):
            return step("ReduceMean", [value, names["axis"]] if opset >= 18 else [value], name, **({} if opset >= 18 else {"axes": [2]}))

        wide = [step("Cast", [v], f"wide{i}", to=TensorProto.DOUBLE) for i, v in enumerate((x, gamma, beta))]
        flat = step("Reshape", [wide[0], names["flat"]], "flat")
        centred = step("Sub", [flat, mean(flat, "mean")], "centred")
        variance = mean(step("Mul", [centred, centred], "squares"), "variance")
        nodes.append(helper.make_node("Constant", [], [f"{at}/epsilon"], value=helper.make_tensor("", TensorProto.DOUBLE, [1], [epsilon])))
        deviation = step("Sqrt", [step("Add", [variance, f"{at}/epsilon"], "sum")], "deviation")
        normal = step("Div", [centred, deviation], "normal")
        scaled = step("Mul", [normal, step("Reshape", [wide[1], names["column"]], "gamma")], "scaled")
        moved = step("Add", [scaled, step("Reshape", [wide[2], names["column"]], "beta")], "moved")
        back = step("Reshape", [moved, step("Shape", [x], "shape")], "back")
        step("Cast", [back], node.output[0], to=TensorProto.FLOAT)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for key, values in [("flat", [0, 0, -1]), ("column", [-1, 1])] + ([("axis", [2])] if opset >= 18 else []):
        model.graph.initializer.append(helper.make_tensor(names[key], TensorProto.INT64, [len(values)], values))
    onnx.save_model(model, str(target))
    return target


def expected_of(source, model, arrays, cache):
    """ONNX Runtime's output, in a process of its own so that its memory is given back; kept for the next tiling."""
    import numpy as np
    if not cache.exists():
        code = ("import sys, numpy as np, onnxruntime as o; a = dict(np.load(sys.argv[2])); s = o.SessionOptions(); s.intra_op_num_threads = 2; "
                "np.save(sys.argv[4], o.InferenceSession(sys.argv[1], s).run([sys.argv[3]], a)[0])")
        np.savez(cache.with_suffix(".in.npz"), **arrays)
        run(sys.executable, "-c", code, source, cache.with_suffix(".in.npz"), model["outputs"][0]["name"], cache)
    return np.load(cache).astype(np.float64)


def relative_l2(found, expected):
    import numpy as np
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def chains(a):
    print("| network | export | resolution | batch | tile, sandwich | shards | rel. L2 | with float64 norms | sim cosine |\n"
          "|---|---|---|---|---|---|---|---|---|", flush=True)
    kept = a.work / "chains.json"
    done = json.loads(kept.read_text()) if a.resume and kept.exists() else {}
    failed = 0
    for name in a.models:
        for case in cases(MODELS[name], a.all):
            key = " ".join(map(str, (name, *case)))
            try:
                rows = done.get(key) or list(chain(a, MODELS[name], case))
            except subprocess.CalledProcessError as error:
                print(f"| {key}: **failed with {error.returncode}** |", flush=True)
                failed += 1
                continue
            kept.write_text(json.dumps(done := done | {key: rows}, indent=1))
            for row, over in rows:
                print(row, flush=True)
                failed += over
    return failed


def chain(a, model, case):
    """One conversion, all its networks: rows of the table, and whether they are over their limit."""
    import numpy as np
    pack, scratch = a.work / "pack", a.work / "io"
    shutil.rmtree(pack, ignore_errors=True)
    scratch.mkdir(exist_ok=True)
    folder = exported(a.work, model, case.exporter, case.attention, case.resolution)
    size = ["--resolution", case.resolution] if case.resolution and not model.fixed else []
    run(ROCKSHARD, "--quiet", "convert", view(a.work, model, folder), "--out", pack, *size, "--batch", case.batch, "--tile", case.tile,
        "--sandwich", case.sandwich, "--shards", a.shards, "--wide-weights")
    for network in json.loads((pack / "manifest.json").read_text())["models"]:
        if model.parts and network["name"] not in model.parts:
            continue
        arrays = inputs_of(network, scratch)
        source = source_of(folder, network["name"])
        kept = "-".join(filter(None, [folder.name, network["name"], case.resolution, str(case.batch)]))
        expected = expected_of(source, network, arrays, scratch / f"{kept}.npy")
        given = [x for n in arrays for x in ("--input", f"{n}={scratch / n}.npy")]

        def outcome(*device, network=network, given=given):
            run(ROCKSHARD, "--quiet", "run", pack, "--model", network["name"], "--device", *device, "--out", scratch / "out", *given)
            return np.load(scratch / "out" / f"{network['outputs'][0]['name']}.npy").astype(np.float64)

        found = outcome("cpu", "--rewritten")
        plain, error = relative_l2(found, expected), None
        if model.large_norms:
            error = relative_l2(found, expected_of(with_float64_norms(source), network, arrays, scratch / f"{kept}-norms.npy"))
        limit = FLOAT32 if (case.tile, case.sandwich) == PLAIN else REWRITTEN
        over = (plain if error is None else error) > limit
        cosine = "-"
        if a.sim:
            f = outcome("sim")
            cosine = f"{(f * expected).sum() / np.linalg.norm(f) / np.linalg.norm(expected):.7f}"
        row = (f"| {network['name']} | {case.exporter}, {case.attention} | {case.resolution or '-'} | {case.batch} | {case.tile}, {case.sandwich} "
               f"| {len(network['shards'])} | {plain:.1e} | {'-' if error is None else f'{error:.1e}'}{f' **over {limit}**' if over else ''} "
               f"| {cosine} |")
        yield row, bool(over)


def compile_all(a):
    failed = 0
    for name in a.models:
        model = MODELS[name]
        for resolution in sorted(model.resolutions[:2]) or [None]:
            folder = exported(a.work, model, "torchscript", "sdpa", resolution)
            pack = a.work / f"compiled-{name}{f'-{resolution}' if resolution else ''}"
            size = ["--resolution", resolution] if resolution and not model.fixed else []
            if not pack.exists():
                run(ROCKSHARD, "--quiet", "convert", view(a.work, model, folder), "--out", pack, *size, "--shards", a.shards, "--compile",
                    "--verify", "--jobs", a.jobs, "--resume", "--rknn-python", a.rknn_python)
            failed += subprocess.run([sys.executable, ROOT / "tools/check_compiled.py", pack], check=False).returncode
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=["chains", "compile"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--all", action="store_true", help="chains: the product of exports, resolutions, batches and tilings; a day")
    parser.add_argument("--list", action="store_true", help="print the chains that would be checked, and stop")
    parser.add_argument("--resume", action="store_true", help="chains: take the rows of an earlier run with the same DIR that there are")
    parser.add_argument("--shards", default="block")
    parser.add_argument("--sim", action="store_true", help="run the simulator too")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--rknn-python", default="python3")
    a = parser.parse_args()
    if a.list:
        for name in a.models:
            for case in cases(MODELS[name], a.all):
                print(name, *(v for v in case if v is not None))
        return 0
    a.work.mkdir(parents=True, exist_ok=True)
    failed = sum(step(a) for name, step in (("chains", chains), ("compile", compile_all)) if a.only in (None, name))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
