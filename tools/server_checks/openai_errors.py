"""OpenAI's own Python client: each of its errors, and what becomes of the work behind it."""
import base64
import threading
import time

import openai

from .harness import MOST_STEPS, Server, at_once, equal, free_port, need, picture, until
from .openai_pictures import client

PROMPT = "a small red circle"
LONG = {"prompt": PROMPT, "n": 10, "extra_body": {"steps": MOST_STEPS}}


def refused(kind, call, param=None, code=None):
    """The error of a call, which has to be of this class."""
    try:
        call()
    except openai.OpenAIError as error:
        need(type(error) is kind, f"{type(error).__name__} came and not {kind.__name__}: {error}")
        if isinstance(error, openai.APIStatusError):
            need(error.body and error.body.get("message") and error.body.get("type"), f"the body has no message: {error.body}")
            need(error.request_id, "the answer has no x-request-id")
        if param:
            equal("the parameter that is named", error.param, param)
        if code:
            equal("the code", error.code, code)
        return error
    need(False, f"no {kind.__name__} came")


def error_bad_request(bench):
    draw = client(bench.server).images.generate
    for param, fields in (("size", {"size": "64x64"}), ("size", {"size": "large"}), ("n", {"n": 11}), ("seed", {"extra_body": {"seed": -2}}),
                          ("output_compression", {"output_compression": 101}), ("partial_images", {"stream": True, "partial_images": 4}),
                          (None, {"output_format": "gif"}), (None, {"background": "transparent"}), (None, {"extra_body": {"steps": "many"}})):
        refused(openai.BadRequestError, lambda: draw(prompt=PROMPT, **fields), param)
    edit = client(bench.server).images.edit
    refused(openai.BadRequestError, lambda: edit(image=b"not a picture", prompt=PROMPT), "image")
    say = client(bench.server).chat.completions.create
    there = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}]}]
    refused(openai.BadRequestError, lambda: say(model="sees", messages=there), "messages")


def error_authentication(bench):
    words = bench.scratch / "tokens"
    words.write_text("# ours\nthe-first-access-word\nthe-second-access-word\n")
    with Server(bench, "--token-file", words) as server:
        for key in ("the-first-access-word", "the-second-access-word"):
            equal("the models", len(list(client(server, api_key=key).models.list())), 2)
        wrong = client(server, api_key="the-third-access-word")
        error = refused(openai.AuthenticationError, lambda: wrong.images.generate(prompt=PROMPT), code="invalid_api_key")
        equal("WWW-Authenticate", error.response.headers["www-authenticate"], "Bearer")
        equal("the status without a word", server.get("/v1/models").status_code, 401)
        equal("the status with basic authentication", server.get("/sdapi/v1/options", auth=("anybody", "the-first-access-word")).status_code, 200)
        equal("the status of /health without a word", server.get("/health").status_code, 200)


def error_permission(bench):
    api = client(bench.server)
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{free_port()}"):
        refused(openai.PermissionDeniedError, lambda: api.images.generate(prompt=PROMPT, extra_headers={"Origin": origin}), code="forbidden")
    refused(openai.PermissionDeniedError, lambda: api.models.list(extra_headers={"Host": "rebound.example"}), code="forbidden")
    api.images.generate(prompt=PROMPT, extra_headers={"Origin": bench.server.address})


def error_not_found(bench):
    api = client(bench.server)
    refused(openai.NotFoundError, lambda: api.images.generate(prompt=PROMPT, model="gpt-image-1"), "model", "model_not_found")
    refused(openai.NotFoundError, lambda: api.images.generate(prompt=PROMPT, model="sees"), "model", "model_not_found")
    refused(openai.NotFoundError, lambda: api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "?"}]), "model")
    refused(openai.NotFoundError, lambda: api.embeddings.create(model="tiny", input="words"))
    refused(openai.NotFoundError, lambda: api.get("/jobs/0123456789abcdef0123456789abcdef", cast_to=object))


def error_unprocessable(bench):
    draw = client(bench.server).images.generate
    refused(openai.UnprocessableEntityError, lambda: draw(prompt=PROMPT, extra_body={"negative_prompt": "blur"}), "negative_prompt")
    refused(openai.UnprocessableEntityError, lambda: draw(prompt=PROMPT, extra_body={"steps": MOST_STEPS + 1}), "steps")
    refused(openai.UnprocessableEntityError, lambda: draw(prompt=PROMPT, n=2, stream=True), "n")


def error_conflict(bench):
    api = client(bench.server)
    job = api.post("/jobs", body={"kind": "image", "request": {"prompt": PROMPT}}, cast_to=object)
    until(lambda: api.get(f"/jobs/{job['id']}", cast_to=object)["status"] == "completed", 20, "the job is not completed")
    refused(openai.ConflictError, lambda: api.post(f"/jobs/{job['id']}/cancel", cast_to=object), code="conflict")


