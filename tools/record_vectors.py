#!/usr/bin/env python3
"""Record what diffusers and transformers compute, for the tests of crates/diffusion.

    python tools/record_vectors.py sampler            LCMScheduler: schedules, steps, noising, guidance embedding
    python tools/record_vectors.py samplers           the other schedulers: noising, scaling, steps
    python tools/record_vectors.py tokenizer          CLIPTokenizer on the tiny vocabulary in tests/data/tokenizer
    python tools/record_vectors.py drawings           digests of the tiny model's training pictures
    python tools/record_vectors.py clip-vocab DIR     vocab.json and merges.txt of OpenAI's CLIP, from the open_clip_torch wheel
    python tools/record_vectors.py clip-tokenizer DIR CLIPTokenizer on that vocabulary

Results go to crates/diffusion/tests/data. The real vocabulary is too large to commit: make it with `clip-vocab DIR` and run
the test with ROCKSHARD_CLIP_VOCAB=DIR. Needs: torch diffusers transformers numpy; `clip-vocab` needs pip and a network.
"""
import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "crates" / "diffusion" / "tests" / "data"
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]

PROMPTS = [
    "", " ", "a small red circle at the top left of a blue background", "A PHOTO of a Cat, 8k!!", "  two   spaces\tand\nlines \r\n ",
    "don't we'll I'm they've you'd it's he'S", "digits 1234567890 3.14 1/2", "emoji 😀👩‍👩‍👧‍👦🏳️‍🌈 flags 🇫🇷", "数字 文字化け 漢字かな交じり文", "Привет, мир!",
    "مرحبا بالعالم", "שלום", "हिन्दी देवनागरी", "한국어 조합 \u1112\u1161\u11ab", "ไทย ภาษา", "café cafe\u0301 naïve ÀÉÎÕÜ ß ſ ﬁ Å \u212b",
    "İstanbul ISPARTA ΑΣ ὈΔΥΣΣΕΎΣ ǅ", "tabs\t\x0b\x0c\x1c\x85\u2028\u2029\u3000ends", "nul\x00and\x01control\x7f\x9f", "zero\u200bwidth\u200djoin\ufeffbom",
    "soft\u00adhyphen \u202ertl", "٣٤٥ ⅷ ² ½ Ⅻ ①", "<|endoftext|> inside <|startoftext|>", "<|ENDOFTEXT|> upper", "a<|endoftext|>b <|end", "(masterpiece:1.2), [low] {quality} \\(x\\)",
    "https://example.org/?q=1&r=two#three", "snake_case __dunder__ kebab-case", "e\u0301\u0323 o\u0308\u0304", "\U0001d4d0\U0001d4d1 math 𝟘𝟙", "''s ''' 's't're", "\ufffd\uffff\U0010ffff",
]
REPEATED = [("x", 300), ("red ", 75), ("red ", 76), ("red ", 77), ("blue circle ", 5000), ("ab1", 100), ("😀", 40)]


def write(name, value):
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / name).write_text(json.dumps(value, indent=None, separators=(",", ":")) + "\n")
    print(f"{name}: {(DATA / name).stat().st_size} bytes")


def sampler_cases():
    base = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "original_inference_steps": 50, "timestep_scaling": 10.0, "clip_sample": False, "set_alpha_to_one": True}
    for prediction in ("epsilon", "sample", "v_prediction"):
        for steps in (1, 2, 4, 8):
            yield base | {"prediction_type": prediction}, steps, 1.0
        yield base | {"prediction_type": prediction}, 4, 0.5
    yield base | {"prediction_type": "epsilon", "beta_schedule": "linear"}, 4, 1.0
    yield base | {"prediction_type": "epsilon", "clip_sample": True, "clip_sample_range": 0.75}, 4, 0.8
    yield base | {"prediction_type": "v_prediction", "timestep_scaling": 3.0, "original_inference_steps": 100, "set_alpha_to_one": False}, 7, 0.33
    yield base | {"prediction_type": "epsilon", "num_train_timesteps": 500, "original_inference_steps": 30}, 6, 0.9


