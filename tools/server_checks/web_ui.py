"""Open WebUI's calls, as its backend makes them with aiohttp for its engines AUTOMATIC1111 and OpenAI, and calls of scripts for A1111's API."""
import asyncio
import base64
import io
import json
import threading

import aiohttp
from PIL import Image

from .harness import MOST_STEPS, SIDE, differing, equal, need, picture, png, until, window

# What Open WebUI sends where no user and password are set.
NO_AUTH = {"authorization": "Basic "}
# What scripts send besides: fields of A1111's own page that change nothing here.
USUAL = {"styles": [], "subseed": -1, "subseed_strength": 0, "restore_faces": False, "tiling": False, "do_not_save_samples": True, "eta": 0, "s_churn": 0,
         "override_settings_restore_afterwards": True, "script_args": [], "send_images": True, "save_images": False, "alwayson_scripts": {}}


def bare(image):
    return base64.b64encode(image).decode()


def open_webui_automatic1111(bench):
    """Probe the address, choose the model, list models, draw."""
    scene, server = bench.scenes[8], bench.server

    async def calls():
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.address}/sdapi/v1/options", headers=NO_AUTH) as r:
                r.raise_for_status()
                options = await r.json()
            equal("the model that is chosen", options["sd_model_checkpoint"], "tiny")
            async with session.get(f"{server.address}/sdapi/v1/sd-models", headers=NO_AUTH) as r:
                models = [(model["title"], model["model_name"]) for model in await r.json()]
            equal("the models", models, [("tiny", "tiny")])
            options["sd_model_checkpoint"] = models[0][0]
            async with session.post(f"{server.address}/sdapi/v1/options", json=options, headers=NO_AUTH) as r:
                r.raise_for_status()
            data = {"prompt": scene["caption"], "batch_size": 2, "width": SIDE, "height": SIDE, "steps": 4, "seed": scene["seed"]}
            async with session.post(f"{server.address}/sdapi/v1/txt2img", json=data, headers=NO_AUTH) as r:
                equal("the status of txt2img", r.status, 200)
                return await r.json(content_type=None)

    answer = asyncio.run(calls())
    need("info" in answer, "info is missing")
    equal("the number of pictures", len(answer["images"]), 2)
    for number, image in enumerate(answer["images"]):
        bench.keep(f"open_webui_automatic1111_{number}", image, {**scene, "seed": scene["seed"] + number})


def open_webui_openai(bench):
    """Draw with base64 and with addresses, which are fetched with the key; then change what was drawn: one picture, and a list of one."""
    scene, before = bench.otherwise(5)
    server = bench.server
    key = {"Authorization": "Bearer sk-anything"}

    async def calls():
        async with aiohttp.ClientSession() as session:
            data = {"model": "tiny", "prompt": before, "n": 1, "size": f"{SIDE}x{SIDE}", "response_format": "b64_json", "seed": scene["seed"]}
            async with session.post(f"{server.address}/v1/images/generations", json=data, headers={**key, "Content-Type": "application/json"}) as r:
                r.raise_for_status()
                start = base64.b64decode((await r.json(content_type=None))["data"][0]["b64_json"])
            data["response_format"] = "url"
            async with session.post(f"{server.address}/v1/images/generations?api-version=2025-04-01", json=data, headers=key) as r:
                r.raise_for_status()
                url = (await r.json(content_type=None))["data"][0]["url"]
            async with session.get(url, headers=key) as r:
                r.raise_for_status()
                equal("the type at the url", r.headers["content-type"].split("/")[0], "image")
                equal("the picture at the url", await r.read(), start)
            got = []
            for name in ("image", "image[]"):
                form = aiohttp.FormData()
                for field, value in {"model": "tiny", "prompt": scene["caption"], "n": 1, "size": f"{SIDE}x{SIDE}", "response_format": "b64_json",
                                     "seed": scene["seed"], "strength": 0.7}.items():
                    form.add_field(field, str(value))
                form.add_field(name, io.BytesIO(start), filename="3f2a.png", content_type="image/png")
                async with session.post(f"{server.address}/v1/images/edits", headers=key, data=form) as r:
                    r.raise_for_status()
                    got.append((await r.json(content_type=None))["data"][0]["b64_json"])
            return got

    got = asyncio.run(calls())
    need(got[0] == got[1], "a list of one picture is drawn otherwise")
    bench.keep("open_webui_openai", got[0], scene)


def a1111_txt2img(bench):
    scene, server = bench.scenes[10], bench.server
    answer = server.post("/sdapi/v1/txt2img", {**USUAL, "prompt": scene["caption"], "negative_prompt": "", "seed": scene["seed"], "steps": 4, "cfg_scale": 2,
                                               "width": SIDE, "height": SIDE, "batch_size": 1, "n_iter": 2, "sampler_name": "LCM", "scheduler": "Automatic",
                                               "override_settings": {"sd_model_checkpoint": "tiny"}})
    equal("the status", answer.status_code, 200)
    answer = answer.json()
    need(isinstance(answer["info"], str), "info is not a string of JSON")
    info, echo = json.loads(answer["info"]), answer["parameters"]
    equal("seed and all_seeds", (info["seed"], info["all_seeds"]), (scene["seed"], [scene["seed"], scene["seed"] + 1]))
    equal("all_prompts", info["all_prompts"], [scene["caption"]] * 2)
    equal("the number of infotexts", len(info["infotexts"]), 2)
    need(info["infotexts"][0].startswith(scene["caption"] + "\nSteps: 4, Sampler: LCM, CFG scale: 2"), f"infotexts begins with {info['infotexts'][0]!r}")
    equal("parameters", (echo["prompt"], echo["steps"], echo["width"], echo["seed"]), (scene["caption"], 4, SIDE, scene["seed"]))
    for number, image in enumerate(answer["images"]):
        equal("the file's format", picture(image).format, "PNG")
        bench.keep(f"a1111_txt2img_{number}", image, {**scene, "seed": info["all_seeds"][number]})


