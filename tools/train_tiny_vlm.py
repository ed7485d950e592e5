#!/usr/bin/env python3
"""Train the bundled tiny vision-language model and export it in the layout of SmolVLM.

    python tools/train_tiny_vlm.py all  --work DIR --out shards/tiny-vlm
    python tools/train_tiny_vlm.py STAGE --work DIR          one stage: tokenizer pictures drawn vision words export eval

The model describes the drawings of tools/train_tiny_lcm.py ("a large red circle at the left of a blue background") and answers questions about them.
It has the parts and files of SmolVLM at 1/50 of the size: a SigLIP encoder for views of 64x64 pixels, the connector with its pixel shuffle, a Llama
decoder with grouped-query attention, a byte-level BPE tokenizer, the processor's configuration and a chat template. Every stage is seeded, writes a
checkpoint under --work and continues from it. Needs: torch diffusers transformers tokenizers pillow onnx onnxruntime.
"""
import argparse
import itertools
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from export_models import SMOLVLM_PREPROCESSOR, Vision, export, export_language, plain_config, write_json
from record_vlm_prompts import SPECIALS, TEMPLATE
from train_tiny_lcm import COLOURS, MAX_LENGTH, POSITIONS, RADII, SHAPES, draw, full_caption, guidance_embedding, half_weights, held_out_scenes, resume, save, training_scenes

SIDE, PATCH, SHUFFLE = 64, 8, 2
PLACES = (SIDE // PATCH // SHUFFLE) ** 2
EDGE = 2
END, IMAGE, FAKE, GLOBAL = "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>"
ABSENT = "there is no shape"
CAPTION_PROMPTS = ["Describe this image.", "Describe the image.", "Can you describe this image?", "What is in this image?", "What do you see?", "Caption this picture."]
QUESTIONS = {
    "colour": ["What colour is the {shape}?", "What color is the {shape}?", "Which colour does the {shape} have?", "What colour is it?"],
    "shape": ["Which shape is it?", "What shape is this?", "Which shape is in the picture?", "Which shape do you see?"],
    "position": ["Where is the {shape}?", "Where is it?", "In which part of the picture is the {shape}?"],
    "size": ["How big is the {shape}?", "How big is it?", "Is the {shape} small or large?", "Which size does the {shape} have?"],
    "background": ["What colour is the background?", "What color is the background?", "Which colour is the background?"],
}
# What the vision encoder learns to tell apart before it meets words. The last shape is none.
CLASSES = {"shape": [*SHAPES, None], "colour": list(COLOURS), "size": list(RADII), "position": list(POSITIONS), "background": list(COLOURS)}


def described(scene):
    """A scene of train_tiny_lcm, or a plain background: (None, None, None, None, colour)."""
    return full_caption(scene) if scene[0] else f"a blank {scene[4]} background"


def answer(topic, scene):
    shape, colour, size, position, background = scene
    if topic == "background":
        return background
    if not shape:
        return ABSENT
    return {"colour": colour, "shape": f"a {shape}", "position": f"at the {position}", "size": size}[topic]


def asked(topic, scene, rng):
    return rng.choice(QUESTIONS[topic]).format(shape=scene[0] if scene[0] and rng.random() < 0.7 else "shape")


def blank(background):
    return (None, None, None, None, background)


def picture(scene, rng):
    """An RGB image of 128x128."""
    if scene[0]:
        return Image.fromarray(draw(scene, rng).transpose(1, 2, 0))
    return Image.new("RGB", (128, 128), COLOURS[scene[4]])


def varied(scene, rng):
    """A picture as other hands draw it: moved, blurred, of slightly other colours, noisy."""
    image = np.asarray(picture(scene, rng), np.float32)
    shift = np.array([rng.randint(-4, 4), rng.randint(-4, 4)])
    rows, columns = (np.clip(np.arange(128) + s, 0, 127) for s in shift)
    image = image[rows][:, columns]
    image = image * rng.uniform(0.94, 1.06) + np.array([rng.uniform(-10, 10) for _ in range(3)], np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(image.shape).astype(np.float32)
    image = image + noise * rng.choice([0, 0, 2, 5])
    made = Image.fromarray(np.clip(np.round(image), 0, 255).astype(np.uint8))
    return made.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6))) if rng.random() < 0.6 else made


