#!/usr/bin/env python3
"""Run the lines of README.md and docs/first-picture.md as they stand.

    python tools/check_pages.py --exporter ENVIRONMENT --toolkit ENVIRONMENT

Every line of every `sh` block is run by bash, in order, in an empty directory that has the checkout's files, with `target/release/rockshard` in the path (built
with the feature `rknn`) and the double of librknnrt. What people are to put their own names for stands in capitals in the README (MODEL, PACK, TOOLKIT); here
it is a small checkpoint that is made on the spot. The board is a directory, which ssh and rsync are led to. Lines that the gate runs elsewhere are passed over
and said. Python packages: those of tools/requirements.txt, in --exporter; --toolkit has rknn-toolkit2.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What begins a line that is not run here, and where it is run.
ELSEWHERE = {
    "cargo run --release -- demo": "the gate's section `demo`",
    "cargo test --release": "the gate's section `tests`",
    "rockshard serve ": "the gate's sections `server`",
    "git clone ": "the gate itself runs in a clone",
    "python3 -m venv ": "the gate's section `tools` makes both environments",
    "out/exporter/bin/pip install ": "the same",
    "out/toolkit/bin/pip install ": "the same",
}
# A heading of first-picture.md from which on lines are typed on the board.
BOARD = "## On the board"


def blocks(page):
    """The `sh` blocks of a page: the last heading above each, and its lines, where a backslash goes on."""
    heading, inside, found = "", False, []
    for line in page.read_text().splitlines():
        if line.startswith("#") and not inside:
            heading = line
        elif line.strip().startswith("```"):
            if not inside and line.strip() == "```sh":
                found.append((heading, []))
            inside = not inside and line.strip() == "```sh"
        elif inside:
            found[-1][1].append(line.strip())
    return [(heading, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()) for heading, lines in found]


def small_model(path, name, dims, output):
    """An ONNX file `x` to a value of this name, through a weight."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    last = dims[-1] if isinstance(dims[-1], int) else 8
    weight = numpy_helper.from_array(np.eye(last, dtype=np.float32) * 0.5, "weight")
    nodes = [helper.make_node("MatMul", ["x", "weight"], [output]), helper.make_node("Relu", [output], ["y"])]
    graph = helper.make_graph(nodes, name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def small_lora(path, unet, rank):
    """A LoRA file in PEFT's keys for the projections of a diffusers U-Net."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    tensors = {}
    with safe_open(unet, "pt") as weights:
        for key in weights.keys():
            if key.endswith(("to_q.weight", "to_v.weight")):
                out, into = weights.get_slice(key).get_shape()
                module = "unet." + key.removesuffix(".weight")
                tensors[f"{module}.lora_A.weight"] = torch.full((rank, into), 0.01)
                tensors[f"{module}.lora_B.weight"] = torch.full((out, rank), 0.01)
    save_file(tensors, path)


class Reader:
    """Someone who types what a page says."""

    def __init__(self, scratch, arguments):
        self.scratch, self.packs, self.run = scratch, 0, 0
        self.place, self.board, shims = scratch / "checkout", scratch / "board", scratch / "bin"
        for folder in (self.place / "out", self.board, shims):
            folder.mkdir(parents=True)
        for entry in ROOT.iterdir():
            if entry.name not in ("out", ".git"):
                (self.place / entry.name).symlink_to(entry)
        (self.board / "rockshard").symlink_to(self.place)
        for name, environment in (("exporter", arguments.exporter), ("toolkit", arguments.toolkit)):
            (self.place / "out" / name).symlink_to(environment.absolute())
        # ssh [-l USER] HOST COMMAND, as rsync calls it: what the host would run is run in the board's directory.
        remote = shims / "ssh"
        remote.write_text(f'#!/bin/bash\n[[ $1 == -l ]] && shift 2\nshift\ncd "{self.board}" && exec bash -c "$*"\n')
        remote.chmod(0o755)
        self.environment = os.environ | {
            "CARGO_TARGET_DIR": str(ROOT / "target"), "PATH": f"{shims}:{scratch / 'installed/bin'}:{ROOT / 'target/release'}:{os.environ['PATH']}", "CARGO_INSTALL_ROOT": str(scratch / "installed"),
            "ROCKSHARD_RKNNRT": str(ROOT / "target/release/librknnrt.so"), "RSYNC_RSH": str(remote), "MODEL": str(scratch / "small/diffusers")}
        self.words = {"TOOLKIT": str(arguments.toolkit.absolute()), "MODEL": str(scratch / "small-onnx")}
        self.environment.pop("BOARD", None)
        self.prepare(arguments.exporter.absolute() / "bin/python")

    def prepare(self, python):
        """Files that the pages name as the reader's own."""
        small = self.scratch / "small"
        subprocess.run([python, ROOT / "tools/make_checkpoint.py", small], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([python, ROOT / "tools/export_models.py", "sd15", "--weights", small / "diffusers", "--resolution", "64x64", "--out",
                        self.words["MODEL"]], check=True, stdout=subprocess.DEVNULL)
        unet = next((small / "diffusers/unet").glob("*.safetensors"))
        small_lora(self.place / "style.safetensors", unet, 4)
        small_lora(self.place / "lcm-lora.safetensors", unet, 8)
        small_model(self.place / "model.onnx", "model", ["batch", "sequence_length", 8], "hidden")
        small_model(self.place / "detector.onnx", "detector", [1, 3, 640, 640], "/head/scores")

    def type(self, page):
        for heading, lines in blocks(ROOT / page):
            on_board = heading.startswith(BOARD)
            for line in lines:
                command = line.split("    #")[0].strip()
                if not command or command.startswith("#"):
                    continue
                if re.match(r"\w+=\S+$", command):
                    # Later lines of the page may use it.
                    self.environment |= dict([self.assigned(command)])
                    continue
                elsewhere = next((place for start, place in ELSEWHERE.items() if command.startswith(start)), None)
                if elsewhere:
                    print(f"{page}: not here, {elsewhere}: {command}", flush=True)
                    continue
                self.execute(page, command, self.board if on_board else self.place)

    def assigned(self, command):
        name = command.split("=")[0]
        value = subprocess.run(["bash", "-c", f'{command}; printf %s "${name}"'], env=self.environment, check=True, capture_output=True, text=True)
        return name, value.stdout

    def execute(self, page, command, folder):
        if "--out PACK" in command:
            self.packs += 1
        words = self.words | {"PACK": str(self.scratch / f"pack-{self.packs}")}
        typed = re.sub(r"(?<![\w$])(MODEL|PACK|TOOLKIT)(?!\w)", lambda m: words[m[1]], command)
        # By the path of the checkout, cargo knows what it has built.
        if command.startswith("cargo install"):
            typed = re.sub(r"--path \S*crates/cli", f"--path '{ROOT}/crates/cli'", typed)
        start = time.time()
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", typed], cwd=folder, env=self.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{page}: this line ended with {done.returncode}: {command}")
        self.run += 1
        print(f"{page}: {time.time() - start:.0f} s: {command}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exporter", type=Path, required=True)
    parser.add_argument("--toolkit", type=Path, required=True)
    arguments = parser.parse_args()
    for page in ("README.md", "docs/first-picture.md"):
        with tempfile.TemporaryDirectory() as scratch:
            reader = Reader(Path(scratch), arguments)
            reader.type(page)
            if not reader.run:
                sys.exit(f"{page} has no line")
            print(f"{page}: {reader.run} lines run")


if __name__ == "__main__":
    main()
