"""The lines of docs/clients.md, as they stand: each block is run in a directory of its own, against a server with the models that the page names."""
import re
import subprocess
import sys
from pathlib import Path

from .harness import Server, need

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/clients.md"
# The address that the page's lines have.
ADDRESS = "http://127.0.0.1:8080"
# What runs a block of a language, behind which its text goes as a file.
RUNNERS = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable], "js": ["node"]}
ENDINGS = {"sh": "block.sh", "python": "block.py", "js": "block.mjs"}


def blocks():
    """Language and text of each block that is to be run."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return [(language, text) for language, text in found if language in RUNNERS]


def documented_lines(bench):
    """Every block of the page runs, and leaves no empty file."""
    folder = bench.scratch / "documented"
    folder.mkdir()
    with Server(bench, packs=[f"pack={bench.packs}/pack", f"captioner={bench.packs}/captioner"]) as server:
        ran = blocks()
        need(len(ran) >= 7, f"only {len(ran)} blocks were found in {PAGE.name}")
        for number, (language, text) in enumerate(ran):
            need(ADDRESS in text or "client." in text, f"block {number} asks nothing of {ADDRESS}")
            file = folder / f"{number}-{ENDINGS[language]}"
            file.write_text(text.replace(ADDRESS, server.address))
            done = subprocess.run([*RUNNERS[language], str(file)], cwd=folder, capture_output=True, text=True, timeout=60)
            need(done.returncode == 0, f"block {number} ({language}) gave {done.returncode}: {done.stderr[-300:]}")
            need('"error"' not in done.stdout, f"block {number} ({language}) printed an error: {done.stdout[:300]}")
        for file in folder.iterdir():
            need(file.stat().st_size > 0, f"{file.name} is empty")
            need(b'{"error"' not in file.read_bytes()[:20], f"{file.name} has an error: {file.read_bytes()[:300]}")
        for name in ("ring.png", "circle.png", "fourth.png"):
            need((folder / name).read_bytes().startswith(b"\x89PNG"), f"{name} is not a PNG")


CHECKS = [documented_lines]
