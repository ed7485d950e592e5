#!/usr/bin/env python3
"""Record ONNX Runtime's outputs of the bundled tiny model on fixed inputs, for crates/cli/tests/onnxruntime.rs.

    python tools/record_onnxruntime.py        needs: numpy onnxruntime
"""
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/cli/tests/data/onnxruntime"


def pattern(shape):
    """Values in [-1, 1) by a fixed rule that the test repeats."""
    count = int(np.prod(shape))
    return ((np.arange(count) * 37 % 101).astype(np.float32) / np.float32(50) - np.float32(1)).reshape(shape)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    unet = {"sample": pattern([1, 4, 16, 16]), "timestep": np.array([499], np.int64),
            "encoder_hidden_states": pattern([1, 77, 96]), "timestep_cond": pattern([1, 64])}
    runs = {
        "text_encoder": ("text_encoder/model.onnx", {"input_ids": (np.arange(77, dtype=np.int64) * 7 % 500)[None]}, "last_hidden_state"),
        "unet": ("unet/model.onnx", unet, "out_sample"),
        "unet_dynamo": ("unet/model_dynamo.onnx", unet, "out_sample"),
        "vae_encoder": ("vae_encoder/model.onnx", {"sample": pattern([1, 3, 128, 128])}, "latent_parameters"),
    }
    for name, (file, inputs, output) in runs.items():
        session = onnxruntime.InferenceSession(ROOT / "shards/tiny-lcm" / file)
        np.save(OUT / f"{name}.npy", session.run([output], inputs)[0])
        print(name, "recorded")


if __name__ == "__main__":
    main()
