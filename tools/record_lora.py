#!/usr/bin/env python3
"""Record what PEFT's own merge computes, for the test of `convert --lora`.

    python tools/record_lora.py [--out crates/cli/tests/data/lora]

A small random U-Net of SD 1.5's kind is exported by both exporters. PEFT adds a random LoRA to its attention, feed-forward, resnet and
sampler layers; the file is saved with PEFT's, diffusers' and kohya's keys. Then PEFT merges it, at scale 1 and 0.5, and PyTorch runs
the merged U-Net. Seeded. Needs: torch diffusers peft onnx onnxscript safetensors.
"""
import argparse
import copy
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from diffusers import UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from export_models import UNet, without_traces

RANK, ALPHA = 4, 6.0
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
           "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]


def build():
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12, attention_head_dim=2, norm_num_groups=4, time_cond_proj_dim=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("crates/cli/tests/data/lora"))
    out = parser.parse_args().out
    (out / "peft").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    base = build().eval().requires_grad_(False)
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([499]), "encoder_hidden_states": torch.randn(1, 5, 12),
              "timestep_cond": torch.randn(1, 8)}
    names, values = list(inputs), tuple(inputs.values())
    torch.onnx.export(UNet(base), values, str(out / "unet.onnx"), input_names=names, output_names=["out_sample"], opset_version=17, dynamo=False)
    program = torch.onnx.export(UNet(base), values, dynamo=True, input_names=names, output_names=["out_sample"], opset_version=18)
    program.save(str(out / "unet_dynamo.onnx"), external_data=False)
    onnx.save(without_traces(onnx.load(out / "unet_dynamo.onnx")), out / "unet_dynamo.onnx")

    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, init_lora_weights=False))
    adapted.save_pretrained(out / "peft")
    (out / "peft" / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "peft" / "adapter_config.json").read_text())
    kept = {k: config[k] for k in ("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern")}
    (out / "peft" / "adapter_config.json").write_text(json.dumps(kept | {"target_modules": sorted(TARGETS)}, indent=2) + "\n")

    peft = {k.removeprefix("base_model.model."): v.contiguous() for k, v in get_peft_model_state_dict(adapted).items()}
    diffusers = {f"unet.{k}": v for k, v in convert_state_dict_to_diffusers(peft).items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({"unet.r": RANK, "unet.lora_alpha": ALPHA})}
    save_file({k: v.half() for k, v in diffusers.items()}, out / "diffusers.safetensors", metadata)
    kohya = {}
    for key, value in peft.items():
        module, half = key.split(".lora_")
        name = "lora_unet_" + module.replace(".", "_")
        kohya[f"{name}.lora_{'down' if half.startswith('A') else 'up'}.weight"] = value
        kohya[f"{name}.alpha"] = torch.tensor(ALPHA)
    kohya["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"] = torch.randn(RANK, 12)
    kohya["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"] = torch.randn(12, RANK)
    save_file(kohya, out / "kohya.safetensors")

    for name, value in inputs.items():
        np.save(out / f"{name}.npy", value.numpy())
    with torch.no_grad():
        np.save(out / "base.npy", UNet(base)(*values).numpy())
        for scale in (1.0, 0.5):
            scaled = copy.deepcopy(adapted)
            for layer in scaled.modules():
                if hasattr(layer, "scale_layer"):
                    layer.scale_layer(scale)
            merged = scaled.merge_and_unload()
            np.save(out / f"merged-{scale:g}.npy", UNet(merged)(*values).numpy())
    print({f.name: f.stat().st_size for f in sorted(out.rglob("*")) if f.is_file()})


if __name__ == "__main__":
    main()
