#!/usr/bin/env python3
"""Draw held-out scenes, and record what the bundled tiny model says of them through transformers' processor and ONNX Runtime.

    python3 tools/record_vlm_scenes.py

Writes scenes.png (drawings of 128x128, twenty a row, the last row blank) and scenes.json into crates/rockshard/tests/data, for
crates/rockshard/tests/captions.rs. Versions: tools/requirements.txt.
"""
import json
import random
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

from train_tiny_lcm import COLOURS, held_out_scenes
from train_tiny_vlm import CAPTION_PROMPTS, QUESTIONS, answer, asked, blank, described, picture

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "shards/tiny-vlm"
DATA = ROOT / "crates/rockshard/tests/data"
SCENES, ROW, SIDE, MOST = 200, 20, 128, 32


class Model:
    """The exported files, run greedily by ONNX Runtime behind transformers' processor."""

    def __init__(self):
        self.config = json.loads((MODEL / "config.json").read_text())
        files = ("vision_encoder", "embed_tokens", "decoder_model_merged")
        self.vision, self.embed, self.decoder = (onnxruntime.InferenceSession(MODEL / "onnx" / f"{name}.onnx") for name in files)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(MODEL / "tokenizer.json"), bos_token="<|im_start|>", eos_token="<end_of_utterance>",
                                            unk_token="<|endoftext|>", pad_token="<|im_end|>")
        preprocessor = json.loads((MODEL / "preprocessor_config.json").read_text())
        places = json.loads((MODEL / "processor_config.json").read_text())["image_seq_len"]
        self.processor = Idefics3Processor(Idefics3ImageProcessorPil(**preprocessor), tokenizer, image_seq_len=places,
                                           chat_template=(MODEL / "chat_template.jinja").read_text())
        self.end = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
        self.past = [i for i in self.decoder.get_inputs() if i.name.startswith("past_key_values")]

    def say(self, image, question):
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = self.processor(text=[prompt], images=[[image]], return_tensors="np")
        ids = inputs["input_ids"]
        features = np.concatenate([self.vision.run(None, {"pixel_values": view[None]})[0][0] for view in inputs["pixel_values"][0]])
        embeddings = self.embed.run(None, {"input_ids": ids})[0]
        embeddings[ids == self.config["image_token_id"]] = features
        past = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in self.past}
        said, seen = [], 0
        while len(said) < MOST:
            count = embeddings.shape[1]
            fed = {"inputs_embeds": embeddings, "attention_mask": np.ones((1, seen + count), np.int64),
                   "position_ids": np.arange(seen, seen + count)[None]}
            logits, *present = self.decoder.run(None, fed | past)
            past = dict(zip(past, present))
            seen += count
            token = int(logits[0, -1].argmax())
            if token == self.end:
                break
            said.append(token)
            embeddings = self.embed.run(None, {"input_ids": np.array([[token]])})[0]
        return self.processor.tokenizer.decode(said).strip()


def main():
    model, rng = Model(), random.Random(11)
    scenes = held_out_scenes()[:SCENES] + [blank(c) for c in COLOURS]
    sheet = Image.new("RGB", (ROW * SIDE, -(-len(scenes) // ROW) * SIDE))
    recorded = []
    for number, scene in enumerate(scenes):
        image = picture(scene, rng)
        sheet.paste(image, (number % ROW * SIDE, number // ROW * SIDE))
        topic = list(QUESTIONS)[number % len(QUESTIONS)]
        question = asked(topic, scene, rng)
        recorded.append({"caption": described(scene), "said": model.say(image, CAPTION_PROMPTS[0]), "question": question,
                         "answer": answer(topic, scene), "answered": model.say(image, question)})
    DATA.mkdir(parents=True, exist_ok=True)
    sheet.save(DATA / "scenes.png", optimize=True)
    (DATA / "scenes.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in recorded) + "\n]\n")
    captions = sum(r["said"] == r["caption"] for r in recorded[:SCENES])
    answers = sum(r["answered"] == r["answer"] for r in recorded[:SCENES])
    print(f"{captions} captions and {answers} answers right of {SCENES}")


if __name__ == "__main__":
    main()