def views(image):
    """uint8 [5, 3, 64, 64]: the four tiles and the whole, as the processor splits a picture of 128x128."""
    tiles = [image.crop((x, y, x + SIDE, y + SIDE)) for y in (0, SIDE) for x in (0, SIDE)]
    tiles.append(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return np.stack([np.asarray(t).transpose(2, 0, 1) for t in tiles])


def placeholder(split):
    """What stands for an image in the prompt: the whole alone, or behind its 2x2 tiles."""
    whole = FAKE + GLOBAL + IMAGE * PLACES + FAKE
    if not split:
        return whole
    rows = ("".join(f"{FAKE}<row_{r}_col_{c}>" + IMAGE * PLACES for c in (1, 2)) + "\n" for r in (1, 2))
    return "".join(rows) + "\n" + whole


def as_float(pixels):
    return pixels.float() / 127.5 - 1


class Tools:
    """Paths, budgets and the parts that several stages load."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.work, self.out = Path(arguments.work), Path(arguments.out)
        self.work.mkdir(parents=True, exist_ok=True)

    def tokenizer(self):
        from tokenizers import Tokenizer
        return Tokenizer.from_file(str(self.work / "tokenizer.json"))

    def model(self):
        """The model of transformers, without weights."""
        from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
        tokenizer = self.tokenizer()
        ids = {name: tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>", END, IMAGE)}
        text = dict(model_type="llama", hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                    head_dim=32, rms_norm_eps=1e-5, rope_theta=100000.0, max_position_embeddings=2048, vocab_size=tokenizer.get_vocab_size(),
                    bos_token_id=ids["<|im_start|>"], eos_token_id=ids[END], pad_token_id=ids["<|im_end|>"], tie_word_embeddings=False)
        vision = dict(hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=PATCH,
                      hidden_act="gelu_pytorch_tanh")
        config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=SHUFFLE, image_token_id=ids[IMAGE], tie_word_embeddings=False,
                               pad_token_id=ids["<|im_end|>"])
        return SmolVLMForConditionalGeneration(config)

    def trained(self):
        model = self.model()
        model.load_state_dict(torch.load(self.work / "words.pt")["model"])
        return model.eval().requires_grad_(False)


def train_tokenizer(t):
    """Byte-level BPE as SmolVLM's, learned on everything that is said about the scenes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    corpus = [f"User:{prompt}{answer}" for prompt, answer in itertools.product(CAPTION_PROMPTS, ("\nAssistant: a blank", "\nAssistant:"))]
    corpus += [f"User: {q.format(shape=s)}\nAssistant: {ABSENT}" for qs in QUESTIONS.values() for q in qs for s in (*SHAPES, "shape")]
    corpus += [f" {full_caption(s)} {s[3]}" for s in training_scenes()]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=640, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.save(str(t.work / "tokenizer.json"))
    print(f"tokenizer: {made.get_vocab_size()} tokens; {len(made.encode(' ' + full_caption(training_scenes()[0])).ids)} for a caption")


def draw_pictures(t):
    """Views and scenes of `--pictures` drawings of training scenes, one in twenty of them blank."""
    rng, scenes = random.Random(1), training_scenes()
    rng.shuffle(scenes)
    chosen = [blank(rng.choice(list(COLOURS))) if i % 20 == 0 else scenes[i % len(scenes)] for i in range(t.arguments.pictures)]
    start = time.time()
    np.save(t.work / "views.npy", np.stack([views(varied(s, rng)) for s in chosen]))
    (t.work / "scenes.json").write_text(json.dumps(chosen))
    print(f"pictures: {len(chosen)} in {time.time() - start:.0f} s")


def drawn_by_model(t):
    """Views and scenes of up to `--drawn` pictures that the bundled text-to-image model draws of training scenes, without those that are far off."""
    import onnxruntime
    from diffusers import LCMScheduler
    from transformers import CLIPTokenizer
    model = Path(__file__).parent.parent / "shards/tiny-lcm"
    parts = {name: onnxruntime.InferenceSession(model / name / "model.onnx") for name in ("text_encoder", "unet", "vae_decoder")}
    scale = json.loads((model / "vae_decoder/config.json").read_text())["scaling_factor"]
    tokenizer, scheduler = CLIPTokenizer.from_pretrained(model / "tokenizer"), LCMScheduler.from_pretrained(model / "scheduler")
    rng, generator = random.Random(5), torch.Generator().manual_seed(5)
    scenes, found, kept = training_scenes(), [], []
    start = time.time()
    for _ in range(t.arguments.drawn // 16):
        batch = rng.sample(scenes, 16)
        ids = tokenizer([full_caption(s) for s in batch], padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="np").input_ids
        hidden = parts["text_encoder"].run(["last_hidden_state"], {"input_ids": ids.astype(np.int64)})[0]
        guidance = guidance_embedding(torch.full((16,), 1.0)).numpy()
        latents = torch.randn((16, 4, 16, 16), generator=generator)
        scheduler.set_timesteps(4)
        for step in scheduler.timesteps:
            inputs = {"sample": latents.numpy(), "timestep": np.array([int(step)]), "encoder_hidden_states": hidden, "timestep_cond": guidance}
            out = scheduler.step(torch.from_numpy(parts["unet"].run(None, inputs)[0]), step, latents, generator=generator, return_dict=False)
            latents, clean = out
        pixels = parts["vae_decoder"].run(None, {"latent_sample": (clean / scale).numpy()})[0]
        for scene, planes in zip(batch, np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)):
            if np.abs(planes.astype(np.float32) - draw(scene, random.Random(0))).mean() < 12:
                found.append(views(Image.fromarray(planes.transpose(1, 2, 0))))
                kept.append(scene)
    np.save(t.work / "drawn.npy", np.stack(found))
    (t.work / "drawn.json").write_text(json.dumps(kept))
    print(f"drawn: {len(kept)} kept of {t.arguments.drawn} in {time.time() - start:.0f} s")


def cached(t):
    """Views [n, 5, 3, 64, 64] and scenes of all pictures; those of the model three times, so that they count."""
    pictures, scenes = np.load(t.work / "views.npy"), json.loads((t.work / "scenes.json").read_text())
    drawn, more = np.load(t.work / "drawn.npy"), json.loads((t.work / "drawn.json").read_text())
    return torch.from_numpy(np.concatenate([pictures, *[drawn] * 3])), [tuple(s) for s in scenes + 3 * more]


def features(model, pixels):
    """The connector's rows of uint8 views [n, 3, 64, 64]: [n, PLACES, width]."""
    return Vision(model.model.vision_model, model.model.connector)(as_float(pixels))


def rate(step, steps, peak):
    return peak * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def optimise(optimiser, loss, parameters, step, steps, peak):
    for group in optimiser.param_groups:
        group["lr"] = rate(step, steps, peak)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def train_vision(t):
    """Encoder and connector learn to tell shapes, colours, sizes and places apart, by a linear layer for each that is thrown away afterwards."""
    path, steps = t.work / "vision.pt", t.arguments.vision_steps
    torch.manual_seed(2)
    model = t.model()
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(PLACES * 192, len(kinds)) for name, kinds in CLASSES.items()})
    learning = torch.nn.ModuleList([model.model.vision_model, model.model.connector, heads])
    optimiser = torch.optim.AdamW(learning.parameters(), lr=1e-3, weight_decay=0.02)
    step = resume(path, learning, optimiser)
    pictures, scenes = cached(t)
    labels = {name: torch.tensor([kinds.index(s[list(CLASSES).index(name)]) if s[list(CLASSES).index(name)] in kinds else -100 for s in scenes])
              for name, kinds in CLASSES.items()}
    generator = torch.Generator().manual_seed(step)
    start = time.time()
    while step < steps:
        index = torch.randint(len(scenes), (64,), generator=generator)
        rows = features(model, pictures[index, -1]).flatten(1)
        guesses = {name: head(rows) for name, head in heads.items()}
        loss = sum(F.cross_entropy(guesses[name], labels[name][index]) for name in CLASSES)
        optimise(optimiser, loss, learning.parameters(), step, steps, 1e-3)
        step += 1
        if step % 100 == 0:
            known = {n: (guesses[n].argmax(1) == labels[n][index])[labels[n][index] >= 0].float().mean().item() for n in CLASSES}
            print(f"vision {step}/{steps} loss {loss.item():.4f} right {' '.join(f'{n} {v:.2f}' for n, v in known.items())} {time.time() - start:.0f} s", flush=True)
        if step % 500 == 0 or step == steps:
            save(path, model=learning.state_dict(), optimiser=optimiser.state_dict(), step=step)


