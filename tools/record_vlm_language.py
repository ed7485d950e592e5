#!/usr/bin/env python3
"""Make a model of SmolVLM's kind with random weights, and record what transformers makes it say, for the tests of crates/vlm and of `caption`.

    python3 tools/record_vlm_language.py

Writes a model directory (its tokenizer from tools/record_vlm_prompts.py), continued.json and answers.json into crates/vlm/tests/data. Versions:
tools/requirements.txt.
"""
import argparse
import itertools
import json
import shutil
from pathlib import Path

import torch
from export_models import Vision, export, export_language, plain_config, randomise, write_json
from PIL import Image
from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

DATA = Path(__file__).parent.parent / "crates/vlm/tests/data"
STEPS = 32
IMAGE = 41


# Views of 64 pixels, 8x8 patches, four to a feature.
SIDE, PLACES = 64, 16


def model(vocabulary):
    text = dict(model_type="llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                rms_norm_eps=1e-5, rope_theta=100000.0, max_position_embeddings=2048, vocab_size=vocabulary, pad_token_id=2, bos_token_id=1,
                tie_word_embeddings=False)
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=8,
                  hidden_act="gelu_pytorch_tanh")
    config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2, image_token_id=IMAGE, tie_word_embeddings=False, pad_token_id=2)
    torch.manual_seed(0)
    made = randomise(SmolVLMForConditionalGeneration(config), 0).eval().requires_grad_(False)
    # Logits that are apart: a greedy choice that no rounding decides.
    made.lm_head.weight.data *= 4
    return made


@torch.no_grad()
def continued(made, embeddings):
    """Greedy tokens, and the logits that each was chosen from."""
    ids, logits = [], []
    for _ in range(STEPS):
        out = made.lm_head(made.model.text_model(inputs_embeds=embeddings).last_hidden_state[0, -1])
        logits.append([round(float(v), 6) for v in out])
        ids.append(int(out.argmax()))
        embeddings = torch.cat([embeddings, made.model.text_model.embed_tokens(torch.tensor([[ids[-1]]]))], 1)
    return ids, logits


@torch.no_grad()
def record_answers(made, preprocessor):
    """What the whole model answers to questions about images, greedily."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(DATA / "chat/tokenizer.json"), bos_token="<|im_start|>", eos_token="<end_of_utterance>",
                                        unk_token="<|endoftext|>", pad_token="<|im_end|>")
    template = (DATA / "chat/chat_template.jinja").read_text()
    processor = Idefics3Processor(Idefics3ImageProcessorPil(**preprocessor), tokenizer, image_seq_len=PLACES, chat_template=template)
    recorded = []
    for file, edge in [("00-640x480-RGB.png", 4), ("05-17x13-RGB.png", 1), ("11-99x101-L.png", 2), ("13-120x77-RGBA.png", 3)]:
        image = Image.open(DATA / "images" / file)
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe this image."}]}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[[image]], return_tensors="pt", size={"longest_edge": SIDE * edge})
        out = made.generate(**inputs, do_sample=False, max_new_tokens=STEPS, eos_token_id=42)[0]
        said = out[inputs["input_ids"].shape[1]:].tolist()
        recorded.append({"file": file, "edge": edge, "tokens": said, "text": tokenizer.decode([t for t in said if t != 42])})
    (DATA / "answers.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in recorded) + "\n]\n")


def other_precisions(folder):
    """The same decoder and embeddings in files with float16 weights, and with 4-bit weights in blocks as ONNX Runtime's tool makes them."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from train_tiny_lcm import half_weights
    others = DATA / "exports"
    shutil.rmtree(others, ignore_errors=True)
    others.mkdir()
    for name in ("embed_tokens", "decoder_model_merged"):
        onnx.save(half_weights(onnx.load(folder / f"{name}.onnx")), others / f"{name}_fp16.onnx")
    quantizer = MatMulNBitsQuantizer(onnx.load(folder / "decoder_model_merged.onnx"), block_size=32, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, others / "decoder_model_merged_q4.onnx")


def main():
    tokens = json.loads((DATA / "chat/tokenizer.json").read_text())
    vocabulary = max(tokens["model"]["vocab"].values()) + 1
    made = model(vocabulary)
    folder = DATA / "model"
    shutil.rmtree(folder, ignore_errors=True)
    arguments = argparse.Namespace(exporter="torchscript")
    export_language(made.model.text_model, made.lm_head, folder / "onnx", arguments)
    export(Vision(made.model.vision_model, made.model.connector), {"pixel_values": torch.rand(1, 3, SIDE, SIDE)}, ["image_features"],
           {"pixel_values": {0: "batch"}, "image_features": {0: "batch"}}, folder / "onnx" / "vision_encoder.onnx", arguments)
    preprocessor = json.loads((DATA / "preprocessor_config.json").read_text())
    preprocessor |= {"max_image_size": {"longest_edge": SIDE}, "size": {"longest_edge": 4 * SIDE}}
    write_json(folder / "preprocessor_config.json", preprocessor)
    write_json(folder / "processor_config.json", {"image_seq_len": PLACES, "processor_class": "Idefics3Processor"})
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 42, "pad_token_id": 2})
    write_json(folder / "config.json", {"model_type": "smolvlm", "scale_factor": 2, "image_token_id": IMAGE,
                                        "vision_config": plain_config(made.model.vision_model), "text_config": plain_config(made.model.text_model)})
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(DATA / "chat" / name, folder / name)
    for file in (folder / "onnx").iterdir():
        file.chmod(0o644)
    other_precisions(folder / "onnx")
    record_answers(made, preprocessor)
    prompts = json.loads((DATA / "chat/prompts.json").read_text())
    recorded = []
    # One without, one with an image of a view, one with a conversation about seventeen views.
    for number, case in enumerate([prompts[0], prompts[2], next(p for p in prompts if sum(n for t, n in p["ids"] if t == IMAGE) == 64 * 17)]):
        ids = list(itertools.chain.from_iterable([token] * count for token, count in case["ids"]))
        embeddings = made.model.text_model.embed_tokens(torch.tensor([ids]))
        places = [at for at, token in enumerate(ids) if token == IMAGE]
        # What a vision encoder might give, as a formula that the test has too.
        features = torch.tensor([[((at * 37 + column * 11) % 101 - 50) / 100 for column in range(32)] for at in range(len(places))])
        if places:
            embeddings[0, places] = features
        tokens_, logits = continued(made, embeddings)
        recorded.append({"prompt": number, "ids": case["ids"], "continued": tokens_, "first_logits": logits[0], "last_logits": logits[-1]})
    (DATA / "continued.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in recorded) + "\n]\n")


if __name__ == "__main__":
    main()
