#!/usr/bin/env python3
"""Converting a model against copying the bytes that it writes, in one run, taking turns.

    cargo build --release
    python3 benches/convert.py MODEL --out DIR [--rounds 3] [-- --resolution 768x512 --shards block]

What follows `--` goes to `rockshard convert`; nothing measures its defaults. DIR needs room for the pack and a copy of it. Prints medians, their ratio and the
converter's peak memory. Both leave their files in the page cache: nothing is synced by either.
"""
import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rockshard", type=Path, default=ROOT / "target/release/rockshard")
    here = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    a = parser.parse_args(sys.argv[1:here])
    options = sys.argv[here + 1:]
    a.out.mkdir(parents=True, exist_ok=True)
    pack, copy = a.out / "pack", a.out / "copy"
    converts, copies = [], []
    for _ in range(a.rounds):
        for folder in (pack, copy):
            shutil.rmtree(folder, ignore_errors=True)
        os.sync()
        converts.append(timed([a.rockshard, "--quiet", "convert", a.model, "--out", pack, *options]))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        os.sync()
        copies.append(timed(["cp", "-r", pack, copy]))
    size = sum(f.stat().st_size for f in pack.rglob("*") if f.is_file())
    for folder in (pack, copy):
        shutil.rmtree(folder)
    print(f"{size / 1e9:.2f} GB written; convert: median {statistics.median(converts):.1f} s of {', '.join(f'{s:.1f}' for s in converts)}; "
          f"copy: median {statistics.median(copies):.1f} s of {', '.join(f'{s:.1f}' for s in copies)}")
    print(f"ratio {statistics.median(converts) / statistics.median(copies):.2f}; converter's peak memory {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
