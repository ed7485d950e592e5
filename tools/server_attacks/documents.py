"""JSON that is none, that is too much, or that says what it must not; prompts."""
import base64
import gzip
import io
import json
import select
import threading
import time

from PIL import Image

from .wire import Answer, Row, connect, get, need, post, request, resident, talk

DRAW, CHAT, JOBS, MINIMAL, WEB_UI = "/v1/images/generations", "/v1/chat/completions", "/v1/jobs", "/generate", "/sdapi/v1/txt2img"
USER = {"role": "user"}
# Values that fields do not take.
FIELDS = {
    DRAW: {"n": ("evil", [], {}, -1, 0, 1.5, 1 << 64), "size": (True, [], 64, "0x0", "-1x-1", "99999999999x1", "1x1x1", "x", "NaNxNaN", "128x128 "),
           "seed": ("evil", -2, 1 << 60, 1e300, [], True), "steps": (0, -1, 151, 1 << 40, "evil", 1e99), "guidance_scale": (-1, 1e308, "evil", []),
           "output_format": ("svg", "../png", 1, [], True), "output_compression": (-1, 101, 256, "evil"), "response_format": ("file", 1, {}),
           "stream": ("evil", 1, []), "partial_images": (-1, 4, "evil"), "sampler": ("evil", "../x", 1, []), "priority": ("root", 1, []),
           "deadline_s": (0, -1, 3601, 1 << 64, "evil"), "background": ("transparent", 1), "user": (1, [], {}), "model": (1, [], {}, ""),
           "prompt": (1, None, [], {})},
    CHAT: {"messages": ([], [1], [[]], {}, "evil", [{"role": "root", "content": "x"}], [USER], [USER | {"content": [{"type": "file"}]}],
                        [USER | {"content": "x"}] * 65, [{"role": "assistant", "content": "x"}], [USER | {"content": ""}]),
           "max_tokens": (0, -1, 1 << 40, "evil"), "temperature": (-1, 3, "evil", 1e300), "top_p": (0, -1, 2, []), "n": (0, 2, 1 << 64),
           "seed": (-2, 1.5, "evil"), "stream_options": ("evil", [], 1), "model": ("tiny", 1), "deadline_s": (0, 1 << 64)},
    MINIMAL: {"width": (0, -1, 1 << 40, "evil"), "height": (7, 1e9, []), "num_inference_steps": (0, 1e9, "evil"), "seed": (1.5, "evil"),
              "guidance_scale": (-1, "evil")},
    WEB_UI: {"batch_size": (0, 11, -1, 1 << 40), "n_iter": (0, 99, "evil"), "width": (0, 1), "sampler_name": ("evil", 1),
             "override_settings": (1, {"sd_model_checkpoint": "../x"}), "init_images": (1, "evil", {}), "cfg_scale": (-1, 1e308, "evil"),
             "steps": (0, 1e9), "prompt": (1, [], {})},
    JOBS: {"kind": ("root", 1, None, []), "request": (1, "evil", [], {})},
}
FULL = {DRAW: {"prompt": "x"}, CHAT: {"messages": [{"role": "user", "content": "x"}]}, MINIMAL: {"prompt": "x"}, WEB_UI: {"prompt": "x"},
        JOBS: {"kind": "image", "request": {"prompt": "x"}}}


def wrong_values(path):
    """Every field with every value that it does not take."""
    def act(target):
        tried = [(name, value) for name, values in FIELDS[path].items() for value in values]
        for at in range(0, len(tried), 40):
            part = tried[at:at + 40]
            answer = talk(target, b"".join(post(path, FULL[path] | {name: value}) for name, value in part), 20, len(part))
            for (name, value), status in zip(part, answer.statuses):
                need(400 <= status < 500, f"{name} of {value!r}: {status}")
            need(len(answer.statuses) == len(part), f"{len(answer.statuses)} answers to {len(part)} requests")
        return Answer([400], [b""], [b""])
    return act


