#!/usr/bin/env python3
"""Make a small Stable Diffusion 1.x checkpoint with random weights, to try what is done with a real one (docs/first-picture.md).

    python tools/make_checkpoint.py OUT        OUT/diffusers: a directory as diffusers saves it; OUT/model.safetensors: the same weights in one file

The one file has the names of the original repository (CompVis/stable-diffusion), as files of SD 1.5 that people pass on have. The tokenizer is
tiny-lcm's, pictures are 64x64, and the scheduler is PNDM with SD 1.5's levels. Needs: torch diffusers transformers.
"""
import re
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENIZER = Path(__file__).resolve().parent.parent / "shards/tiny-lcm/tokenizer"
LEVELS, LAYERS, WIDTH, TOKENS = 4, 2, 32, 77

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def pipeline():
    torch.manual_seed(1)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=TOKENS)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=TOKENS, hidden_act="quick_gelu", projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id))
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 32, 64, 64), layers_per_block=LAYERS, cross_attention_dim=WIDTH, attention_head_dim=4,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32, 32), layers_per_block=1, norm_num_groups=8, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * LEVELS, up_block_types=("UpDecoderBlock2D",) * LEVELS)
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, set_alpha_to_one=False,
                              steps_offset=1)
    return StableDiffusionPipeline(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
                                   feature_extractor=None, requires_safety_checker=False)


def renamed(name, table):
    for ours, theirs in table.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}(?=\.)", rf"\g<1>{theirs}", name)
    return name


def original_unet_name(name):
    """The name that a weight of diffusers' U-Net has in the original repository."""
    per_level = LAYERS + 1
    rules = [
        (r"time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
        (r"conv_in", lambda m: "input_blocks.0.0"),
        (r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{(int(m[1]) + 1) * per_level}.0.op"),
        (r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)", lambda m: f"input_blocks.{1 + int(m[1]) * per_level + int(m[3])}.{kind(m[2])}"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"mid_block\.attentions\.0", lambda m: "middle_block.1"),
        # The deepest level has no attention before its upsampler.
        (r"up_blocks\.(\d)\.upsamplers\.0\.conv", lambda m: f"output_blocks.{int(m[1]) * per_level + LAYERS}.{1 if m[1] == '0' else 2}.conv"),
        (r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)", lambda m: f"output_blocks.{int(m[1]) * per_level + int(m[3])}.{kind(m[2])}"),
        (r"conv_norm_out", lambda m: "out.0"),
        (r"conv_out", lambda m: "out.2"),
    ]
    return by_first_rule(renamed(name, RESNET) if "resnets" in name else name, rules)


def kind(folder):
    return 0 if folder == "resnets" else 1


def original_vae_name(name):
    """The same of diffusers' VAE."""
    rules = [
        (r"(encoder|decoder)\.mid_block\.resnets\.(\d)", lambda m: f"{m[1]}.mid.block_{int(m[2]) + 1}"),
        (r"(encoder|decoder)\.mid_block\.attentions\.0", lambda m: f"{m[1]}.mid.attn_1"),
        (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"encoder.down.{m[1]}.block.{m[2]}"),
        (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", lambda m: f"encoder.down.{m[1]}.downsample"),
        (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.up.{LEVELS - 1 - int(m[1])}.block.{m[2]}"),
        (r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{LEVELS - 1 - int(m[1])}.upsample"),
        (r"(encoder|decoder)\.conv_norm_out", lambda m: f"{m[1]}.norm_out"),
    ]
    name = renamed(name, VAE_ATTENTION) if "attentions" in name else name.replace("conv_shortcut", "nin_shortcut")
    return by_first_rule(name, rules)


def by_first_rule(name, rules):
    for pattern, make in rules:
        if match := re.match(pattern, name):
            return make(match) + name[match.end():]
    return name


def original(pipe):
    """All weights by their original names."""
    weights = {"model.diffusion_model." + original_unet_name(n): t for n, t in pipe.unet.state_dict().items()}
    for name, tensor in pipe.vae.state_dict().items():
        # The original's attention has convolutions where diffusers has linear layers.
        pointwise = "attentions" in name and "group_norm" not in name and tensor.dim() == 2
        weights["first_stage_model." + original_vae_name(name)] = tensor[:, :, None, None] if pointwise else tensor
    for name, tensor in pipe.text_encoder.state_dict().items():
        stem = name if name.startswith("text_model.") else "text_model." + name
        weights["cond_stage_model.transformer." + stem] = tensor
    return {name: tensor.contiguous().clone() for name, tensor in weights.items()}


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out = Path(sys.argv[1])
    pipe = pipeline()
    pipe.save_pretrained(out / "diffusers")
    save_file(original(pipe), out / "model.safetensors")


if __name__ == "__main__":
    main()
