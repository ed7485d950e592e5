#!/usr/bin/env python3
"""Record ONNX Runtime's logits of an exported language model, for `convert --golden` and `validate` to judge its packed form by.

    python tools/record_language_logits.py EXPORT        needs: numpy onnxruntime safetensors

EXPORT is a directory with onnx/embed_tokens.onnx and onnx/decoder_model_merged.onnx. Writes EXPORT/language_logits.safetensors: 32 tokens of a prompt, the 32
likeliest ones that follow, and the logits behind the prompt and behind each of these.
"""
import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import save_file

PROMPT, SAID = 32, 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    export = parser.parse_args().export
    embed, decoder = (onnxruntime.InferenceSession(export / "onnx" / f"{name}.onnx") for name in ("embed_tokens", "decoder_model_merged"))
    memory = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
              for i in decoder.get_inputs() if i.name.startswith("past_key_values")}
    known = decoder.get_outputs()[0].shape[-1]
    ids = [(at * 7919 + 13) % known for at in range(PROMPT)]
    fed, logits = ids.copy(), []
    for _ in range(SAID + 1):
        seen = len(ids) - len(fed)
        inputs = {"inputs_embeds": embed.run(None, {"input_ids": np.array([fed])})[0],
                  "attention_mask": np.ones((1, len(ids)), np.int64), "position_ids": np.arange(seen, len(ids))[None]}
        found, *present = decoder.run(None, inputs | memory)
        memory = dict(zip(memory, present))
        logits.append(found[0, -1])
        fed = [int(found[0, -1].argmax())]
        ids += fed
    path = export / "language_logits.safetensors"
    save_file({"ids": np.array(ids[:-1], np.int64), f"logits/ONNX Runtime {onnxruntime.__version__}": np.stack(logits)}, path)
    print(f"{path}: {len(logits)} x {known} logits")


if __name__ == "__main__":
    main()
