#!/usr/bin/env python3
"""Record a small Whisper encoder and what ONNX Runtime computes with it, for crates/rockshard/examples/convert_whisper.rs and tests/whisper.rs.

    python tools/record_whisper.py [--out crates/rockshard/tests/data/whisper]

Two layers over 30 s of sound, as long as the real one takes, with random weights. Seeded. Of the hidden states every 50th is kept. Needs: torch
transformers onnx onnxruntime numpy.
"""
import argparse
from pathlib import Path

import export_models
import numpy as np
import onnxruntime
import torch

from record_onnxruntime import pattern

WHISPER = dict(d_model=24, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48, num_mel_bins=80, max_source_positions=1500)
EVERY = 50


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("crates/rockshard/tests/data/whisper"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    export_models.WHISPER = WHISPER
    export_models.whisper_encoder(argparse.Namespace(out=arguments.out, weights=None, attention="sdpa", exporter="torchscript", seed=0))
    session = onnxruntime.InferenceSession(arguments.out / "encoder_model.onnx")
    states = session.run(None, {"input_features": pattern([1, 80, 3000])})[0]
    np.save(arguments.out / "last_hidden_state.npy", states[:, ::EVERY])
    print(f"hidden states: mean {states.mean():.3f}, deviation {states.std():.3f}")


if __name__ == "__main__":
    main()