def a1111_img2img(bench):
    """With a mask, which is white where the picture changes, and with that turned round."""
    scene, before = bench.otherwise(20)
    start = bench.drawn(before, scene["seed"])
    box = window(scene)
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, box)
    body = {**USUAL, "init_images": ["data:image/png;base64," + bare(start)], "prompt": scene["caption"], "seed": scene["seed"], "steps": 4, "cfg_scale": 2,
            "denoising_strength": 0.7, "width": SIDE, "height": SIDE, "sampler_name": "LCM", "mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False}
    turned = Image.eval(mask, lambda value: 255 - value)
    images = []
    for fields in ({}, {"mask": bare(png(mask))}, {"mask": bare(png(turned)), "inpainting_mask_invert": 1}):
        answer = bench.server.post("/sdapi/v1/img2img", {**body, **fields})
        equal("the status", answer.status_code, 200)
        equal("denoising_strength in parameters", answer.json()["parameters"]["denoising_strength"], 0.7)
        images.append(answer.json()["images"][0])
    bench.keep("a1111_img2img", images[0], scene)
    bench.keep("a1111_img2img_masked", images[1], scene)
    equal("the number of pixels that changed where the mask is black", differing(picture(images[1]), picture(start), box), 0)
    need(images[1] == images[2], "the mask turned round gives another picture")
    need(differing(picture(images[0]), picture(start), box) > 0, "without a mask nothing changed around the figure")


def a1111_progress_and_interrupt(bench):
    server, results = bench.server, []
    path = "/sdapi/v1/progress?skip_current_image=true"
    idle = server.get(path).json()
    equal("progress while nothing is drawn", (idle["progress"], idle["eta_relative"], idle["state"]["job_count"], idle["current_image"]), (0, 0, 0, None))
    body = {"prompt": "a red circle", "steps": MOST_STEPS, "width": SIDE, "height": SIDE, "batch_size": 4}
    drawing = threading.Thread(target=lambda: results.append(server.post("/sdapi/v1/txt2img", body)))
    drawing.start()
    shares = []

    def moved():
        now = server.get(path).json()
        shares.append(now["progress"])
        return now if 0 < now["progress"] < 1 and now["state"]["sampling_step"] > 1 else None

    now = until(moved, 10, "progress never moved")
    equal("sampling_steps", now["state"]["sampling_steps"], MOST_STEPS)
    need(now["eta_relative"] > 0 and now["state"]["job_count"] == 1, f"progress is {now}")
    later = until(lambda: (p := server.get(path).json()["progress"]) > now["progress"] and p, 10, "progress stands still")
    need(later <= 1, f"progress is {later}")
    equal("what interrupt gives", server.post("/sdapi/v1/interrupt", {}).json(), {})
    drawing.join(5)
    need(results, "the drawing that was interrupted did not end")
    need(results[0].status_code != 200 and results[0].json()["detail"], f"an interrupted drawing ended with {results[0].status_code}")
    server.settled(2, "an interrupted drawing is still drawn")
    equal("progress afterwards", server.get(path).json()["progress"], 0)


def a1111_lists(bench):
    server = bench.server
    samplers = server.get("/sdapi/v1/samplers").json()
    names = [sampler["name"] for sampler in samplers]
    need({"LCM", "Euler", "Euler a", "DDIM"} <= set(names), f"samplers are {names}")
    need(all(isinstance(one["aliases"], list) and isinstance(one["options"], dict) for one in samplers), "a sampler has no aliases or options")
    model = server.get("/sdapi/v1/sd-models").json()[0]
    equal("the fields of a model", sorted(model), ["config", "filename", "hash", "model_name", "sha256", "title"])
    wrong = server.post("/sdapi/v1/options", {"sd_model_checkpoint": "v1-5-pruned.safetensors"})
    equal("the status of a model that is not there", wrong.status_code, 404)
    need("tiny" in wrong.json()["detail"], "the message does not name the models that are there")
    equal("the status of other options", server.post("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 2}).status_code, 200)
    wrong = server.post("/sdapi/v1/txt2img", {"prompt": "a red circle", "sampler_name": "No such"})
    equal("the status of a sampler that is not there", wrong.status_code, 422)
    wrong = server.post("/sdapi/v1/txt2img", {"prompt": "a red circle", "width": 512, "height": 512})
    equal("the status of a size that is not there", wrong.status_code, 400)
    need("128x128" in wrong.json()["detail"], "the message does not name the size that is there")


CHECKS = [open_webui_automatic1111, open_webui_openai, a1111_txt2img, a1111_img2img, a1111_progress_and_interrupt, a1111_lists]