def record_sampler():
    import torch
    import diffusers.schedulers.scheduling_lcm as module
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler
    cases = []
    generator = torch.Generator().manual_seed(11)
    draw = lambda: torch.randn(1, 4, 2, 2, generator=generator)
    for config, steps, strength in sampler_cases():
        scheduler = LCMScheduler(**config)
        scheduler.set_timesteps(steps, strength=strength)
        clean, noise = draw(), draw()
        first = scheduler.timesteps[:1]
        sample = scheduler.add_noise(clean, noise, first)
        case = {"config": config, "steps": steps, "strength": strength, "timesteps": scheduler.timesteps.tolist(),
                "clean": clean.flatten().tolist(), "noise": noise.flatten().tolist(), "noisy": sample.flatten().tolist(), "trace": []}
        for t in scheduler.timesteps:
            output, fresh = draw(), draw()
            module.randn_tensor = lambda *_, **__: fresh
            previous, denoised = scheduler.step(output, t, sample, return_dict=False)
            case["trace"].append({"output": output.flatten().tolist(), "noise": fresh.flatten().tolist(),
                                  "previous": previous.flatten().tolist(), "denoised": denoised.flatten().tolist()})
            sample = previous
        cases.append(case)
    schedules = []
    for original in (10, 25, 30, 50, 64, 100):
        for steps in (1, 2, 3, 4, 5, 6, 7, 8, 12, 20, 25, 33, 50):
            for strength in (1.0, 0.9, 0.75, 0.5, 0.3, 0.1):
                scheduler = LCMScheduler(original_inference_steps=original)
                try:
                    scheduler.set_timesteps(steps, strength=strength)
                    schedules.append([original, steps, strength, scheduler.timesteps.tolist()])
                except (ValueError, ZeroDivisionError):
                    schedules.append([original, steps, strength, None])
    embeddings = []
    for guidance in (1.0, 1.2, 2.0, 4.0, 7.5, 8.0):
        for size in (4, 64, 255, 256):
            w = torch.tensor(guidance - 1).repeat(1)
            embedding = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, embedding_dim=size)
            embeddings.append({"guidance": guidance, "size": size, "values": embedding[0].tolist()})
    alphas = {name: LCMScheduler(beta_schedule=name).alphas_cumprod.tolist()[::37] for name in ("linear", "scaled_linear")}
    write("sampler.json", {"cases": cases, "schedules": schedules, "embeddings": embeddings, "alphas_every_37": alphas})


