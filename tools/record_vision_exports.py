#!/usr/bin/env python3
"""Record a small vision encoder of SmolVLM's kind as exporters write it, masks, filters and mistakes included, for crates/cli/tests/vision_exports.rs.

    python tools/record_vision_exports.py [--out crates/cli/tests/data/vision_exports]

dynamo.onnx is transformers' get_image_features whole: pixels [1, 1, 3, 64, 64] and pixel_attention_mask. torchscript.onnx is the encoder and the connector with
patch_attention_mask; TorchScript's exporter makes the position ids real numbers, so that ONNX Runtime refuses it. In *_damaged.onnx the ids are those of
transformers 4.55.1 in float32. The other precisions are of dynamo.onnx: fp16 by onnxconverter-common, q4 (with zero points) and q4f16 (without) by ONNX
Runtime's MatMulNBits quantiser, int8 by its dynamic quantiser. What is expected comes from transformers, and from ONNX Runtime for the other precisions.

Random weights, seeded. Versions: tools/requirements.txt.
"""
import argparse
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from export_models import plain_config, randomise, without_traces, write_json
from onnxconverter_common import float16
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

SIDE, PATCH = 64, 8
TEXT = dict(model_type="llama", hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            vocab_size=64, pad_token_id=2, bos_token_id=1)
VISION = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=PATCH,
              hidden_act="gelu_pytorch_tanh")


class Whole(torch.nn.Module):
    """get_image_features, but that what it gives is not taken apart by item."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, pixel_attention_mask):
        return self.model.connector(self.model.get_image_features(pixel_values, pixel_attention_mask).last_hidden_state)


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, patch_attention_mask):
        hidden = self.model.vision_model(pixel_values=pixel_values, patch_attention_mask=patch_attention_mask).last_hidden_state
        return self.model.connector(hidden)


def embedded(self, pixels, ids):
    return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding(ids)


def damaged(self, pixel_values, patch_attention_mask):
    """Position ids by the formula of transformers 4.55.1: in float32, i / n * (1 - 1e-6) lies below the boundary i / n."""
    side = self.num_patches_per_side
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    rows, columns = patch_attention_mask[:, :, 0].sum(dim=1), patch_attention_mask[:, 0, :].sum(dim=1)
    places = torch.arange(side, dtype=torch.float32)
    rows, columns = (torch.bucketize(places[None, :] / n[:, None] * (1 - 1e-6), boundaries, right=True) for n in (rows, columns))
    ids = (rows[:, :, None] * side + columns[:, None, :]).reshape(1, -1)
    return embedded(self, pixel_values, torch.where(patch_attention_mask.view(1, -1), ids, torch.full(ids.shape, 0)))


def damaged_by_assignment(self, pixel_values, patch_attention_mask):
    """The same ids, assigned image by image to those patches that the mask shows."""
    side = self.num_patches_per_side
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    ids = torch.full((1, side * side), fill_value=0)
    for image, mask in enumerate(patch_attention_mask):
        places = [torch.arange(n, dtype=torch.float32) / n * (1 - 1e-6) for n in (mask[:, 0].sum(), mask[0].sum())]
        rows, columns = (torch.bucketize(p, boundaries, right=True) for p in places)
        ids[image][mask.view(-1)] = (rows[:, None] * side + columns).flatten()
    return embedded(self, pixel_values, ids)


def small(model):
    """Without what only debugging reads."""
    without_traces(model)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    return model


@torch.no_grad()
def export(module, inputs, dynamo, path, optimize=True):
    names = list(inputs)
    kind = dict(dynamo=True, opset_version=18, external_data=False, optimize=optimize) if dynamo else dict(dynamo=False, opset_version=17, do_constant_folding=True)
    torch.onnx.export(module, tuple(inputs.values()), str(path), input_names=names, output_names=["image_features"], **kind)
    onnx.save(small(onnx.load(path)), path)


def ran(path, inputs):
    session = onnxruntime.InferenceSession(path)
    given = {name: tensor.numpy() for name, tensor in inputs.items()}
    return session.run(None, given)[0].astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("crates/cli/tests/data/vision_exports"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = SmolVLMConfig(text_config=TEXT, vision_config=VISION, scale_factor=2, image_token_id=41, tie_word_embeddings=False, pad_token_id=2)
    model = randomise(SmolVLMForConditionalGeneration(config), 0).eval().requires_grad_(False).model
    # Positions that tell: with the usual spread, what they are would hardly show.
    model.vision_model.embeddings.position_embedding.weight.data *= 10
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 3, SIDE, SIDE)).astype(np.float32))
    whole = {"pixel_values": pixels, "pixel_attention_mask": torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)}
    views = {"pixel_values": pixels[0], "patch_attention_mask": torch.ones(1, SIDE // PATCH, SIDE // PATCH, dtype=torch.bool)}
    export(Whole(model), whole, True, out / "dynamo.onnx")
    export(Encoder(model), views, False, out / "torchscript.onnx")
    np.save(out / "pixel_values.npy", pixels.numpy())
    np.save(out / "image_features.npy", Whole(model)(*whole.values()).numpy())
    with mock.patch.object(SmolVLMVisionEmbeddings, "forward", damaged):
        # The optimiser takes 1 - 1e-6 for 1, which undoes the damage.
        export(Whole(model), whole, True, out / "dynamo_damaged.onnx", optimize=False)
        np.save(out / "image_features_damaged.npy", Whole(model)(*whole.values()).numpy())
    with mock.patch.object(SmolVLMVisionEmbeddings, "forward", damaged_by_assignment):
        export(Encoder(model), views, False, out / "torchscript_damaged.onnx")

    def loaded():
        return onnx.load(out / "dynamo.onnx")

    def half(made):
        # Casts to float32 keep what they are to.
        return float16.convert_float_to_float16(made, keep_io_types=True, op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, "Cast"])

    onnx.save(half(loaded()), out / "dynamo_fp16.onnx")
    for name, symmetric in [("q4", False), ("q4f16", True)]:
        quantizer = MatMulNBitsQuantizer(half(loaded()) if symmetric else loaded(), block_size=32, is_symmetric=symmetric)
        quantizer.process()
        onnx.save(quantizer.model.model, out / f"dynamo_{name}.onnx")
    quantize_dynamic(out / "dynamo.onnx", out / "dynamo_int8.onnx", weight_type=QuantType.QInt8)
    for name in ("fp16", "q4", "q4f16"):
        np.save(out / f"image_features_{name}.npy", ran(out / f"dynamo_{name}.onnx", whole))
    write_json(out / "config.json", {"model_type": "smolvlm", "scale_factor": 2, "vision_config": plain_config(model.vision_model)})

    expected, wrong = np.load(out / "image_features.npy"), np.load(out / "image_features_damaged.npy")
    distance = lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b))
    print(f"ONNX Runtime from transformers: {distance(ran(out / 'dynamo.onnx', whole), expected):.1e}; "
          f"with the damage {distance(ran(out / 'dynamo_damaged.onnx', whole), wrong):.1e}; the damage itself: {distance(wrong, expected):.1e}")
    for name in ("fp16", "q4", "q4f16"):
        print(f"{name} from float32: {distance(np.load(out / f'image_features_{name}.npy'), expected):.1e}")
    for name in ("torchscript", "torchscript_damaged"):
        try:
            ran(out / f"{name}.onnx", views)
            print(f"{name}: ONNX Runtime takes it")
        except Exception as refusal:
            print(f"{name}: {str(refusal)[:220]}")


if __name__ == "__main__":
    main()