class Conversations:
    """Conversations about scenes as token ids, with what of them the assistant says."""

    def __init__(self, t, seed):
        self.tokenizer, self.rng, self.memory = t.tokenizer(), random.Random(seed), {}
        self.pad = self.tokenizer.token_to_id("<|im_end|>")

    def ids(self, text):
        if text not in self.memory:
            self.memory[text] = self.tokenizer.encode(text).ids
        return self.memory[text]

    def turns(self, scene):
        """Questions and answers: a caption in most, one to three topics."""
        topics = self.rng.sample(list(QUESTIONS), self.rng.randint(1, 3))
        turns = [(asked(topic, scene, self.rng), answer(topic, scene)) for topic in topics]
        if self.rng.random() < 0.75:
            caption = (self.rng.choice(CAPTION_PROMPTS[:2] if self.rng.random() < 0.5 else CAPTION_PROMPTS), described(scene))
            turns.insert(0 if self.rng.random() < 0.75 else len(turns), caption)
        return turns

    def one(self, scene, split):
        """Ids, and labels that are -100 outside of what the assistant says."""
        ids, labels = [], []
        for number, (question, reply) in enumerate(self.turns(scene)):
            user = f"<|im_start|>User:{placeholder(split)}{question}" if number == 0 else f"\nUser: {question}"
            user, reply = self.ids(f"{user}{END}\nAssistant:"), self.ids(f" {reply}{END}")
            ids += user + reply
            labels += [-100] * len(user) + reply
        return ids, labels

    def batch(self, scenes, split):
        rows = [self.one(scene, split) for scene in scenes]
        length = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [self.pad] * (length - len(ids)) for ids, _ in rows])
        labels = torch.tensor([labels + [-100] * (length - len(labels)) for _, labels in rows])
        return ids, labels


