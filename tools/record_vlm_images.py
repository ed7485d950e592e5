#!/usr/bin/env python3
"""Record what transformers' Idefics3 image processor (Pillow backend) makes of images, for crates/vlm/tests/images.rs.

    python3 tools/record_vlm_images.py

Writes the images and expected.json into crates/vlm/tests/data. Versions: tools/requirements.txt.
"""
import hashlib
import io
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

DATA = Path(__file__).parent.parent / "crates/vlm/tests/data"
# As SmolVLM-256M-Instruct's preprocessor_config.json has it.
CONFIG = {
    "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "max_image_size": {"longest_edge": 512}, "resample": 1,
    "rescale_factor": 0.00392156862745098, "size": {"longest_edge": 2048},
}
# Width, height, mode and file format.
IMAGES = [
    (640, 480, "RGB", "png"), (480, 640, "RGB", "webp"), (1, 1, "RGB", "png"), (1, 700, "RGB", "png"), (700, 1, "L", "png"),
    (17, 13, "RGB", "png"), (33, 257, "RGB", "jpg"), (512, 512, "RGB", "webp"), (513, 511, "RGB", "png"), (1000, 333, "RGB", "webp"),
    (300, 10, "RGB", "png"), (99, 101, "L", "png"), (64, 64, "LA", "png"), (120, 77, "RGBA", "png"), (77, 120, "RGBA", "webp"),
    (50, 40, "P", "png"), (41, 53, "P-alpha", "png"), (90, 60, "1", "png"), (128, 96, "CMYK", "jpg"), (45, 61, "L", "jpg"),
    (200, 150, "RGB-exif6", "jpg"), (150, 200, "RGB-exif3", "jpg"), (31, 29, "RGB16", "png"), (2049, 31, "RGB", "png"), (31, 2500, "RGB", "png"),
    (1365, 1024, "RGB", "webp"), (256, 255, "RGB", "png"), (800, 600, "RGB", "webp"), (5, 300, "RGBA", "png"), (767, 769, "RGB", "webp"),
    (2200, 700, "RGB", "webp"), (700, 2400, "RGB", "webp"), (2300, 2290, "P", "png"), (60, 2600, "RGB", "png"), (2100, 2500, "L", "png"), (1, 1, "RGBA", "png"),
]
EDGES = [4, 1, 2, 3]


def scene(width, height, seed):
    """A gradient with shapes on it: few bytes in a file, all frequencies."""
    generator = random.Random(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    image = Image.fromarray(np.stack([x * 255, y * 255, (x + y) * 127], -1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        a, b = (generator.uniform(0, width) for _ in "ab"), (generator.uniform(0, height) for _ in "ab")
        (x0, x1), (y0, y1) = sorted(a), sorted(b)
        colour = tuple(generator.randrange(256) for _ in "rgb")
        (draw.ellipse if generator.random() < 0.5 else draw.rectangle)([x0, y0, x1, y1], fill=colour)
    return image


def png16(image):
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""
    import struct
    import zlib
    values = np.asarray(image).astype(np.uint16) * 256 + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(image, mode, form):
    stream, options = io.BytesIO(), {}
    if mode == "RGB16":
        return png16(image)
    if mode.startswith("RGB-exif"):
        exif = Image.Exif()
        exif[0x0112] = int(mode[-1])
        options["exif"] = exif
    elif mode == "P-alpha":
        image = image.quantize(16)
        options["transparency"] = 3
    elif mode in ("LA", "RGBA"):
        alpha = Image.linear_gradient("L").resize(image.size)
        image = image.convert(mode)
        image.putalpha(alpha)
    else:
        image = image.quantize(16) if mode == "P" else image.convert(mode)
    if form == "webp":
        options |= {"lossless": True}
    # Lossy files are decoded by another library than Pillow's: full colour and high quality keep what differs to a bit of rounding.
    image.save(stream, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[form], **options)
    return stream.getvalue()


def main():
    (DATA / "images").mkdir(parents=True, exist_ok=True)
    processor = Idefics3ImageProcessorPil(**CONFIG)
    expected = []
    for number, (width, height, mode, form) in enumerate(IMAGES):
        name = f"{number:02}-{width}x{height}-{mode}.{form}"
        data = encoded(scene(width, height, number), mode, form)
        (DATA / "images" / name).write_bytes(data)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        for edge in EDGES if number % 5 == 0 else EDGES[:1]:
            result = processor([image], return_tensors="np", return_row_col_info=True, size={"longest_edge": 512 * edge})
            values = result["pixel_values"][0]
            bytes_ = np.rint((values.astype(np.float64) * 0.5 + 0.5) * 255).astype(np.uint8)
            at = np.linspace(0, values.size - 1, 16).astype(int)
            expected.append({
                "file": name, "edge": edge, "grid": [result["rows"][0][0], result["cols"][0][0]], "views": len(values),
                "lossy": form == "jpg",
                "sha256": [hashlib.sha256(np.ascontiguousarray(v.transpose(1, 2, 0)).tobytes()).hexdigest() for v in bytes_],
                "mean": [round(float(v.mean()), 5) for v in values],
                "at": at.tolist(), "values": [float(v) for v in values.reshape(-1)[at]],
            })
    text = ",\n".join(json.dumps(e) for e in expected)
    (DATA / "expected.json").write_text(f"[\n{text}\n]\n")
    (DATA / "preprocessor_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


if __name__ == "__main__":
    main()
