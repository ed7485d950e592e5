#!/usr/bin/env python3
"""Record how others read prompts with weights, and what the weights make of the tiny model's hidden states.

    python tools/record_prompts.py LPW

LPW is examples/community/lpw_stable_diffusion.py of https://github.com/huggingface/diffusers (recorded with that of commit
58eb52c0803ea9af3abec60841c2a093bdf1f951), which reads prompts and applies weights as AUTOMATIC1111's web UI does. Compel reads its own syntax.
Results go to crates/diffusion/tests/data/prompts.json and crates/rockshard/tests/data/prompts. Needs: compel diffusers transformers torch
onnxruntime safetensors numpy.
"""
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch
from compel.prompt_parser import PromptParser
from safetensors.numpy import save_file
from transformers import CLIPTokenizer

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "shards" / "tiny-lcm"
READ = ROOT / "crates" / "diffusion" / "tests" / "data" / "prompts.json"
HIDDEN = ROOT / "crates" / "rockshard" / "tests" / "data" / "prompts"

WEB_UI = [
    "", "normal text", "an (important) word", "(unbalanced", "unbalanced)", "[unbalanced", "unbalanced]", "\\(literal\\]", "\\\\ back\\slash \\",
    "(unnecessary)(parens)", "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", "((word))", "[[word]]", "[(word)]", "([word)]", "()", "([])", "(:1.3)",
    "(word:abc)", "(word:)", "word:1.3)", "(word:1.3", "(word:+1.5)", "(word:-0.5)", "(word:.5)", "(word:2.)", "(word:0)", "(a:b:1.2)", "(16:9)", "a: b",
    "(some words:1.3)", "(nested (words:1.5) here:0.5)", "un(believ)able", "(red:1) circle", "é(ü:1.2)日本(語)", "a [b:c] d", "tabs\t(and\nlines:0.7)", "(a)(b)(c:1.1)",
    "a small (red:1.4) circle at the [top left] of a ((blue)) background", "(red " * 40, "(red:1.2) " * 40,
]
COMPEL = [
    "a word++ here", "a word+ here", "word--, x", "(some words)++ x", "(some words)1.3 x", "(some words)-", "(x y)1.5, z", "a (b)2 c", "((a)++ b)1.2", "(a).5",
    "(deep word++)1.0", "(deep (word)++)1.5", "+ a", "++a", "(a)++, b", "hello (world)1.2.", "word++.", "well-known man", "3d+ render", "a-- - b", "snake_case++", "C++",
    "a small red++ circle at the (top left)0.8 of a blue background",
]
ENCODED = [
    "a small (red:1.4) circle at the [top left] of a ((blue)) background", "a large (yellow) ring", "(((a green star)))", "a [[white]] square (at the bottom:0.6)",
    "a (small:0) red circle",
]


def load(path):
    spec = importlib.util.spec_from_file_location("lpw", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Encoder:
    """The tiny model's text encoder, as the pipeline calls it: its last output has been through the last norm already."""

    text_model = SimpleNamespace(final_layer_norm=lambda states: states)

    def __init__(self):
        self.session = onnxruntime.InferenceSession(MODEL / "text_encoder" / "model.onnx")

    def __call__(self, ids, output_hidden_states):
        states = torch.from_numpy(self.session.run(["last_hidden_state"], {"input_ids": ids.numpy()})[0])
        return [[states]]


def main():
    lpw = load(sys.argv[1])
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    pipe = SimpleNamespace(tokenizer=tokenizer, text_encoder=Encoder(), device="cpu")
    room = tokenizer.model_max_length - 2
    web_ui = []
    for prompt in WEB_UI:
        ids, weights = lpw.get_prompts_with_weights(pipe, [prompt], room)
        web_ui.append({"prompt": prompt, "pieces": lpw.parse_prompt_attention(prompt), "ids": ids[0], "weights": weights[0]})
    parser = PromptParser()
    compel = []
    for prompt in COMPEL:
        fragments = parser.parse_conjunction(prompt).prompts[0].children
        compel.append({"prompt": prompt, "pieces": [[fragment.text, fragment.weight] for fragment in fragments]})
    READ.write_text(json.dumps({"web_ui": web_ui, "compel": compel}, ensure_ascii=False, indent=1) + "\n")
    HIDDEN.mkdir(parents=True, exist_ok=True)
    (HIDDEN / "prompts.json").write_text(json.dumps(ENCODED, indent=1) + "\n")
    states = {}
    for index, prompt in enumerate(ENCODED):
        weighted, _ = lpw.get_weighted_text_embeddings(pipe, prompt, max_embeddings_multiples=1)
        states[f"prompt-{index}"] = weighted.numpy().astype(np.float32)
    save_file(states, HIDDEN / "hidden.safetensors")


if __name__ == "__main__":
    main()
