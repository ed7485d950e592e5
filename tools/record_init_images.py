#!/usr/bin/env python3
"""One picture in every kind of file that `generate --init-image` takes, with how Pillow shows it: crates/cli/tests/data/init_images.

    python tools/record_init_images.py

The picture is of 8x8 blocks in a few colours, so that a palette holds it, and JPEG and WebP lose little. Needs: Pillow, numpy.
"""
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parent.parent / "crates" / "cli" / "tests" / "data" / "init_images"
ORIENTATION = 0x0112
# What a viewer does for an orientation, undone.
UNDO = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}


def blocks():
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    colours[0] = (220, 30, 40)
    colours[:, 0] = (20, 40, 210)
    return colours.repeat(8, axis=0).repeat(8, axis=1)


def png(kind, depth, rows):
    """A PNG of a kind of pixel and a depth that Pillow does not write."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    height, width = rows.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    pixels = blocks()
    rgb = Image.fromarray(pixels)
    grey = rgb.convert("L")
    rgb.save(OUT / "upright.png")
    grey.convert("RGB").save(OUT / "upright-grey.png")
    files = []

    def made(name, image=None, expected="upright.png", exact=True, **options):
        if image is not None:
            image.save(OUT / name, **options)
        files.append({"file": name, "expected": expected, "exact": exact})
        shown = ImageOps.exif_transpose(Image.open(OUT / name))
        if shown.mode in ("RGB", "P", "L"):
            difference = np.abs(np.asarray(shown.convert("RGB"), np.int16) - np.asarray(Image.open(OUT / expected), np.int16)).max()
            assert difference <= (0 if exact else 24), (name, difference)

    def turned(orientation):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        undo = UNDO[orientation]
        return (rgb if undo is None else rgb.transpose(undo)), exif

    made("palette.png", rgb.quantize(32))
    alpha = np.concatenate([pixels, np.full(pixels.shape[:2] + (1,), 255, np.uint8)], axis=2)
    made("alpha.png", Image.fromarray(alpha))
    made("grey.png", grey, "upright-grey.png")
    deep = pixels.astype(np.uint16) * 257
    (OUT / "rgb16.png").write_bytes(png(2, 16, deep))
    made("rgb16.png")
    (OUT / "grey16.png").write_bytes(png(0, 16, np.asarray(grey).astype(np.uint16) * 257))
    made("grey16.png", expected="upright-grey.png")
    made("grey.jpg", grey, "upright-grey.png", False, quality=95)
    made("progressive.jpg", rgb, exact=False, quality=95, subsampling=0, progressive=True)
    made("lossless.webp", rgb, lossless=True)
    made("alpha.webp", Image.fromarray(alpha), lossless=True)
    rgb.save(OUT / "lossy.webp", quality=60)
    Image.open(OUT / "lossy.webp").convert("RGB").save(OUT / "lossy.png")
    made("lossy.webp", expected="lossy.png", exact=False)
    for orientation in UNDO:
        image, exif = turned(orientation)
        made(f"turned-{orientation}.jpg", image, exact=False, quality=95, subsampling=0, exif=exif)
        if orientation > 4:
            made(f"turned-{orientation}.png", image, exif=exif)
            made(f"turned-{orientation}.webp", image, lossless=True, exif=exif)
    (OUT / "files.json").write_text(json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    main()