def logits_of(model, ids, rows, wanted):
    """Logits where `wanted` [batch, length] holds, of ids with image rows [views, PLACES, width] in their places."""
    embeddings = model.model.text_model.embed_tokens(ids)
    places = ids == model.config.image_token_id
    embeddings = embeddings.masked_scatter(places[..., None], rows.to(embeddings.dtype))
    hidden = model.model.text_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return model.lm_head(hidden[wanted])


def train_words(t):
    """The whole model learns to say what a scene shows; every other batch sees five views, the rest one."""
    path, steps = t.work / "words.pt", t.arguments.words_steps
    torch.manual_seed(3)
    model = t.model()
    start_from = torch.nn.ModuleList([model.model.vision_model, model.model.connector])
    start_from.load_state_dict({k: v for k, v in torch.load(t.work / "vision.pt")["model"].items() if not k.startswith("2.")})
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    step = resume(path, model, optimiser)
    pictures, scenes = cached(t)
    conversations = Conversations(t, step)
    generator = torch.Generator().manual_seed(step)
    start, running = time.time(), 0.0
    while step < steps:
        split = step % 2 == 1
        index = torch.randint(len(scenes), (24 if split else 48,), generator=generator)
        ids, labels = conversations.batch([scenes[i] for i in index.tolist()], split)
        pixels = pictures[index] if split else pictures[index, -1:]
        rows = features(model, pixels.flatten(0, 1))
        targets = labels[:, 1:]
        wanted = F.pad(targets != -100, (0, 1))
        loss = F.cross_entropy(logits_of(model, ids, rows, wanted), targets[targets != -100])
        optimise(optimiser, loss, model.parameters(), step, steps, 1e-3)
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        step += 1
        if step % 50 == 0:
            print(f"words {step}/{steps} loss {running:.4f} {time.time() - start:.0f} s", flush=True)
        if step % 250 == 0 or step == steps:
            save(path, model=model.state_dict(), optimiser=optimiser.state_dict(), step=step)


@torch.no_grad()
def say(model, conversations, image, split, question):
    """Greedy words about one picture."""
    ids = conversations.ids(f"<|im_start|>User:{placeholder(split)}{question}{END}\nAssistant:")
    seen = torch.from_numpy(views(image))
    rows = features(model, seen if split else seen[-1:])
    ids, end = torch.tensor([ids]), conversations.tokenizer.token_to_id(END)
    said = []
    while len(said) < 32:
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        wanted[0, -1] = True
        token = int(logits_of(model, ids, rows, wanted)[0].argmax())
        if token == end:
            break
        said.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return conversations.tokenizer.decode(said).strip()


