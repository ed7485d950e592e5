"""What is written into pictures, read as A1111 reads it: Pillow and piexif, and the regular expressions of its infotext."""
import base64
import json
import re

import piexif
import piexif.helper
import requests

from .harness import SIDE, equal, need, picture

# Of A1111's modules/infotext_utils.py.
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE = re.compile(r"^(\d+)x(\d+)$")
FEWEST = 3  # pairs of a last line that is not the prompt's


def parsed(text):
    """An infotext as A1111 parses it: prompt, negative prompt, and the pairs of its last line."""
    *lines, last = text.strip().split("\n")
    if len(PAIR.findall(last)) < FEWEST:
        lines.append(last)
        last = ""
    prompt, negative, done = "", "", False
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            done, line = True, line[16:].strip()
        if done:
            negative += ("" if negative == "" else "\n") + line
        else:
            prompt += ("" if prompt == "" else "\n") + line
    pairs = {}
    for name, value in PAIR.findall(last):
        value = json.loads(value) if value[:1] == '"' == value[-1:] else value
        size = SIZE.match(value)
        pairs |= {f"{name}-1": size[1], f"{name}-2": size[2]} if size else {name: value}
    return prompt, negative, pairs


def written(image):
    """The infotext of a picture, as A1111's images.read_info_from_image reads it."""
    if image.format == "PNG":
        return image.info["parameters"]
    comment = piexif.load(image.info["exif"])["Exif"][piexif.ExifIFD.UserComment]
    return piexif.helper.UserComment.load(comment)


def drawn(bench, prompt, form, **fields):
    answer = bench.server.post("/v1/images/generations", {"prompt": prompt, "seed": 11, "output_format": form, **fields})
    equal("the status", answer.status_code, 200)
    return picture(base64.b64decode(answer.json()["data"][0]["b64_json"]))


def right(bench, prompt, form, wanted=None):
    found, negative, pairs = parsed(written(drawn(bench, prompt, form, guidance_scale=2.5, steps=5)))
    equal(f"the prompt in {form}", found, prompt if wanted is None else wanted)
    equal("the negative prompt", negative, "")
    some = {name: pairs.get(name) for name in ("Steps", "Sampler", "CFG scale", "Seed", "Size-1", "Size-2")}
    equal("what is written", some, {"Steps": "5", "Sampler": "LCM", "CFG scale": "2.5", "Seed": "11", "Size-1": str(SIDE), "Size-2": str(SIDE)})
    need(pairs.get("Model") and pairs.get("Version", "").startswith("rockshard"), f"Model or Version is missing: {pairs}")


def metadata_png(bench):
    for prompt in ("a small red cross at the center of a blue background", 'a "quoted" word, a comma: and a colon', "größer, 日本語, ☃ and 🎨"):
        right(bench, prompt, "png")


def metadata_exif(bench):
    for form in ("jpeg", "webp"):
        for prompt in ("a small red cross, at the center", "größer, 日本語, ☃ and 🎨"):
            right(bench, prompt, form)


def metadata_not_forged(bench):
    """A prompt of several lines stays a prompt, whatever it says."""
    for form in ("png", "jpeg"):
        right(bench, "a red circle\non blue", form)
        right(bench, "a red circle\nSteps: 99, Sampler: Forged, CFG scale: 9, Seed: 9, Size: 9x9", form)


def metadata_edit(bench):
    scene, before = bench.otherwise(7)
    files = {"image": ("a.png", bench.drawn(before, scene["seed"]), "image/png")}
    data = {"prompt": scene["caption"], "seed": scene["seed"], "strength": "0.7"}
    answer = requests.post(f"{bench.server.address}/v1/images/edits", data=data, files=files, timeout=30)
    image = answer.json()["data"][0]["b64_json"]
    prompt, _, pairs = parsed(written(picture(image)))
    equal("the prompt and the strength", (prompt, pairs.get("Denoising strength")), (scene["caption"], "0.7"))
    bench.keep("metadata_edit", image, scene)


CHECKS = [metadata_png, metadata_exif, metadata_not_forged, metadata_edit]
