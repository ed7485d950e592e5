#!/usr/bin/env python3
"""Judge a pack that was converted with --compile --verify, and print a table of it.

    python3 tools/check_compiled.py PACK [--cosine 0.9999]

Fails when an NPU shard is not compiled, when the compiler put a convolution, matrix product, attention or norm on the CPU, or when
Rockchip's simulator is further from the float32 reference than the cosine says. Needs only Python.
"""
import argparse
import json
import sys
from pathlib import Path

HEAVY = ("conv", "matmul", "gemm", "sdpattention", "norm")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--cosine", type=float, default=0.9999, help="lowest cosine that passes")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.pack / "manifest.json").read_text())
    problems = []
    print("| model | shards | fused attentions | layers | on the CPU | largest internal memory | weights | cycles | lowest cosine |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in manifest["models"]:
        shards = [s for s in model["shards"] if s["core"] != "host"]
        compiled = [s["compiled"] for s in shards if s.get("compiled")]
        problems += [f"{s['name']}: not compiled" for s in shards if not s.get("compiled")]
        cosines, on_cpu, layers = [], [], []
        for shard in (s for s in shards if s.get("compiled")):
            layers += shard["compiled"]["layers"]
            for layer in shard["compiled"]["layers"]:
                if layer["target"] != "NPU":
                    on_cpu.append(layer["op"])
                    if any(word in layer["op"].lower() for word in HEAVY):
                        problems.append(f"{shard['name']}: {layer['op']} {layer['name']} is on the CPU")
            verified = shard["compiled"].get("verified")
            if verified is None:
                problems.append(f"{shard['name']}: not verified")
            else:
                cosines.append(verified["cosine"])
                if verified["cosine"] < arguments.cosine:
                    problems.append(f"{shard['name']}: cosine {verified['cosine']:.6f}, relative L2 {verified['relative_l2']:.2e}")
        size = "x".join(map(str, model["resolution"])) if model.get("resolution") else ""
        internal = max((c["internal_bytes"] for c in compiled), default=0)
        weights = sum(c["weight_bytes"] for c in compiled)
        cycles = sum(layer["cycles"][2] for layer in layers)
        attentions = sum(layer["op"] == "exSDPAttention" for layer in layers)
        fallen = ", ".join(f"{on_cpu.count(op)} {op}" for op in sorted(set(on_cpu))) or "none"
        print(f"| {model['name']} {size} | {len(shards)} | {attentions} | {len(layers)} | {fallen} | {internal / 1e6:.1f} MB | {weights / 1e6:.1f} MB "
              f"| {cycles} | {min(cosines, default=0):.6f} |")
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
