#!/usr/bin/env python3
"""Train the bundled tiny text-to-image model and export it in the layout of SD 1.5 LCM.

    python tools/train_tiny_lcm.py all  --work DIR --out shards/tiny-lcm
    python tools/train_tiny_lcm.py STAGE --work DIR          one stage: tokenizer vae latents unet lcm eval export taesd

The model draws one shape on a plain background from captions such as "a small red circle at the top left of a blue
background". It has the parts and files of SD 1.5 LCM at 1/200 of the size: CLIP tokenizer and text encoder,
UNet2DConditionModel with `timestep_cond`, AutoencoderKL with 8x latents, LCM scheduler, and beside the VAE a tiny one in the
layout of TAESD, distilled from the exported encoder. Every stage is seeded, writes a checkpoint under --work and continues from it. Needs: torch diffusers transformers tokenizers onnx onnxscript onnxruntime.
"""
import argparse
import itertools
import json
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from export_models import TextEncoder, TinyDecoder, TinyEncoder, UNet, VaeDecoder, VaeEncoder, without_traces

SIZE = 128
SHAPES = ["circle", "square", "triangle", "diamond", "cross", "ring"]
COLOURS = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "yellow": (240, 220, 50),
    "purple": (140, 60, 180), "orange": (245, 140, 40), "white": (245, 245, 245), "black": (25, 25, 25),
}
RADII = {"small": 18.0, "large": 30.0}
POSITIONS = {
    "top left": (40, 40), "top": (64, 40), "top right": (88, 40),
    "left": (40, 64), "center": (64, 64), "right": (88, 64),
    "bottom left": (40, 88), "bottom": (64, 88), "bottom right": (88, 88),
}
JITTER = 2.0
MAX_LENGTH = 77
SCENES = [s for s in itertools.product(SHAPES, COLOURS, RADII, POSITIONS, COLOURS) if s[1] != s[4]]


def held_out_scenes():
    """One scene in ten is never drawn during training; the first 64 of them are the test captions."""
    scenes = list(SCENES)
    random.Random(64).shuffle(scenes)
    return scenes[: len(scenes) // 10]


def training_scenes():
    held = set(held_out_scenes())
    return [s for s in SCENES if s not in held]


def full_caption(scene):
    shape, colour, size, position, background = scene
    return f"a {size} {colour} {shape} at the {position} of a {background} background"


def caption(scene, rng):
    """A caption of the scene. A scene that is large or centred may leave that unsaid: those are the defaults."""
    shape, colour, size, position, background = scene
    noun = f"{colour} {shape}"
    if size == "small" or rng.random() < 0.5:
        noun = f"{size} {noun}"
    where = "" if position == "center" and rng.random() < 0.6 else position
    form = rng.randrange(3)
    if form == 0:
        return f"a {noun} at the {where} of a {background} background" if where else f"a {noun} on a {background} background"
    if form == 1:
        return f"{noun}, {where}, {background} background" if where else f"{noun}, {background} background"
    return f"a picture of a {noun} on a {background} background" + (f", at the {where}" if where else "")


def draw(scene, rng):
    """uint8 [3, SIZE, SIZE]: the shape, antialiased by its signed distance, on a plain background."""
    shape, colour, size, position, background = scene
    cx, cy = (c + rng.uniform(-JITTER, JITTER) for c in POSITIONS[position])
    r = RADII[size] * rng.uniform(0.96, 1.04)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
    dx, dy = x - cx, y - cy
    ax, ay = np.abs(dx), np.abs(dy)
    if shape == "circle":
        d = np.hypot(dx, dy) - r
    elif shape == "ring":
        d = np.abs(np.hypot(dx, dy) - 0.76 * r) - 0.24 * r
    elif shape == "square":
        d = np.maximum(ax, ay) - 0.86 * r
    elif shape == "diamond":
        d = (ax + ay - 1.1 * r) / math.sqrt(2)
    elif shape == "cross":
        d = np.minimum(np.maximum(ax - r, ay - 0.3 * r), np.maximum(ay - r, ax - 0.3 * r))
    else:
        side = (ax * 2 - dy - 0.9 * r) / math.sqrt(5)
        d = np.maximum(side, dy - 0.9 * r)
    cover = np.clip(0.5 - d, 0, 1)[None]
    fore, back = (np.array(COLOURS[c], np.float32)[:, None, None] for c in (colour, background))
    return np.round(fore * cover + back * (1 - cover)).astype(np.uint8)


def build_text_encoder(vocabulary):
    from transformers import CLIPTextConfig, CLIPTextModel
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=96, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH, hidden_act="quick_gelu", projection_dim=96,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1, attn_implementation="eager")
    return CLIPTextModel(config)


