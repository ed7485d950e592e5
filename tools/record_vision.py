#!/usr/bin/env python3
"""Record a small vision encoder of SmolVLM's kind and what ONNX Runtime computes with it, for crates/cli/tests/vision.rs.

    python tools/record_vision.py [--out crates/cli/tests/data/vision]

Two SigLIP layers and the connector, with random weights. Seeded. Needs: torch transformers onnx onnxruntime numpy.
"""
import argparse
from pathlib import Path

import export_models
import numpy as np
import onnxruntime
import torch

SIGLIP = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8,
              hidden_act="gelu_pytorch_tanh")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("crates/cli/tests/data/vision"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    export_models.SIGLIP_B16, export_models.SMOLVLM_TEXT_WIDTH = SIGLIP, 36
    export_models.smolvlm_vision(argparse.Namespace(out=arguments.out, weights=None, attention="sdpa", exporter="torchscript", seed=0,
                                                  resolution=(64, 64)))
    pixels = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(arguments.out / "onnx/vision_encoder.onnx")
    np.save(arguments.out / "pixel_values.npy", pixels)
    np.save(arguments.out / "image_features.npy", session.run(None, {"pixel_values": pixels})[0])


if __name__ == "__main__":
    main()