def samplers_cases():
    """Our name of the sampler, diffusers' class, and its settings."""
    base = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    stable = base | {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False, "skip_prk_steps": True}
    for prediction in ("epsilon", "v_prediction"):
        common = stable | {"prediction_type": prediction}
        for spacing in ({}, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}):
            yield "ddim", "DDIMScheduler", common | spacing
            yield "pndm", "PNDMScheduler", common | spacing
            yield "euler", "EulerDiscreteScheduler", common | spacing
            yield "euler-a", "EulerAncestralDiscreteScheduler", common | spacing
            yield "dpm++2m", "DPMSolverMultistepScheduler", common | spacing
        yield "dpm++2m-karras", "DPMSolverMultistepScheduler", common | {"use_karras_sigmas": True}
        yield "dpm++2m", "DPMSolverMultistepScheduler", common | {"solver_type": "heun", "final_sigmas_type": "sigma_min"}
        yield "dpm++2m", "DPMSolverMultistepScheduler", common | {"euler_at_final": True, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
        yield "dpm++2m", "DPMSolverMultistepScheduler", common | {"solver_order": 1}
        yield "euler", "EulerDiscreteScheduler", common | {"use_karras_sigmas": True}
        yield "euler", "EulerDiscreteScheduler", common | {"final_sigmas_type": "sigma_min"}
        yield "ddim", "DDIMScheduler", common | {"clip_sample": True, "clip_sample_range": 0.8, "set_alpha_to_one": True}
        yield "tcd", "TCDScheduler", common
    for name, scheduler in (("ddim", "DDIMScheduler"), ("dpm++2m", "DPMSolverMultistepScheduler"), ("euler", "EulerDiscreteScheduler"), ("tcd", "TCDScheduler")):
        yield name, scheduler, stable | {"prediction_type": "sample"}
    # What is absent means something else to each class.
    for name, scheduler in (("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler"), ("euler-a", "EulerAncestralDiscreteScheduler"), ("dpm++2m", "DPMSolverMultistepScheduler")):
        yield name, scheduler, {}


def record_samplers():
    """Runs of each scheduler as the pipelines of Stable Diffusion drive it: text to image, and image to image where strength is below 1."""
    import importlib
    import torch
    import diffusers
    generator = torch.Generator().manual_seed(12)
    draw = lambda: torch.randn(1, 1, 1, 3, generator=generator)
    flat = lambda tensor: [float(f"{v:.8g}") for v in tensor.flatten().tolist()]
    cases = []
    for name, kind, config in samplers_cases():
        # DPM-Solver ends long runs in another way.
        for steps, strength in ((10, 1.0), (1, 1.0), (10, 0.6), *((20, 1.0),) * name.startswith("dpm")):
            scheduler = getattr(diffusers, kind).from_config(config)
            module = importlib.import_module(scheduler.__module__)
            scheduler.set_timesteps(steps)
            timesteps = scheduler.timesteps
            start = float(scheduler.init_noise_sigma)
            skipped = steps - min(int(steps * strength), steps)
            timesteps = timesteps[skipped:]
            if skipped and hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(skipped)
            clean, noise = draw(), draw()
            noised = scheduler.add_noise(clean, noise, timesteps[:1])
            sample, trace = noised, []
            for t in timesteps:
                output, fresh = draw(), draw()
                module.randn_tensor = lambda *_, **__: fresh
                scaled = scheduler.scale_model_input(sample, t)
                sample = scheduler.step(output, t, sample, return_dict=False)[0]
                trace.append({"output": flat(output), "noise": flat(fresh), "scaled": flat(scaled), "previous": flat(sample)})
            cases.append({"name": name, "config": config | {"_class_name": kind}, "steps": steps, "strength": strength, "start": start,
                          "timesteps": [float(t) for t in timesteps], "clean": flat(clean), "noise": flat(noise), "noised": flat(noised), "trace": trace})
    write("samplers.json", cases)


def fnv(values):
    """FNV-1a of 64 bits over 32-bit little-endian integers, as hexadecimal digits."""
    digest = 0xCBF29CE484222325
    for value in values:
        for byte in int(value).to_bytes(4, "little"):
            digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def record_ids(tokenizer):
    """Ids of each prompt without the padding, and a digest of the ids of every 256 code points put between letters."""
    end = tokenizer.eos_token_id

    def ids(text):
        return tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids

    prompts = []
    for unit, times in [(text, 1) for text in PROMPTS] + REPEATED:
        text = unit * times
        row = ids(text)
        assert len(row) == 77
        while len(row) > 1 and row[-1] == tokenizer.pad_token_id and row[-2] in (tokenizer.pad_token_id, end):
            row.pop()
        total = len(tokenizer(text, add_special_tokens=False).input_ids)
        prompts.append({"text": unit, "times": times, "ids": row, "dropped": max(0, total - 75)})
    blocks = []
    for start in range(0, 0x110000, 256):
        points = [c for c in range(start, start + 256) if not 0xD800 <= c < 0xE000]
        blocks.append(fnv(tokenizer("".join(f"a{chr(c)}b {chr(c)}" for c in points), add_special_tokens=False).input_ids))
    return {"pad": tokenizer.pad_token_id, "prompts": prompts, "code_points": blocks}


VARIANTS = {
    "stable_diffusion_1": {"bos_token": True, "eos_token": True, "unk_token": True, "pad_token": "<|endoftext|>"},
    "stable_diffusion_2": {"bos_token": True, "eos_token": True, "unk_token": True, "pad_token": "!"},
}


def record_variants(folder):
    """Ids under the special tokens of SD 1.5 and 2.1, whose marks are matched after lower-casing; 2.1 pads with "!"."""
    from transformers import CLIPTokenizer
    out = {}
    for name, special in VARIANTS.items():
        mark = lambda text: {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        tokens = {k: mark(SPECIAL[k != "bos_token"]) if v is True else v for k, v in special.items()}
        with tempfile.TemporaryDirectory() as temporary:
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(folder / file, temporary)
            (Path(temporary) / "special_tokens_map.json").write_text(json.dumps(tokens))
            config = {k: v | {"__type": "AddedToken"} if isinstance(v, dict) else v for k, v in tokens.items()}
            config |= {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
            (Path(temporary) / "tokenizer_config.json").write_text(json.dumps(config))
            out[name] = {"special_tokens_map": tokens, "tokenizer_config": config} | record_ids(CLIPTokenizer.from_pretrained(temporary))
            del out[name]["code_points"]
    return out


def record_tokenizer(folder, name):
    from transformers import CLIPTokenizer
    write(name, record_ids(CLIPTokenizer.from_pretrained(folder)))
    if folder == DATA / "tokenizer":
        write("tokenizer_variants.json", record_variants(folder))
        (DATA / "tokenizer_json").mkdir(exist_ok=True)
        CLIPTokenizer.from_pretrained(folder).backend_tokenizer.save(str(DATA / "tokenizer_json" / "tokenizer.json"), False)


def clip_vocabulary(folder):
    """The vocabulary as CLIP's SimpleTokenizer builds it: bytes, bytes ending a word, 48894 merges, two marks."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, "open_clip_torch"], check=True)
        wheel = zipfile.ZipFile(next(Path(temporary).glob("open_clip_torch-*.whl")))
        packed = next(n for n in wheel.namelist() if n.endswith("bpe_simple_vocab_16e6.txt.gz"))
        lines = gzip.decompress(wheel.read(packed)).decode().split("\n")
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    merges = lines[1:49152 - 256 - 2 + 1]
    tokens = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges] + SPECIAL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in merges))
    special = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "unk_token": SPECIAL[1], "pad_token": SPECIAL[1]}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))
    print(f"{folder}: {len(tokens)} tokens, {len(merges)} merges")


def record_drawings():
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import train_tiny_lcm as tiny
    held = tiny.held_out_scenes()[:64]
    rows = []
    for i, scene in enumerate(held):
        rng = random.Random(i)
        dx, dy = rng.uniform(-tiny.JITTER, tiny.JITTER), rng.uniform(-tiny.JITTER, tiny.JITTER)
        factor = rng.uniform(0.96, 1.04)
        picture = tiny.draw(scene, random.Random(i)).transpose(1, 2, 0)
        fields = dict(zip(("shape", "colour", "size", "position", "background"), scene))
        rows.append(fields | {"caption": tiny.full_caption(scene), "seed": i, "dx": dx, "dy": dy, "factor": factor,
                              "sums": picture.astype(int).sum(axis=(0, 1)).tolist()})
    write("drawings.json", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sampler", "samplers", "tokenizer", "drawings", "clip-vocab", "clip-tokenizer"])
    parser.add_argument("folder", nargs="?", type=Path, help="folder of the real CLIP vocabulary")
    arguments = parser.parse_args()
    if arguments.what.startswith("clip-") and arguments.folder is None:
        parser.error(f"{arguments.what} needs a folder")
    match arguments.what:
        case "sampler":
            record_sampler()
        case "samplers":
            record_samplers()
        case "tokenizer":
            record_tokenizer(DATA / "tokenizer", "tokenizer.json")
        case "drawings":
            record_drawings()
        case "clip-vocab":
            clip_vocabulary(arguments.folder)
        case "clip-tokenizer":
            record_tokenizer(arguments.folder, "clip_tokenizer.json")


if __name__ == "__main__":
    main()