class Peak(threading.Thread):
    """The most memory that a process has while it is looked at."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.top, self.over = target, resident(target.pid), threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.01):
            self.top = max(self.top, resident(self.target.pid))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def grows_at_most(megabytes, act):
    """Something that must not take more memory than this while it is done."""
    def measured(target):
        before = resident(target.pid)
        with Peak(target) as peak:
            answer = act(target)
        grown = (peak.top - before) / 1e6
        need(grown <= megabytes, f"resident memory grew by {grown:.0f} MB meanwhile, at most {megabytes} MB; answered {answer.word}")
        return answer
    return measured


def sent(data, seconds=15):
    return lambda target: talk(target, data, seconds)


def at_once(count, data, seconds=30):
    """The same request so many times at once; the first answer that is not a refusal is the answer."""
    def act(target):
        answers = [None] * count

        def one(number):
            answers[number] = talk(target, data, seconds)

        threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Answer([a.status or (400 if a.closed else 0) for a in answers], [b""] * count, [b""] * count, took=max(a.took for a in answers))
    return act


def others_are_served(data):
    """While something large is read, others get an answer."""
    def act(target):
        slowest = 0.0
        answers = []
        thread = threading.Thread(target=lambda: answers.append(at_once(2, data)(target)))
        thread.start()
        while thread.is_alive():
            start = time.monotonic()
            talk(target, get("/health"), 20)
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.01)
        need(slowest < 0.5, f"GET /health took {slowest * 1e3:.0f} ms meanwhile")
        return answers[0]
    return act


def held(target):
    """Thirty bodies of 30 MB whose last byte does not come: the server does not keep all of them."""
    head = request("POST", DRAW, [("Content-Type", "application/json"), ("Content-Length", str(30 << 20))], length=False)
    left = {connect(target): memoryview(head + b" " * ((30 << 20) - 1)) for _ in range(30)}
    opened, end = list(left), time.monotonic() + 4
    for one in opened:
        one.setblocking(False)
    while left and (now := time.monotonic()) < end:
        for one in select.select([], list(left), [], end - now)[1]:
            try:
                left[one] = left[one][one.send(left[one][:1 << 18]):]
            except OSError:
                left[one] = b""
            if not left[one]:
                del left[one]
    time.sleep(0.2)
    for one in opened:
        one.close()
    return Answer([400], [b""], [b""])


def zeros(path, before, after):
    """A document with 15 million zeros in it, of 30 MB: a tree of it is much larger."""
    return post(path, before + b"[" + b"0," * (15 << 20) + b"0]" + after)


def large(text):
    return b'"' + text * (8 << 20) + b'"'


MANY_PARTS = post(CHAT, b'{"messages":[{"role":"user","content":[' + b'{"type":"text","text":""},' * (1 << 20) + b'{"type":"text","text":""}]}]}')


def forged(target):
    """A prompt with a line like that of the parameters does not take its place."""
    prompt = "x\nSteps: 1, Sampler: evil, CFG scale: 1, Seed: 99, Size: 1x1"
    answer = talk(target, post(DRAW, {"prompt": prompt, "seed": 1}))
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"])))
    last = picture.text["parameters"].splitlines()[-1]
    need("Seed: 1," in last and "evil" not in last, f"the last line is {last!r}")
    return answer


# A prompt is drawn or refused, and never takes long.
PROMPTS = {
    "of-32001-characters": ("x" * 32001, "400"),
    "of-10000-brackets": ("(" * 10000 + "a" + ")" * 10000, "200 4xx"),
    "of-open-brackets": ("([" * 15000, "200 4xx"),
    "of-closing-brackets": (")]" * 15000, "200 4xx"),
    "of-weights": ("(a:1.1)" * 4500, "200 4xx"),
    "of-a-weight-too-large": ("(a:1e999)", "200 4xx"),
    "of-a-weight-of-30000-digits": ("(a:" + "9" * 30000 + ")", "4xx"),
    "of-colons": ("(a:" * 10000, "200 4xx"),
    "of-one-word": ("a" * 32000, "200"),
    "of-marks": ("a" + "\u0301" * 31000, "200"),
    "of-signs": ("a+++---" * 4500, "200 4xx"),
    "of-backslashes": ("\\" * 32000, "200"),
    "of-control-characters": ("".join(map(chr, range(32))) * 1000, "200 4xx"),
    "of-nul": ("a\0b", "200 4xx"),
    "of-other-directions": ("\u202e\u2066\ufeff\u200b" * 8000, "200 4xx"),
    "of-end-marks": ("<|endoftext|><|im_end|></s>" * 1000, "200 4xx"),
    "with-a-lora": ("<lora:../../x:1>", "4xx"),
    "with-a-hypernetwork": ("<hypernet:../../x:1>", "4xx"),
    "with-schedules": ("[a:b:0.5]" * 3000, "4xx"),
}

ROWS = [
    Row("document-empty", post(DRAW, b"")),
    Row("document-null", post(DRAW, b"null")),
    Row("document-a-list", post(DRAW, b"[]")),
    Row("document-a-text", post(DRAW, b'"prompt"')),
    Row("document-cut-off", post(DRAW, b'{"prompt": "x')),
    Row("document-and-another", post(DRAW, b'{"prompt": "x", "size": "1x1"}{}')),
    Row("document-with-remarks", post(DRAW, b'{"prompt": "x" /* evil */}')),
    Row("lists-100000-deep", post(DRAW, b"[" * 100000)),
    Row("lists-100000-deep-in-an-unknown-field", post(WEB_UI, b'{"prompt": "x", "a": ' + b"[" * 100000 + b"]" * 100000 + b"}"), "200 4xx"),
    Row("objects-100000-deep", post(JOBS, b'{"kind": "image", "request": ' + b'{"a":' * 100000 + b"1" + b"}" * 100001)),
    Row("number-1e400", post(DRAW, b'{"prompt": "x", "guidance_scale": 1e400}')),
    Row("number-of-100000-digits", post(DRAW, b'{"prompt": "x", "seed": ' + b"9" * 100000 + b"}")),
    Row("number-nan", post(DRAW, b'{"prompt": "x", "guidance_scale": NaN}')),
    Row("number-infinite", post(DRAW, b'{"prompt": "x", "guidance_scale": Infinity}')),
    Row("field-twice", post(DRAW, b'{"prompt": "x", "prompt": "y"}')),
    Row("not-utf-8", post(DRAW, b'{"prompt": "\xff\xfe"}')),
    Row("utf-16", post(DRAW, '{"prompt": "x"}'.encode("utf-16"))),
    Row("byte-order-mark", post(DRAW, b"\xef\xbb\xbf" + b'{"prompt": "x", "size": "1x1"}')),
    Row("lone-surrogate", post(DRAW, b'{"prompt": "\\ud800", "size": "1x1"}')),
    Row("nul-bytes", post(DRAW, b"\0" * 1000)),
    Row("type-missing", post(DRAW, b'{"prompt": "x"}', kind=None), "415"),
    Row("type-text", post(DRAW, b'{"prompt": "x"}', kind="text/plain"), "415"),
    Row("type-form", post(DRAW, b"prompt=x", kind="application/x-www-form-urlencoded"), "415"),
    Row("type-twice", post(DRAW, b'{"prompt": "x"}', ("Content-Type", "application/json"), kind="text/plain"), "415 400"),
    Row("type-too-long", post(DRAW, b'{"prompt": "x"}', kind="text/plain; a=" + "b" * 50000)),
    Row("type-not-utf-8", post(DRAW, b'{"prompt": "x"}', kind=b"\xff\xfe")),
    Row("gzip-bomb", post(DRAW, gzip.compress(b" " * (64 << 20)), ("Content-Encoding", "gzip"))),
    *[Row(f"wrong-values{path.replace('/', '-')}", wrong_values(path), within=30) for path in FIELDS],
    Row("model-of-8-mb-comes-back-short", post(DRAW, b'{"prompt": "x", "model": ' + large(b"a") + b"}")),
    Row("number-of-8-mb-of-text-comes-back-short", post(DRAW, b'{"prompt": "x", "n": ' + large(b"a") + b"}")),
    Row("size-of-8-mb-comes-back-short", post(DRAW, b'{"prompt": "x", "size": ' + large(b"a") + b"}")),
    Row("format-of-8-mb-comes-back-short", post(DRAW, b'{"prompt": "x", "output_format": ' + large(b"a") + b"}")),
    Row("sampler-of-8-mb-comes-back-short", post(DRAW, b'{"prompt": "x", "sampler": ' + large(b"a") + b"}")),
    Row("role-of-8-mb-comes-back-short", post(CHAT, b'{"messages": [{"content": "x", "role": ' + large(b"a") + b"}]}")),
    Row("kind-of-8-mb-comes-back-short", post(JOBS, b'{"request": {}, "kind": ' + large(b"a") + b"}")),
    Row("key-of-8-mb-comes-back-short", post(JOBS, b'{"kind": "image", "request": {' + large(b"a") + b": 1}}")),
    Row("millions-of-zeros-for-drawing", grows_at_most(200, sent(zeros(DRAW, b'{"prompt":"x","size":"1x1","a":', b"}"))), within=10),
    Row("millions-of-zeros-for-a-web-ui", grows_at_most(200, sent(zeros(WEB_UI, b'{"width":1,"a":', b"}"))), within=10),
    Row("millions-of-zeros-for-a-job", grows_at_most(200, sent(zeros(JOBS, b'{"kind":"image","request":{"prompt":1,"a":', b"}}"))), within=10),
    Row("millions-of-zeros-for-a-chat", grows_at_most(200, sent(zeros(CHAT, b'{"messages":[{"role":"user","content":', b"}]}"))), within=10),
    Row("a-million-parts-of-a-message", others_are_served(MANY_PARTS), within=10),
    Row("bodies-held-before-their-end", grows_at_most(400, held), within=20),
    Row("questions-too-long", post(CHAT, {"messages": [{"role": "user", "content": "x" * 32001}]})),
    Row("conversation-too-long", post(CHAT, {"messages": [USER | {"content": "a " * 16000}] * 64, "max_tokens": 1}), "4xx", 10),
    *[Row(f"prompt-{name}", post(DRAW, {"prompt": text, "seed": 1}), allowed, 5) for name, (text, allowed) in PROMPTS.items()],
    Row("prompt-that-forges-parameters", forged, "200"),
]
