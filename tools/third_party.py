#!/usr/bin/env python3
"""Print the licences of the crates that are linked into `rockshard`: what each is under, then the texts that it comes with.

    python3 tools/third_party.py TARGET [--features FEATURES]

Needs Python, and the crates that cargo downloads for a build.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

TEXTS = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def cargo(command, *arguments):
    return subprocess.run(["cargo", command, "--locked", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--features", default="")
    given = parser.parse_args()
    select = ("--manifest-path", "crates/cli/Cargo.toml", "--features", given.features)
    edges = "normal,no-proc-macro"
    tree = cargo("tree", *select, "--target", given.target, "--edges", edges, "--prefix", "none", "--format", "{p}")
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    packages = json.loads(cargo("metadata", *select, "--filter-platform", given.target, "--format-version", "1"))["packages"]
    foreign = [p for p in packages if p["source"] and (p["name"], "v" + p["version"]) in linked]
    if not foreign:
        sys.exit("third_party.py: cargo names no crates that rockshard needs")

    texts = {}
    print("rockshard contains these crates. The texts that they come with follow.\n")
    for package in sorted(foreign, key=lambda p: (p["name"], p["version"])):
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or package['license_file']}, {package['repository'] or package['name']}")
        for file in sorted(Path(package["manifest_path"]).parent.iterdir()):
            if file.is_file() and file.name.upper().startswith(TEXTS):
                texts.setdefault(file.read_text(errors="replace").strip(), []).append(f"{name}: {file.name}")
    for text, places in texts.items():
        print("\n" + "=" * 100 + "\n" + "\n".join(places) + "\n\n" + text)


main()
