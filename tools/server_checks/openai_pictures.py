"""OpenAI's own Python client: pictures and models."""
import asyncio
import warnings

import openai
import requests
from PIL import Image

from .harness import SIDE, at_once, differing, equal, need, picture, png, window


def client(server, **options):
    return openai.OpenAI(base_url=f"{server.address}/v1", **{"api_key": "any", "timeout": 60, "max_retries": 0, **options})


def generate(server, scene, **fields):
    own = fields.pop("extra_body", {})
    return client(server).images.generate(prompt=scene["caption"], extra_body={"seed": scene["seed"], **own}, **fields)


def openai_generates(bench):
    scene = bench.scenes[0]
    got = generate(bench.server, scene, model="tiny", size=f"{SIDE}x{SIDE}", response_format="b64_json", quality="high", user="somebody")
    equal("the number of pictures", len(got.data), 1)
    equal("the seed that came back", got.data[0].model_extra["seed"], scene["seed"])
    equal("url beside b64_json", got.data[0].url, None)
    equal("output_format", got.output_format, "png")
    equal("size", got.size, f"{SIDE}x{SIDE}")
    need(got.created > 1_600_000_000 and got._request_id, "created or the x-request-id is missing")
    need(got.model_extra["timings"]["measured_ms"] > 0, "timings are missing")
    bench.keep("openai_generates", got.data[0].b64_json, scene)


def openai_seeds_repeat(bench):
    scene = bench.scenes[9]
    first, second = (generate(bench.server, scene).data[0].b64_json for _ in range(2))
    need(first == second, "the same words and seed gave other bytes")
    other = generate(bench.server, scene, extra_body={"seed": scene["seed"] + 1}).data[0].b64_json
    need(other != first, "another seed gave the same bytes")
    drawn = client(bench.server).images.generate(prompt=scene["caption"]).data[0]
    again = generate(bench.server, scene, extra_body={"seed": drawn.model_extra["seed"]}).data[0]
    need(drawn.b64_json == again.b64_json, "the seed that was chosen and told does not give the picture again")
    bench.keep("openai_seeds_repeat", first, scene)


def openai_several(bench):
    scene = bench.scenes[5]
    got = generate(bench.server, scene, n=3, response_format="b64_json").data
    equal("the number of pictures", len(got), 3)
    seeds = [one.model_extra["seed"] for one in got]
    equal("the first seed", seeds[0], scene["seed"])
    equal("the number of seeds", len(set(seeds)), 3)
    alone = generate(bench.server, scene, extra_body={"seed": seeds[2]}).data[0]
    need(alone.b64_json == got[2].b64_json, "the third picture's seed gives other bytes alone")
    for number, one in enumerate(got):
        bench.keep(f"openai_several_{number}", one.b64_json, {**scene, "seed": seeds[number]})


def openai_formats(bench):
    for number, name, kind in ((10, "webp", "WEBP"), (13, "jpeg", "JPEG"), (15, "png", "PNG")):
        scene = bench.scenes[number]
        got = generate(bench.server, scene, output_format=name)
        equal("output_format", got.output_format, name)
        equal("the file's format", picture(got.data[0].b64_json).format, kind)
        bench.keep(f"openai_formats_{name}", got.data[0].b64_json, scene)
    sizes = [len(generate(bench.server, scene, output_format="jpeg", output_compression=q).data[0].b64_json) for q in (10, 95)]
    need(sizes[0] < sizes[1], "a lower output_compression does not give a smaller JPEG")


def openai_urls(bench):
    scene = bench.scenes[18]
    got = generate(bench.server, scene, response_format="url", output_format="jpeg").data[0]
    equal("b64_json beside url", got.b64_json, None)
    need(got.url.startswith(bench.server.address + "/"), f"the url {got.url} is not of the server")
    file = requests.get(got.url, timeout=10)
    equal("the status of the url", file.status_code, 200)
    equal("its type", file.headers["content-type"], "image/jpeg")
    bench.keep("openai_urls", file.content, scene)


def told(events, prefix, partials):
    """What a stream told: as many partial pictures, in order, then one that is complete."""
    events = list(events)
    equal("the events", [e.type for e in events], [f"{prefix}.partial_image"] * partials + [f"{prefix}.completed"])
    equal("the indices", [e.partial_image_index for e in events[:-1]], list(range(partials)))
    for event in events:
        equal("a picture's size", picture(event.b64_json).size, (SIDE, SIDE))
        equal("what is told of size", event.size, f"{SIDE}x{SIDE}")
        need(event.created_at > 0 and event.output_format == "png" and event.background == "opaque", "a field of an event is missing")
    return events[-1].b64_json


