#!/usr/bin/env python3
"""Check `convert --lora` on the full-size U-Net against diffusers' and PEFT's own fusing.

    cargo build --release
    python tools/check_lora.py --work DIR

A random file with the modules, key names, rank and alpha layout of LCM-LoRA for SD 1.5 (kohya names, rank 64) is fused by diffusers into the
U-Net that tools/export_models.py makes, and by `rockshard convert --lora` into its export. Prints the relative L2 between the two U-Nets'
outputs, how far the LoRA moved them, and the keys that fitted nothing; fails over 1e-5 or when there are such keys.
Needs: torch diffusers transformers peft safetensors onnx onnxscript numpy, 12 GB of memory, 20 GB of disk.
"""
import argparse
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

import export_models
from full_size import MODELS, ROCKSHARD, exported, relative_l2, run

RANK, ALPHA, LIMIT = 64, 8.0, 1e-5
# What LCM-LoRA adapts.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
           "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")


def lora(unet):
    """Updates that move each layer's output by a few percent."""
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, module in unet.named_modules():
        if not name.endswith(TARGETS) or not hasattr(module, "weight"):
            continue
        out, inner = module.weight.shape[:2]
        kernel = module.weight.shape[2:]
        key = "lora_unet_" + name.replace(".", "_")
        fan_in = module.weight[0].numel()
        state[f"{key}.lora_down.weight"] = torch.randn(RANK, inner, *kernel, generator=generator) * fan_in ** -0.5
        state[f"{key}.lora_up.weight"] = torch.randn(out, RANK, *(1 for _ in kernel), generator=generator) * 0.05
        state[f"{key}.alpha"] = torch.tensor(ALPHA)
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--exporter", choices=["torchscript", "dynamo"], default="torchscript")
    a = parser.parse_args()
    model, file, pack, out = MODELS["unet"], a.work / "lora.safetensors", a.work / "pack-lora", a.work / "lora-io"
    folder = exported(a.work, model, a.exporter, "sdpa")
    out.mkdir(exist_ok=True)
    # The export's own weights: the same seed gives the same model.
    unet = export_models.built(lambda: UNet2DConditionModel(**export_models.SD15_UNET), SimpleNamespace(weights=None, seed=0))
    state = lora(unet)
    count = len(state) // 3
    save_file(state, file)
    torch.manual_seed(0)
    inputs = {"sample": torch.randn(1, 4, 64, 64), "timestep": torch.tensor([499]), "encoder_hidden_states": torch.randn(1, 77, 768),
              "timestep_cond": torch.randn(1, 256)}
    for name, value in inputs.items():
        np.save(out / f"{name}.npy", value.numpy())
    with torch.no_grad():
        base = export_models.UNet(unet)(*inputs.values()).double().numpy()
        known, alphas = StableDiffusionPipeline.lora_state_dict(state, unet_config=unet.config)
        StableDiffusionPipeline.load_lora_into_unet(known, alphas, unet)
        unet.fuse_lora()
        unet.unload_lora()
        expected = export_models.UNet(unet)(*inputs.values()).double().numpy()
    shutil.rmtree(pack, ignore_errors=True)
    run(ROCKSHARD, "--quiet", "convert", folder, "--out", pack, "--shards", "block", "--sandwich", "off", "--resolution", "512x512", "--wide-weights", "--lora", file)
    given = [x for n in inputs for x in ("--input", f"{n}={out / n}.npy")]
    run(ROCKSHARD, "--quiet", "run", pack, "--model", "unet", "--device", "cpu", "--rewritten", "--out", out / "out", *given)
    found = np.load(out / "out" / "out_sample.npy").astype(np.float64)
    record = json.loads((pack / "manifest.json").read_text())["conversion"]["loras"][0]
    unmatched = record.get("unmatched", [])
    error = relative_l2(found, expected)
    print(f"{count} updates, {record['fused']} fused, {len(unmatched)} unmatched {unmatched[:3]}")
    print(f"relative L2 to diffusers' fused U-Net {error:.1e}; the LoRA moved the output by {relative_l2(expected, base):.2f}")
    return 1 if error > LIMIT or unmatched else 0


if __name__ == "__main__":
    sys.exit(main())