def evaluate(t):
    """Captions and answers for held-out scenes that nothing was trained on."""
    model, conversations, rng = t.trained(), Conversations(t, 0), random.Random(7)
    scenes = held_out_scenes()[: t.arguments.eval_scenes]
    for split in (False, True):
        captions = answers = 0
        for number, scene in enumerate(scenes):
            image = picture(scene, rng)
            said = say(model, conversations, image, split, CAPTION_PROMPTS[0])
            captions += said == described(scene)
            topic = list(QUESTIONS)[number % len(QUESTIONS)]
            question = asked(topic, scene, rng)
            replied = say(model, conversations, image, split, question)
            answers += replied == answer(topic, scene)
            if said != described(scene):
                print(f"  {described(scene)!r} was described as {said!r}")
            if replied != answer(topic, scene):
                print(f"  {described(scene)!r}: {question} {replied!r}")
        blanks = sum(say(model, conversations, picture(blank(c), rng), split, CAPTION_PROMPTS[0]) == described(blank(c)) for c in COLOURS)
        print(f"eval, {5 if split else 1} views: {captions} captions and {answers} answers right of {len(scenes)}, {blanks} of {len(COLOURS)} blank pictures", flush=True)


def halve(path):
    """Store a file's weights as float16."""
    import onnx
    model = half_weights(onnx.load(path))
    data = path.with_name(path.name + "_data")
    data.unlink(missing_ok=True)
    onnx.save_model(model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=data.name, size_threshold=1024)
    for file in (path, data):
        file.chmod(0o644)


def export_model(t):
    """The files of a SmolVLM directory, weights as float16."""
    model, tokenizer = t.trained(), t.tokenizer()
    onnx_folder = t.out / "onnx"
    plain = argparse.Namespace(exporter="torchscript")
    export(Vision(model.model.vision_model, model.model.connector), {"pixel_values": torch.rand(1, 3, SIDE, SIDE)}, ["image_features"],
           {"pixel_values": {0: "batch"}, "image_features": {0: "batch"}}, onnx_folder / "vision_encoder.onnx", plain)
    export_language(model.model.text_model, model.lm_head, onnx_folder, plain)
    for path in sorted(onnx_folder.glob("*.onnx")):
        halve(path)
    ids = {name: tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>", END, IMAGE)}
    write_json(t.out / "preprocessor_config.json", SMOLVLM_PREPROCESSOR | {"max_image_size": {"longest_edge": SIDE}, "size": {"longest_edge": EDGE * SIDE}})
    write_json(t.out / "processor_config.json", {"image_seq_len": PLACES, "processor_class": "Idefics3Processor"})
    write_json(t.out / "generation_config.json", {"bos_token_id": ids["<|im_start|>"], "eos_token_id": ids[END], "pad_token_id": ids["<|im_end|>"]})
    write_json(t.out / "config.json", {
        "model_type": "smolvlm", "scale_factor": SHUFFLE, "image_token_id": ids[IMAGE], "vision_config": plain_config(model.model.vision_model),
        "text_config": plain_config(model.model.text_model)})
    (t.out / "tokenizer.json").write_text((t.work / "tokenizer.json").read_text())
    (t.out / "chat_template.jinja").write_text(TEMPLATE)
    print(f"export: {sum(f.stat().st_size for f in t.out.rglob('*') if f.is_file()) / 1e6:.1f} MB, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")


def main():
    stages = {"tokenizer": train_tokenizer, "pictures": draw_pictures, "drawn": drawn_by_model, "vision": train_vision, "words": train_words, "export": export_model, "eval": evaluate}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*stages, "all"])
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--out", default="shards/tiny-vlm", help="folder of the exported model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=14000)
    parser.add_argument("--drawn", type=int, default=2400)
    parser.add_argument("--vision-steps", type=int, default=1600)
    parser.add_argument("--words-steps", type=int, default=2950)
    parser.add_argument("--eval-scenes", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tools = Tools(arguments)
    for name in stages if arguments.stage == "all" else [arguments.stage]:
        stages[name](tools)


if __name__ == "__main__":
    main()