def build_vae():
    from diffusers import AutoencoderKL
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64), layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=SIZE)


def build_tiny_vae():
    """TAESD's architecture (https://github.com/madebyollin/taesd) with fewer channels and blocks."""
    from diffusers import AutoencoderTiny
    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16, 16), decoder_block_out_channels=(24, 24, 24, 24), num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1), latent_channels=4, scaling_factor=1.0)


def build_unet():
    from diffusers import UNet2DConditionModel
    return UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(64, 96, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=96, attention_head_dim=4, norm_num_groups=16, time_cond_proj_dim=64)


def build_scheduler():
    from diffusers import LCMScheduler
    return LCMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        original_inference_steps=50, timestep_scaling=10.0, prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=True)


def guidance_embedding(w, dim=64):
    """Sinusoidal embedding of the guidance scale as LatentConsistencyModelPipeline computes it. w: [batch]."""
    from diffusers import LatentConsistencyModelPipeline
    return LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, embedding_dim=dim)


def save(path, **state):
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def resume(path, model, optimiser):
    """Go on from a checkpoint where there is one; gives the steps that are done."""
    if not path.exists():
        return 0
    state = torch.load(path)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]


class Tools:
    """Paths, budgets and the parts that several stages load."""

    def __init__(self, arguments):
        self.work = Path(arguments.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.out = Path(arguments.out)
        self.arguments = arguments

    def fast(self, function):
        return torch.compile(function) if self.arguments.compile else function

    def tokenizer(self):
        from transformers import CLIPTokenizer
        return CLIPTokenizer.from_pretrained(self.work / "tokenizer")

    def encode(self, captions):
        t = self.tokenizer()
        return torch.tensor(t(captions, padding="max_length", max_length=MAX_LENGTH, truncation=True).input_ids)

    def vae(self):
        vae = build_vae()
        vae.load_state_dict(torch.load(self.work / "vae.pt")["model"])
        return vae.eval().requires_grad_(False)

    def scale(self):
        return torch.load(self.work / "latents.pt")["scale"]


def train_tokenizer(t):
    """Byte-level BPE with CLIP's end-of-word marks, learned on the captions, in CLIPTokenizer's two files."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers, Regex
    rng = random.Random(1)
    corpus = [caption(s, rng) for s in SCENES]
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=768, end_of_word_suffix="</w>", initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in merges]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [c + "</w>" for c in alphabet]
    tokens += [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    tokens = list(dict.fromkeys(tokens))
    folder = t.work / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        special | {"model_max_length": MAX_LENGTH, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer", "add_prefix_space": False}, indent=2))
    ids = t.tokenizer()("a small red circle at the top left of a blue background").input_ids
    print(f"tokenizer: {len(tokens)} tokens, {len(merges)} merges; a caption is {len(ids)} ids")


def as_float(pictures):
    return pictures.float() / 127.5 - 1


def clock(t, name, step, steps, start, loss):
    print(f"{name} {step}/{steps} loss {loss:.5f} {time.time() - start:.0f} s", flush=True)


def train_vae(t):
    """Two thirds of the steps on 64x64 crops, the rest on whole pictures (the mid attention sees its real size)."""
    path, steps = t.work / "vae.pt", t.arguments.vae_steps
    torch.manual_seed(2)
    rng = random.Random(2)
    scenes = training_scenes()
    vae = build_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    step = resume(path, vae, optimiser)
    pool = torch.from_numpy(np.stack([draw(rng.choice(scenes), rng) for _ in range(3000)]))
    generator = torch.Generator().manual_seed(step)

    def reconstruct(x, noise):
        d = vae.encode(x).latent_dist
        return vae.decode(d.mean + d.std * noise).sample, d.kl().mean()

    reconstruct = t.fast(reconstruct)
    start, running = time.time(), 0.0
    while step < steps:
        whole = step >= 2 * steps // 3
        index = torch.randint(len(pool), (8 if whole else 24,), generator=generator)
        x = as_float(pool[index])
        if not whole:
            i, j = torch.randint(65, (2,), generator=generator).tolist()
            x = x[:, :, i:i + 64, j:j + 64]
        rate = 2e-3 * min(1, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=t.arguments.bf16):
            noise = torch.randn((len(x), 4, x.shape[2] // 8, x.shape[3] // 8), generator=generator)
            y, kl = reconstruct(x.contiguous(memory_format=torch.channels_last), noise)
        y = y.float()
        loss = F.mse_loss(y, x) + 0.5 * F.l1_loss(y, x) + 1e-7 * kl.float()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            clock(t, "vae", step, steps, start, running)
        if step % 500 == 0 or step == steps:
            save(path, model=vae.state_dict(), optimiser=optimiser.state_dict(), step=step)


@torch.no_grad()
def cache_latents(t):
    """Latents of `--pictures` training pictures, scaled to unit variance, with the scene of each."""
    vae, rng = t.vae(), random.Random(3)
    scenes = training_scenes()
    chosen = [scenes[i % len(scenes)] for i in range(t.arguments.pictures)]
    means, deviations = [], []
    start = time.time()
    for i in range(0, len(chosen), 32):
        x = as_float(torch.from_numpy(np.stack([draw(s, rng) for s in chosen[i:i + 32]])))
        with torch.autocast("cpu", torch.bfloat16, enabled=t.arguments.bf16):
            d = vae.encode(x).latent_dist
        means.append(d.mean.float())
        deviations.append(d.std.float())
    mean = torch.cat(means)
    scale = 1 / mean.std().item()
    save(t.work / "latents.pt", mean=mean, deviation=torch.cat(deviations), scene=chosen, scale=scale)
    error = F.mse_loss(vae.decode(mean[:32]).sample, as_float(torch.from_numpy(np.stack([draw(s, random.Random(9)) for s in chosen[:32]]))))
    print(f"latents: {len(chosen)} in {time.time() - start:.0f} s, scaling_factor {scale:.5f}, picture MSE with other jitter {error:.5f}")


def shape_weight(scene):
    """Loss weights [1, 16, 16] of mean one: half the loss lies on the shape's box, however small the shape is."""
    cx, cy = (c / 8 for c in POSITIONS[scene[3]])
    reach = (RADII[scene[2]] + 2 * JITTER) / 8
    y, x = torch.meshgrid(*[torch.arange(SIZE // 8) + 0.5] * 2, indexing="ij")
    inside = ((x - cx).abs() < reach + 0.5) & ((y - cy).abs() < reach + 0.5)
    share = inside.float().mean()
    return torch.where(inside, 0.5 / share, 0.5 / (1 - share))[None]


class Batches:
    """Latents, captions and loss weights for U-Net training: scaled samples of the posterior, token ids, `shape_weight`."""

    def __init__(self, t, seed):
        cached = torch.load(t.work / "latents.pt", weights_only=False)
        self.mean, self.deviation, self.scale, self.scenes = (cached[k] for k in ("mean", "deviation", "scale", "scene"))
        self.weights = torch.stack([shape_weight(s) for s in self.scenes])
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = random.Random(seed)
        self.tokenizer = t.tokenizer()
        self.empty = self.ids([""])[0]
        self.memory = {}

    def ids(self, captions):
        return torch.tensor(self.tokenizer(captions, padding="max_length", max_length=MAX_LENGTH, truncation=True).input_ids)

    def draw(self, count, drop):
        index = torch.randint(len(self.mean), (count,), generator=self.generator)
        noise = torch.randn(self.mean[index].shape, generator=self.generator)
        latents = (self.mean[index] + self.deviation[index] * noise) * self.scale
        rows = []
        for i in index.tolist():
            text = caption(self.scenes[i], self.rng)
            if text not in self.memory:
                self.memory[text] = self.ids([text])[0]
            rows.append(self.empty if self.rng.random() < drop else self.memory[text])
        return latents, torch.stack(rows), self.weights[index]


def signal_and_noise(steps):
    abar = build_scheduler().alphas_cumprod[steps].view(-1, 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()


def load_pair(path, t):
    text, unet = build_text_encoder(len(t.tokenizer())), build_unet()
    state = torch.load(path)
    text.load_state_dict(state["text_average"])
    unet.load_state_dict(state["unet_average"])
    return text, unet, state


def average(target, source, decay):
    with torch.no_grad():
        for a, b in zip(target.parameters(), source.parameters()):
            a.lerp_(b, 1 - decay)


def train_unet(t):
    """Diffusion training with v-prediction, text encoder trained along, 10 % empty captions."""
    path, steps, batch = t.work / "unet.pt", t.arguments.unet_steps, t.arguments.batch
    torch.manual_seed(4)
    text, unet = build_text_encoder(len(t.tokenizer())), build_unet()
    text_average, unet_average = build_text_encoder(len(t.tokenizer())), build_unet()
    text_average.load_state_dict(text.state_dict())
    unet_average.load_state_dict(unet.state_dict())
    parameters = [*text.parameters(), *unet.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-3, betas=(0.9, 0.99))
    step = 0
    if path.exists():
        state = torch.load(path)
        step = state["step"]
        for model, key in ((text, "text"), (unet, "unet"), (text_average, "text_average"), (unet_average, "unet_average")):
            model.load_state_dict(state[key])
        optimiser.load_state_dict(state["optimiser"])
    unet.to(memory_format=torch.channels_last)
    batches = Batches(t, 4 + step)

    def predict(noisy, k, ids):
        return unet(noisy, k, encoder_hidden_states=text(ids)[0]).sample

    predict = t.fast(predict)
    start, running = time.time(), 0.0
    while step < steps:
        x, ids, weight = batches.draw(batch, 0.1)
        # Half the draws lie in the upper half of the schedule, where few-step sampling decides what is drawn.
        u = torch.rand(batch, generator=batches.generator)
        k = ((1 - u ** 1.5) * 1000).long().clamp(0, 999)
        noise = torch.randn(x.shape, generator=batches.generator)
        signal, sigma = signal_and_noise(k)
        noisy, target = signal * x + sigma * noise, signal * noise - sigma * x
        rate = 1e-3 * min(1, step / 300) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=t.arguments.bf16):
            v = predict(noisy.contiguous(memory_format=torch.channels_last), k, ids)
        loss = (weight * (v.float() - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(0.998, (1 + step) / (10 + step))
        average(text_average, text, decay)
        average(unet_average, unet, decay)
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            clock(t, "unet", step, steps, start, running)
        if step % 500 == 0 or step == steps:
            save(path, step=step, optimiser=optimiser.state_dict(), text=text.state_dict(), unet=unet.state_dict(),
                 text_average=text_average.state_dict(), unet_average=unet_average.state_dict())


def boundary(k):
    """c_skip, c_out of the consistency model (LCM, timestep_scaling 10, sigma_data 0.5)."""
    s = 10.0 * k.view(-1, 1, 1, 1)
    return 0.25 / (s * s + 0.25), s / (s * s + 0.25).sqrt()


def train_lcm(t):
    """Latent consistency distillation with guidance embedding (Luo et al. 2023), DDIM solver of 50 steps, w in [1, 4]."""
    path, steps, batch = t.work / "lcm.pt", t.arguments.lcm_steps, t.arguments.batch
    torch.manual_seed(5)
    text, teacher, _ = load_pair(t.work / "unet.pt", t)
    text.eval().requires_grad_(False)
    teacher.eval().requires_grad_(False)
    student, target_model = build_unet(), build_unet()
    student.load_state_dict(teacher.state_dict())
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    target_model.load_state_dict(student.state_dict())
    optimiser = torch.optim.AdamW(student.parameters(), lr=2e-4, weight_decay=0, betas=(0.9, 0.99))
    step = 0
    if path.exists():
        state = torch.load(path)
        step = state["step"]
        student.load_state_dict(state["unet"])
        target_model.load_state_dict(state["unet_average"])
        optimiser.load_state_dict(state["optimiser"])
    batches = Batches(t, 50000 + step)
    empty = text(batches.empty[None])[0]
    start, running = time.time(), 0.0
    autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=t.arguments.bf16)
    while step < steps:
        x, ids, weight = batches.draw(batch, 0.0)
        j = torch.randint(50, (batch,), generator=batches.generator)
        k = j * 20 + 19
        previous = (k - 20).clamp(min=0)
        noise = torch.randn(x.shape, generator=batches.generator)
        w = 1 + 3 * torch.rand(batch, generator=batches.generator)
        signal, sigma = signal_and_noise(k)
        signal_previous, sigma_previous = signal_and_noise(previous)
        noisy = signal * x + sigma * noise
        embedding = guidance_embedding(w - 1)
        with torch.no_grad(), autocast():
            hidden = text(ids)[0]
            v = teacher(torch.cat([noisy, noisy]), torch.cat([k, k]), torch.cat([hidden, empty.expand_as(hidden)])).sample.float()
            v_text, v_empty = v.chunk(2)
            v = v_empty + w.view(-1, 1, 1, 1) * (v_text - v_empty)
            clean, epsilon = signal * noisy - sigma * v, sigma * noisy + signal * v
            earlier = signal_previous * clean + sigma_previous * epsilon
            skip, out = boundary(previous)
            v_target = target_model(earlier, previous, hidden, timestep_cond=embedding).sample.float()
            goal = skip * earlier + out * (signal_previous * earlier - sigma_previous * v_target)
        with autocast():
            v = student(noisy, k, hidden, timestep_cond=embedding).sample.float()
        skip, out = boundary(k)
        guess = skip * noisy + out * (signal * noisy - sigma * v)
        loss = (weight * (((guess - goal) ** 2 + 1e-6).sqrt() - 1e-3)).mean()
        rate = 2e-4 * min(1, step / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        average(target_model, student, 0.95)
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        step += 1
        if step % 50 == 0:
            clock(t, "lcm", step, steps, start, running)
        if step % 250 == 0 or step == steps:
            save(path, step=step, optimiser=optimiser.state_dict(), unet=student.state_dict(), unet_average=target_model.state_dict())


def pipeline(t, distilled=True):
    from diffusers import LatentConsistencyModelPipeline
    text, unet, _ = load_pair(t.work / "unet.pt", t)
    if distilled:
        unet.load_state_dict(torch.load(t.work / "lcm.pt")["unet_average"])
    else:
        torch.nn.init.zeros_(unet.time_embedding.cond_proj.weight)
    vae = t.vae()
    vae.register_to_config(scaling_factor=t.scale())
    pipe = LatentConsistencyModelPipeline(
        vae=vae, text_encoder=text.eval(), tokenizer=t.tokenizer(), unet=unet.eval(), scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def evaluate(t):
    """Pictures of the 64 held-out captions at 4 steps, as PNG files and one contact sheet. Judge them with the Rust checker."""
    from PIL import Image
    pipe = pipeline(t, (t.work / "lcm.pt").exists())
    folder = t.work / "pictures"
    folder.mkdir(exist_ok=True)
    sheet = Image.new("RGB", (8 * SIZE, 8 * SIZE))
    wrong = 0
    for i, scene in enumerate(held_out_scenes()[:64]):
        generator = torch.Generator().manual_seed(i)
        picture = pipe(full_caption(scene), height=SIZE, width=SIZE, num_inference_steps=4, guidance_scale=2.0, generator=generator).images[0]
        picture.save(folder / f"{i:02}.png")
        sheet.paste(picture, (i % 8 * SIZE, i // 8 * SIZE))
        pixels = np.asarray(picture, np.float32)
        ideal = draw(scene, random.Random(0)).transpose(1, 2, 0).astype(np.float32)
        wrong += np.abs(pixels - ideal).mean() > 12
    sheet.save(t.work / "sheet.png")
    print(f"eval: {64 - wrong} of 64 close to the scene by mean absolute difference")


def half_weights(model):
    """Store every float32 initializer of 64 or more values as float16, behind a Cast, as half-precision exports do."""
    import onnx
    from onnx import numpy_helper, helper, TensorProto
    casts = []
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + "_f16")
        model.graph.initializer[i].CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=name + "_cast", to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    return model


def write_onnx(models, folder, data="weights.data"):
    """Save models side by side. Tensors of 256 bytes and more go to one data file; equal bytes are stored once."""
    import hashlib
    import onnx
    folder.mkdir(parents=True, exist_ok=True)
    places, blob = {}, bytearray()

    def place(tensor):
        if not tensor.HasField("raw_data") or len(tensor.raw_data) < 256:
            return
        digest = hashlib.sha256(tensor.raw_data).digest()
        if digest not in places:
            blob.extend(b"\0" * (-len(blob) % 64))
            places[digest] = len(blob)
            blob.extend(tensor.raw_data)
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", data), ("offset", str(places[digest])), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    for name, model in models.items():
        for tensor in model.graph.initializer:
            place(tensor)
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    (folder / data).write_bytes(bytes(blob))


def torchscript(module, inputs, names, outputs, axes):
    import io
    import onnx
    buffer = io.BytesIO()
    torch.onnx.export(module, inputs, buffer, input_names=names, output_names=outputs, dynamic_axes=axes,
                      opset_version=17, do_constant_folding=True, dynamo=False)
    return onnx.load_from_string(buffer.getvalue())


@torch.no_grad()
def export(t):
    import shutil
    import onnx
    pipe = pipeline(t)
    out = t.out
    length = MAX_LENGTH
    ids = torch.zeros(1, length, dtype=torch.int64)
    latent = torch.randn(1, 4, SIZE // 8, SIZE // 8)
    hidden = torch.randn(1, length, pipe.text_encoder.config.hidden_size)
    spatial = {0: "batch", 2: "height", 3: "width"}
    text = torchscript(TextEncoder(pipe.text_encoder), (ids,), ["input_ids"], ["last_hidden_state", "pooler_output"], {"input_ids": {0: "batch"}})
    write_onnx({"model.onnx": half_weights(text)}, out / "text_encoder")
    unet_inputs = (latent, torch.tensor([999]), hidden, torch.randn(1, 64))
    unet_names = ["sample", "timestep", "encoder_hidden_states", "timestep_cond"]
    unet = torchscript(UNet(pipe.unet), unet_inputs, unet_names, ["out_sample"],
                       {"sample": spatial, "encoder_hidden_states": {0: "batch"}, "timestep_cond": {0: "batch"}, "out_sample": spatial})
    program = torch.onnx.export(UNet(pipe.unet).eval(), unet_inputs, dynamo=True, input_names=unet_names, output_names=["out_sample"], opset_version=18)
    program.save(str(t.work / "dynamo.onnx"), external_data=False)
    dynamo = without_traces(onnx.load(t.work / "dynamo.onnx"))
    write_onnx({"model.onnx": half_weights(unet), "model_dynamo.onnx": half_weights(dynamo)}, out / "unet")
    picture = torch.randn(1, 3, SIZE, SIZE)
    encoder = torchscript(VaeEncoder(pipe.vae), (picture,), ["sample"], ["latent_parameters"], {"sample": spatial, "latent_parameters": spatial})
    write_onnx({"model.onnx": half_weights(encoder)}, out / "vae_encoder")
    decoder = torchscript(VaeDecoder(pipe.vae), (latent,), ["latent_sample"], ["sample"], {"latent_sample": spatial, "sample": spatial})
    write_onnx({"model.onnx": half_weights(decoder)}, out / "vae_decoder")
    for part, config in (("text_encoder", pipe.text_encoder.config.to_dict()), ("unet", dict(pipe.unet.config)),
                         ("vae_encoder", dict(pipe.vae.config)), ("vae_decoder", dict(pipe.vae.config))):
        plain = {k: v for k, v in config.items() if k != "_name_or_path"}
        (out / part / "config.json").write_text(json.dumps(plain, indent=2, default=str) + "\n")
    shutil.copytree(t.work / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    (out / "scheduler").mkdir(exist_ok=True)
    scheduler = dict(pipe.scheduler.config) | {"_class_name": "LCMScheduler"}
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2, default=str) + "\n")
    index = {"_class_name": "OnnxLatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCMScheduler"],
             "text_encoder": ["diffusers", "OnnxRuntimeModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
             "unet": ["diffusers", "OnnxRuntimeModel"], "vae_decoder": ["diffusers", "OnnxRuntimeModel"], "vae_encoder": ["diffusers", "OnnxRuntimeModel"]}
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    held = [dict(zip(("shape", "colour", "size", "position", "background"), s), caption=full_caption(s), seed=i)
            for i, s in enumerate(held_out_scenes()[:64])]
    (out / "held_out.json").write_text(json.dumps(held, indent=1) + "\n")
    check_export(t, pipe)


def teacher_latents(t, pictures):
    """The U-Net's latents of uint8 pictures by the exported VAE encoder: mean and deviation, scaled."""
    import onnxruntime
    session = onnxruntime.InferenceSession(t.out / "vae_encoder" / "model.onnx")
    factor = json.loads((t.out / "vae_encoder" / "config.json").read_text())["scaling_factor"]
    found = [torch.from_numpy(session.run(None, {"sample": as_float(pictures[i:i + 32]).numpy()})[0]) for i in range(0, len(pictures), 32)]
    mean, logarithm = torch.cat(found).chunk(2, dim=1)
    return mean * factor, (0.5 * logarithm.clamp(-30, 20)).exp() * factor


def train_tiny_vae(t):
    """The encoder learns the latents of the VAE, the decoder the pictures of those latents, of what is near them and of its own; on crops."""
    path, steps, crop = t.work / "taesd.pt", t.arguments.taesd_steps, 64
    torch.manual_seed(5)
    rng = random.Random(5)
    scenes = training_scenes()
    vae = build_tiny_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    step = resume(path, vae, optimiser)
    pool = torch.from_numpy(np.stack([draw(rng.choice(scenes), rng) for _ in range(2000)]))
    mean, deviation = teacher_latents(t, pool)
    generator = torch.Generator().manual_seed(step)
    start, running = time.time(), 0.0
    while step < steps:
        index = torch.randint(len(pool), (16,), generator=generator)
        i, j = torch.randint((SIZE - crop) // 8 + 1, (2,), generator=generator).tolist()
        cells = (slice(None), slice(None), slice(i, i + crop // 8), slice(j, j + crop // 8))
        x = as_float(pool[index][:, :, 8 * i:8 * i + crop, 8 * j:8 * j + crop]).contiguous(memory_format=torch.channels_last)
        target, spread = mean[index][cells], deviation[index][cells]
        noise = torch.randn(target.shape, generator=generator)
        # Latents that a U-Net drew are less exact than those of a picture.
        near = target + (spread + 0.06 * torch.rand((len(index), 1, 1, 1), generator=generator)) * noise
        rate = 2e-3 * min(1, step / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=t.arguments.bf16):
            latents = vae.encode(x).latents
            both = vae.decode(torch.cat([near, latents.float().detach()])).sample
        latents, both, pictures = latents.float(), both.float(), torch.cat([x, x])
        loss = F.mse_loss(latents, target) + F.mse_loss(both, pictures) + 0.5 * F.l1_loss(both, pictures)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            clock(t, "taesd", step, steps, start, running)
        if step % 500 == 0 or step == steps:
            save(path, model=vae.state_dict(), optimiser=optimiser.state_dict(), step=step)
    export_tiny_vae(t, vae.eval())


@torch.no_grad()
def export_tiny_vae(t, vae):
    import onnxruntime
    picture, latent = torch.randn(1, 3, SIZE, SIZE), torch.randn(1, 4, SIZE // 8, SIZE // 8)
    spatial = {0: "batch", 2: "height", 3: "width"}
    encoder = torchscript(TinyEncoder(vae), (picture,), ["sample"], ["latents"], {"sample": spatial, "latents": spatial})
    write_onnx({"model.onnx": half_weights(encoder)}, t.out / "taesd_encoder")
    decoder = torchscript(TinyDecoder(vae), (latent,), ["latent_sample"], ["sample"], {"latent_sample": spatial, "sample": spatial})
    write_onnx({"model.onnx": half_weights(decoder)}, t.out / "taesd_decoder")
    plain = {k: v for k, v in dict(vae.config).items() if k != "_name_or_path"}
    for part in ("taesd_encoder", "taesd_decoder"):
        (t.out / part / "config.json").write_text(json.dumps(plain, indent=2, default=str) + "\n")
    rng = random.Random(9)
    held = torch.from_numpy(np.stack([draw(s, rng) for s in held_out_scenes()[:64]]))
    mean, _ = teacher_latents(t, held)
    run = lambda part, value: torch.from_numpy(onnxruntime.InferenceSession(t.out / part / "model.onnx").run(None, value)[0])
    latents = run("taesd_encoder", {"sample": as_float(held).numpy()})
    back = run("taesd_decoder", {"latent_sample": mean.numpy()})
    size = sum(f.stat().st_size for part in ("taesd_encoder", "taesd_decoder") for f in (t.out / part).iterdir())
    print(f"taesd: latents MSE {F.mse_loss(latents, mean):.5f} of variance {mean.var():.3f}, pictures MSE {F.mse_loss(back, as_float(held)):.5f}, {size / 1e6:.2f} MB")


def check_export(t, pipe):
    """ONNX Runtime against PyTorch, and the two U-Net exports against each other."""
    import onnxruntime
    inputs = {"sample": torch.randn(1, 4, 16, 16), "timestep": torch.tensor([759]),
              "encoder_hidden_states": torch.randn(1, MAX_LENGTH, pipe.unet.config.cross_attention_dim), "timestep_cond": torch.randn(1, 64)}
    expected = UNet(pipe.unet)(*inputs.values()).numpy()
    for name in ("model.onnx", "model_dynamo.onnx"):
        session = onnxruntime.InferenceSession(t.out / "unet" / name)
        got = session.run(None, {k: v.numpy() for k, v in inputs.items()})[0]
        print(f"export: unet/{name} largest difference {np.abs(got - expected).max():.2e} (weights rounded to f16)")
    total = sum(f.stat().st_size for f in t.out.rglob("*") if f.is_file())
    print(f"export: {total / 1e6:.1f} MB under {t.out}")


def main():
    stages = {"tokenizer": train_tokenizer, "vae": train_vae, "latents": cache_latents, "unet": train_unet,
              "lcm": train_lcm, "eval": evaluate, "export": export,
              "taesd": train_tiny_vae}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*stages, "all"])
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--out", default="shards/tiny-lcm", help="folder of the exported model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast (twice as fast where the CPU has avx512_bf16)")
    parser.add_argument("--compile", action="store_true", help="train through torch.compile (needs a C++ compiler)")
    parser.add_argument("--vae-steps", type=int, default=3000)
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--unet-steps", type=int, default=7200)
    parser.add_argument("--lcm-steps", type=int, default=400)
    parser.add_argument("--taesd-steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tools = Tools(arguments)
    for name in stages if arguments.stage == "all" else [arguments.stage]:
        stages[name](tools)


if __name__ == "__main__":
    main()
