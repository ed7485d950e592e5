#!/usr/bin/env python3
"""Record what transformers' Idefics3 processor makes of conversations, for crates/vlm/tests/prompts.rs.

    python3 tools/record_vlm_prompts.py

Writes a small tokenizer with the special tokens of SmolVLM's, a chat template and prompts.json into crates/vlm/tests/data/chat. Token ids are recorded as
[id, how often in a row]. Versions: tools/requirements.txt.
"""
import itertools
import json
from pathlib import Path

from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

DATA = Path(__file__).parent.parent / "crates/vlm/tests/data"
CHAT = DATA / "chat"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<global-img>",
            *(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)),
            "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
TEXTS = ["What colour is the circle?", "A large red circle at the left of a blue background.", "How many shapes are there, and where? 12 or 345?",
         "Describe this image.", "Yes.\n\nNo.\n", "Größe: 3,5 µm — naïve café ☃", "The answer is: User Assistant", "  two  spaces "]
# The layout of a conversation that SmolVLM's own template gives.
TEMPLATE = """<|im_start|>{% for message in messages %}{{ message["role"] | capitalize }}\
{{ ":" if message["content"][0]["type"] == "image" else ": " }}\
{% for part in message["content"] %}{{ "<image>" if part["type"] == "image" else part["text"] }}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ "Assistant:" }}{% endif %}"""


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|im_start|>", eos_token="<end_of_utterance>", unk_token="<|endoftext|>",
                                   pad_token="<|im_end|>", additional_special_tokens=["<fake_token_around_image>", "<image>"])


def text(words):
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}
SIZES = [(640, 480), (480, 640), (64, 64), (1000, 333), (3000, 100)]


def conversations():
    """Messages, sizes of their images, and views a side."""
    yield [("user", [text(TEXTS[0])])], [], 4
    yield [("system", [text("Be brief.")]), ("user", [text(TEXTS[5]), text(TEXTS[7])])], [], 4
    for size, edge in itertools.product(SIZES, (1, 2, 3, 4)):
        yield [("user", [IMAGE, text(TEXTS[3])])], [size], edge
    yield [("user", [text("Look: "), IMAGE, text(TEXTS[0])])], [SIZES[0]], 2
    yield [("user", [IMAGE, IMAGE, text("What differs?")])], SIZES[:2], 4
    yield [("user", [IMAGE, text("One,"), IMAGE, text(" two,"), IMAGE])], SIZES[2:], 1
    history = [("user", [IMAGE, text(TEXTS[3])]), ("assistant", [text(TEXTS[1])]), ("user", [text(TEXTS[2])])]
    yield history, [SIZES[0]], 4
    yield [*history, ("assistant", [text(TEXTS[4])]), ("user", [IMAGE, text("And this one?")])], SIZES[:2], 1
    yield [("user", [text(TEXTS[6])]), ("assistant", [text("A\n\nB")]), ("user", [text("\n")])], [], 4


def main():
    CHAT.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.backend_tokenizer.save(str(CHAT / "tokenizer.json"), pretty=False)
    (CHAT / "chat_template.jinja").write_text(TEMPLATE)
    config = json.loads((DATA / "preprocessor_config.json").read_text())
    processor = Idefics3Processor(Idefics3ImageProcessorPil(**config), made, image_seq_len=64, chat_template=TEMPLATE)
    recorded = []
    for messages, sizes, edge in conversations():
        messages = [{"role": role, "content": content} for role, content in messages]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        images = [Image.new("RGB", size, (9, 90, 200)) for size in sizes]
        options = {"images": [images], "size": {"longest_edge": 512 * edge}} if images else {}
        ids = processor(text=[prompt], **options)["input_ids"][0]
        runs = [[int(token), len(list(group))] for token, group in itertools.groupby(ids)]
        recorded.append({"messages": messages, "sizes": sizes, "edge": edge, "prompt": prompt, "ids": runs})
    lines = ",\n".join(json.dumps(r) for r in recorded)
    (CHAT / "prompts.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
