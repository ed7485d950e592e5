#!/usr/bin/env python3
"""Record what diffusers' pipelines draw with a small U-Net and each sampler, for crates/rockshard/tests/sampling.rs.

    python tools/record_sampling.py        needs: torch diffusers onnx

Two U-Nets of Stable Diffusion's kind with seeded random weights, one that predicts the noise and one that predicts the velocity, are exported to
crates/rockshard/tests/data/sampling, and beside them latents after ten steps of StableDiffusionPipeline and StableDiffusionImg2ImgPipeline, with and without
guidance. Noise is drawn here and recorded.
"""
import importlib
import json
from pathlib import Path

import diffusers
import torch

OUT = Path(__file__).resolve().parent.parent / "crates/rockshard/tests/data/sampling"
STEPS, STRENGTH, SIDE, TOKENS, WIDTH = 10, 0.6, 4, 7, 8
SCHEDULERS = {
    "lcm": ("LCMScheduler", {}), "tcd": ("TCDScheduler", {}), "ddim": ("DDIMScheduler", {}), "pndm": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}), "euler-a": ("EulerAncestralDiscreteScheduler", {}), "dpm++2m": ("DPMSolverMultistepScheduler", {}),
    "dpm++2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}
STABLE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
          "set_alpha_to_one": False, "clip_sample": False, "skip_prk_steps": True}


def unet(seed):
    torch.manual_seed(seed)
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")).eval()


class Exported(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.inner(sample, timestep, encoder_hidden_states, return_dict=False)[0]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    flat = lambda tensor: [float(f"{v:.9g}") for v in tensor.flatten().tolist()]
    prompt, negative = draw(1, TOKENS, WIDTH), draw(1, TOKENS, WIDTH)
    clean = draw(1, 4, SIDE, SIDE)
    # The first starts a run, the others are for its steps.
    noises = [draw(1, 4, SIDE, SIDE) for _ in range(STEPS + 1)]
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
                                  up_block_types=("UpDecoderBlock2D",) * 4)
    record = {"prompt": flat(prompt), "negative": flat(negative), "clean": flat(clean), "noises": [flat(n) for n in noises],
              "steps": STEPS, "strength": STRENGTH, "runs": []}
    for prediction, seed in (("epsilon", 1), ("v_prediction", 2)):
        model = unet(seed)
        torch.onnx.export(Exported(model), (draw(1, 4, SIDE, SIDE), torch.tensor(1.0), prompt), str(OUT / f"{prediction}.onnx"), opset_version=17,
                          dynamo=False, input_names=["sample", "timestep", "encoder_hidden_states"], output_names=["out_sample"])
        for name, (kind, more) in SCHEDULERS.items():
            config = STABLE | more | {"prediction_type": prediction}
            for guidance in (1.0, 5.0):
                for pipeline, image in ((diffusers.StableDiffusionPipeline, False), (diffusers.StableDiffusionImg2ImgPipeline, True)):
                    scheduler = getattr(diffusers, kind).from_config(config)
                    pipe = pipeline(vae=vae, text_encoder=None, tokenizer=None, unet=model, scheduler=scheduler, safety_checker=None,
                                    feature_extractor=None, requires_safety_checker=False)
                    pipe.set_progress_bar_config(disable=True)
                    left = iter(noises)
                    fresh = lambda *_, **__: next(left)
                    for module in (importlib.import_module(pipeline.__module__), importlib.import_module(scheduler.__module__)):
                        module.randn_tensor = fresh
                    given = {"image": clean, "strength": STRENGTH} if image else {}
                    if name == "tcd":
                        given["eta"] = 0.3
                    if name == "lcm" and image:
                        # As LatentConsistencyModelImg2ImgPipeline, whose schedule starts where the strength says.
                        levels = scheduler.set_timesteps
                        scheduler.set_timesteps = lambda steps, device=None: levels(steps, strength=STRENGTH)
                        pipe.get_timesteps = lambda steps, *_: (scheduler.timesteps, steps)
                    found = pipe(prompt_embeds=prompt, negative_prompt_embeds=negative if guidance > 1 else None, guidance_scale=guidance,
                                 num_inference_steps=STEPS, output_type="latent", **given, **({} if image else {"height": SIDE * 8, "width": SIDE * 8}))
                    record["runs"].append({"sampler": name, "config": config | {"_class_name": kind}, "guidance": guidance, "image": image,
                                           "latent": flat(found.images)})
    (OUT / "runs.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    for file in sorted(OUT.iterdir()):
        print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
