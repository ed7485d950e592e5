#!/usr/bin/env python3
"""Export small models of real architectures to ONNX, with inputs and the outputs that ONNX Runtime gives.

    python tools/export_architectures.py --out DIR            all of them
    python tools/export_architectures.py --out DIR NAME ...   some; --list prints the names

Writes DIR/NAME/model.onnx, DIR/NAME/INPUT.npy and DIR/NAME/want_OUTPUT.npy, and where convert must be told sizes, DIR/NAME/options.txt. Weights are
seeded noise (tools/architectures.py), except those of ppocr-det, ppocr-cls and ppocr-rec: PP-OCRv4 as the package rapidocr-onnxruntime has it.
A model in float16 is computed in float32 for its outputs. Needs: torch torchvision transformers diffusers timm onnx onnxscript onnxruntime
onnxconverter-common pillow, and rapidocr-onnxruntime (its models only: pip install --no-deps).
"""
import argparse
import importlib.util
import re
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, numpy_helper

from architectures import REGISTRY, Call

TEXT = "Three cores at once"
OCR_FILES = {"ppocr-det": "det", "ppocr-cls": "cls", "ppocr-rec": "rec"}


def in_float32(model):
    """The model with every float16 made float32."""
    model = onnx.ModelProto.FromString(model.SerializeToString())

    def tensor(proto):
        if proto.data_type == TensorProto.FLOAT16:
            proto.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(proto).astype(np.float32), proto.name))

    def graph(proto):
        for value in [*proto.input, *proto.output, *proto.value_info]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for initializer in proto.initializer:
            tensor(initializer)
        for node in proto.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
                if attribute.type == onnx.AttributeProto.TENSOR:
                    tensor(attribute.t)
                elif attribute.type == onnx.AttributeProto.GRAPH:
                    graph(attribute.g)

    graph(model.graph)
    return model


def file_of(name):
    """An output's name as file name, spelled as `rockshard run` spells it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".npy"


def session(model, level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, optimised=None):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def write(folder, model, inputs, options):
    """Model, inputs, right outputs and options of one architecture."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    onnx.save_model(model, folder / "model.onnx")
    declared = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    inputs = {n: a.astype(np.float16) if declared[n] == TensorProto.FLOAT16 else a for n, a in inputs.items() if n in declared}
    wide = {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in inputs.items()}
    runner = session(in_float32(model))
    for name, array in inputs.items():
        np.save(folder / file_of(name), array)
    for output, array in zip(runner.get_outputs(), runner.run(None, wide)):
        if not np.isfinite(array).all() or (array.dtype.kind == "f" and not 1e-4 < array.std() < 1e4):
            raise SystemExit(f"{folder.name}: output {output.name} is not of ordinary magnitude")
        np.save(folder / f"want_{file_of(output.name)}", array)
    if options:
        (folder / "options.txt").write_text("\n".join(options) + "\n")
    size = (folder / "model.onnx").stat().st_size
    return f"{len(model.graph.node)} nodes, opset {model.opset_import[0].version}, {size / 1e6:.1f} MB"


def exported(sketch):
    """The sketch as ONNX."""
    module, values = sketch.module, tuple(sketch.inputs.values())
    if sketch.half == "module":
        module, values = module.half(), tuple(v.half() if v.is_floating_point() else v for v in values)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        file = Path(scratch) / "model.onnx"
        if sketch.exporter == "dynamo":
            stated = {"opset_version": sketch.opset} if sketch.opset else {}
            if open_inputs := {n: a for n, a in sketch.axes.items() if n in sketch.inputs}:
                sizes = {axis: torch.export.Dim(axis) for axes in open_inputs.values() for axis in axes.values()}
                shapes = tuple({i: sizes[a] for i, a in open_inputs.get(n, {}).items()} for n in sketch.inputs)
                stated["dynamic_shapes"] = (shapes,) if isinstance(module, Call) else shapes
            program = torch.onnx.export(module, values, dynamo=True, input_names=list(sketch.inputs), output_names=sketch.outputs, verbose=False, **stated)
            program.save(str(file), external_data=False)
        else:
            torch.onnx.export(module, values, str(file), dynamo=False, input_names=list(sketch.inputs), output_names=sketch.outputs, opset_version=sketch.opset,
                              dynamic_axes=sketch.axes, do_constant_folding=True)
        model = onnx.load(file)
        if sketch.half == "file":
            from onnxconverter_common import float16
            model = float16.convert_float_to_float16(model)
        if sketch.optimised:
            session(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC, file)
            model = onnx.load(file)
    return model


def text_line(height, width, margin):
    """TEXT in black on white, as pixels [height, width, 3]."""
    from PIL import Image, ImageDraw, ImageFont
    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(size=height - 2 * margin - 6)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((0, 0), TEXT, font=font)
    draw.text(((width - right - left) // 2, (height - bottom - top) // 2), TEXT, "black", font)
    return np.asarray(picture).astype(np.float32) / 255


def ppocr(name):
    """(model, inputs, options) of one of PP-OCRv4's files."""
    folder = Path(importlib.util.find_spec("rapidocr_onnxruntime").origin).parent / "models"
    model = onnx.load(next(folder.glob(f"*_{OCR_FILES[name]}_*.onnx")))
    if name == "ppocr-det":
        pixels = (text_line(96, 320, 28) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        pixels = (text_line(48, 192 if name == "ppocr-cls" else 320, 6) - 0.5) / 0.5
    array = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    (declared,) = [i.name for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    return model, {declared: array}, [f"--input-shape {declared}={'x'.join(map(str, array.shape))}"]


def main():
    names = [*REGISTRY, *OCR_FILES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", metavar="NAME", default=names)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list or not arguments.out:
        print("\n".join(names))
        return
    if unknown := set(arguments.name) - set(names):
        parser.error(f"no architecture is called {', '.join(sorted(unknown))}; --list prints the names")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in arguments.name:
        start = time.time()
        torch.manual_seed(0)
        if name in OCR_FILES:
            made = ppocr(name)
        else:
            sketch = REGISTRY[name]()
            made = exported(sketch), {n: v.numpy() for n, v in sketch.inputs.items()}, sketch.options
        print(f"{name}: {write(arguments.out / name, *made)}, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