def openai_streams(bench):
    scene = bench.scenes[7]
    last = told(generate(bench.server, scene, stream=True, partial_images=2), "image_generation", 2)
    need(last == generate(bench.server, scene).data[0].b64_json, "the last picture of a stream is not the one that is drawn without")
    told(generate(bench.server, scene, stream=True, partial_images=0), "image_generation", 0)
    bench.keep("openai_streams", last, scene)


def edit(bench, number, image, **fields):
    scene, _ = bench.otherwise(number)
    own = fields.pop("extra_body", {})
    return client(bench.server).images.edit(image=image, prompt=scene["caption"], extra_body={"seed": scene["seed"], "strength": 0.7, **own}, **fields)


def openai_edits(bench):
    scene, before = bench.otherwise(22)
    start = bench.drawn(before, scene["seed"])
    got = edit(bench, 22, start, model="tiny", n=1, size=f"{SIDE}x{SIDE}").data[0]
    equal("the seed that came back", got.model_extra["seed"], scene["seed"])
    bench.keep("openai_edits", got.b64_json, scene)
    need(edit(bench, 22, [start]).data[0].b64_json == got.b64_json, "a list of one picture is drawn otherwise")
    need(edit(bench, 22, ("named.png", start, "image/png")).data[0].b64_json == got.b64_json, "a named file is drawn otherwise")
    large = png(picture(start).resize((300, 200)))
    equal("the size of what comes of a larger picture", picture(edit(bench, 22, large).data[0].b64_json).size, (SIDE, SIDE))


def openai_masked_edit(bench):
    for number, name in ((20, "openai_masked_edit"), (29, "openai_masked_edit_large")):
        scene, before = bench.otherwise(number)
        start = bench.drawn(before, scene["seed"])
        box = window(scene)
        mask = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
        mask.paste((0, 0, 0, 0), box)
        got = edit(bench, number, start, mask=png(mask)).data[0].b64_json
        equal("the number of pixels that changed where the mask is opaque", differing(picture(got), picture(start), box), 0)
        need(picture(got).convert("RGB").tobytes() != picture(start).convert("RGB").tobytes(), "nothing changed where the mask is transparent")
        bench.keep(name, got, scene)


def openai_edit_streams(bench):
    scene, before = bench.otherwise(13)
    start = bench.drawn(before, scene["seed"])
    last = told(edit(bench, 13, start, stream=True, partial_images=2), "image_edit", 2)
    bench.keep("openai_edit_streams", last, scene)


def openai_variations(bench):
    scene = bench.scenes[25]
    start = bench.drawn(scene["caption"], scene["seed"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        got = client(bench.server).images.create_variation(image=start, model="tiny", n=2, response_format="b64_json", extra_body={"seed": 4}).data
    equal("the number of pictures", len(got), 2)
    need(got[0].b64_json != got[1].b64_json, "both variations are the same")
    for one in got:
        equal("a variation's size", picture(one.b64_json).size, (SIDE, SIDE))


def openai_models(bench):
    api = client(bench.server)
    listed = {model.id: model for model in api.models.list()}
    equal("the models", sorted(listed), ["sees", "tiny"])
    one = api.models.retrieve("tiny")
    equal("what is told of a model", (one.id, one.object, one.owned_by), ("tiny", "model", "rockshard"))
    need(one.created > 1_600_000_000, "a model has no time of creation")
    for name in ("a/b", "no such model", "ü%2F?#", "tiny/"):
        try:
            found = api.models.retrieve(name)
        except openai.NotFoundError as error:
            equal(f"the code for {name!r}", error.code, "model_not_found")
            continue
        need(False, f"a model called {name!r} was found: {found}")


def openai_asynchronous(bench):
    """Eight requests at once over one asynchronous client."""
    scenes = [bench.scenes[number] for number in (0, 8, 11, 17, 20, 22, 24, 30)]

    async def draw():
        api = openai.AsyncOpenAI(base_url=f"{bench.server.address}/v1", api_key="any", max_retries=0, timeout=60)
        async with api:
            return await asyncio.gather(*(api.images.generate(prompt=s["caption"], extra_body={"seed": s["seed"]}) for s in scenes))

    got = asyncio.run(draw())
    for scene, one in zip(scenes, got):
        equal("the seed that came back", one.data[0].model_extra["seed"], scene["seed"])
        bench.keep(f"openai_asynchronous_{scene['seed']}", one.data[0].b64_json, scene)
    alone = [lambda s=s: generate(bench.server, s).data[0].b64_json for s in scenes[:2]]
    for together, single in zip(got, at_once(alone)):
        need(together.data[0].b64_json == single, "a picture drawn beside others is not the one that is drawn alone")


CHECKS = [openai_generates, openai_seeds_repeat, openai_several, openai_formats, openai_urls, openai_streams, openai_edits, openai_masked_edit,
          openai_edit_streams, openai_variations, openai_models, openai_asynchronous]