def error_rate_limit(bench):
    """A queue of one that is full: clients are told when to come again, and one that does so gets its picture."""
    with Server(bench, "--queue", "1") as server:
        jobs = []
        for waiting in (0, 0, 0, 0, 0, 1):
            jobs.append(server.post("/v1/jobs", {"kind": "image", "request": {"prompt": PROMPT, "n": 1, "steps": MOST_STEPS}}).json()["id"])
            until(lambda: server.jobs()["waiting"] == waiting, 5, "five jobs do not run at a time")
        api = client(server)
        for error in at_once([lambda: api.images.generate(prompt=PROMPT)] * 8):
            need(type(error) is openai.RateLimitError, f"a full queue gave {type(error).__name__}: {error}")
            need(1 <= int(error.response.headers["retry-after"]) <= 120, f"Retry-After is {error.response.headers.get('retry-after')}")
            equal("the code", error.code, "queue_full")
        for job in jobs:
            server.post(f"/v1/jobs/{job}/cancel", None)
        server.settled(3, "jobs that were cancelled still run")
        # Some seconds of work at a pace that is known now, so that Retry-After is short.
        for _ in range(6):
            # The one that waits may not have been begun yet.
            short = {"kind": "image", "request": {"prompt": PROMPT, "n": 1, "steps": 20}}
            until(lambda: server.post("/v1/jobs", short).status_code == 202, 10, "a short job is not taken")
        answers = []

        def noted(response):
            answers.append((time.monotonic(), response.status_code, response.headers.get("retry-after")))

        patient = client(server, max_retries=20, http_client=openai.DefaultHttpxClient(event_hooks={"response": [noted]}))
        patient.images.generate(prompt=PROMPT)
        need(len(answers) > 1, "the client that tries again met no full queue")
        for (at, status, wait), (after, *_) in zip(answers, answers[1:]):
            equal("the status before another try", status, 429)
            need(after - at >= float(wait), f"Retry-After {wait} was not waited for: {after - at:.1f} s")


def error_draining(bench):
    """A server that is about to stop takes nothing new, and says so with 503."""
    with Server(bench) as server:
        job = server.post("/v1/jobs", {"kind": "image", "request": {"prompt": PROMPT, "n": 2, "steps": MOST_STEPS}}).json()
        server.terminate()
        until(lambda: server.get("/ready").status_code == 503, 5, "/ready still says yes after SIGTERM")
        error = refused(openai.InternalServerError, lambda: client(server).images.generate(prompt=PROMPT), code="draining")
        equal("the status", error.status_code, 503)
        need(int(error.response.headers["retry-after"]) <= 120, "Retry-After is too long for the client")
        equal("what /health says", server.get("/health").json()["status"], "draining")
        path = f"/v1/jobs/{job['id']}"
        until(lambda: server.get(path).json()["status"] == "completed", 30, "the job is not finished while the server drains")
        data = server.get(f"{path}/result").json()["data"]
        equal("the pictures of the job", len([picture(one["b64_json"]) for one in data]), 2)
        equal("the exit code", server.end(10), 0)


def error_connection(bench):
    nowhere = openai.OpenAI(base_url=f"http://127.0.0.1:{free_port()}/v1", api_key="any", max_retries=0)
    refused(openai.APIConnectionError, lambda: nowhere.images.generate(prompt=PROMPT))


def error_timeout(bench):
    """Who does not wait any longer is not drawn for."""
    server = bench.server
    refused(openai.APITimeoutError, lambda: client(server).with_options(timeout=0.001).images.generate(**LONG))
    server.settled(3, "a request that ended at once is still drawn")
    begun = threading.Event()

    def watch():
        until(lambda: server.jobs()["running"] == 1, 5, "the request does not run")
        begun.set()

    watching = threading.Thread(target=watch)
    watching.start()
    refused(openai.APITimeoutError, lambda: client(server).with_options(timeout=0.8).images.generate(**LONG))
    watching.join()
    need(begun.is_set(), "the request was not running before the client gave up")
    server.settled(2, "a request whose client gave up is still drawn")
    events = client(server).images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body={"steps": MOST_STEPS})
    first = next(iter(events))
    equal("the first event", first.type, "image_generation.partial_image")
    picture(base64.b64decode(first.b64_json))
    events.close()
    server.settled(2, "a stream that its client has closed is still drawn")


CHECKS = [error_bad_request, error_authentication, error_permission, error_not_found, error_unprocessable, error_conflict, error_rate_limit,
          error_draining, error_connection, error_timeout]
