#!/usr/bin/env python3
"""Record what transformers' Llama says word by word, for crates/vlm/tests/language.rs.

    python3 tools/record_vlm_language.py

Writes a language model of SmolVLM's kind with random weights, exported by tools/export_models.py, and what it continues prompts with into
crates/vlm/tests/data/language. Versions: tools/requirements.txt.
"""
import argparse
import itertools
import json
from pathlib import Path

import torch
from export_models import export_language, randomise
from transformers import LlamaConfig, LlamaForCausalLM

DATA = Path(__file__).parent.parent / "crates/vlm/tests/data"
STEPS = 32


def model(vocabulary):
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                         rms_norm_eps=1e-5, rope_theta=100000.0, max_position_embeddings=2048, vocab_size=vocabulary, tie_word_embeddings=False,
                         pad_token_id=2, eos_token_id=None, bos_token_id=1, attn_implementation="sdpa")
    torch.manual_seed(0)
    made = randomise(LlamaForCausalLM(config), 0).eval().requires_grad_(False)
    # Logits that are apart: a greedy choice that no rounding decides.
    made.lm_head.weight.data *= 4
    return made


@torch.no_grad()
def continued(made, embeddings):
    """Greedy tokens, and the logits that each was chosen from."""
    ids, logits = [], []
    for _ in range(STEPS):
        out = made(inputs_embeds=embeddings).logits[0, -1]
        logits.append([round(float(v), 6) for v in out])
        ids.append(int(out.argmax()))
        embeddings = torch.cat([embeddings, made.model.embed_tokens(torch.tensor([[ids[-1]]]))], 1)
    return ids, logits


def main():
    tokens = json.loads((DATA / "chat/tokenizer.json").read_text())
    vocabulary = max(tokens["model"]["vocab"].values()) + 1
    made = model(vocabulary)
    folder = DATA / "language"
    export_language(made.model, made.lm_head, folder, argparse.Namespace(exporter="torchscript"))
    prompts = json.loads((DATA / "chat/prompts.json").read_text())
    image = tokens["model"]["vocab"].get("<image>", 41)
    recorded = []
    # One without, one with an image of a view, one with a conversation about seventeen views.
    for number, case in enumerate([prompts[0], prompts[2], next(p for p in prompts if sum(n for t, n in p["ids"] if t == image) == 64 * 17)]):
        ids = list(itertools.chain.from_iterable([token] * count for token, count in case["ids"]))
        embeddings = made.model.embed_tokens(torch.tensor([ids]))
        places = [at for at, token in enumerate(ids) if token == image]
        # What a vision encoder might give, as a formula that the test has too.
        features = torch.tensor([[((at * 37 + column * 11) % 101 - 50) / 100 for column in range(32)] for at in range(len(places))])
        if places:
            embeddings[0, places] = features
        tokens_, logits = continued(made, embeddings)
        recorded.append({"prompt": number, "ids": case["ids"], "continued": tokens_, "first_logits": logits[0], "last_logits": logits[-1]})
    (folder / "continued.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in recorded) + "\n]\n")


if __name__ == "__main__":
    main()
