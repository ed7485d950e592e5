"""What the checks share: servers that are started and stopped, scenes to ask for, pictures that are kept for the shape checker, and waiting."""
import base64
import io
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time

import requests
from PIL import Image

# Steps of work that lasts long enough to be looked at while it runs: the most that the model's schedule has.
MOST_STEPS = 50
SIDE = 128


class Failure(Exception):
    """A check that is not fulfilled."""


def need(condition, why):
    if not condition:
        raise Failure(why)


def equal(what, found, expected):
    need(found == expected, f"{what} is {found!r} and not {expected!r}")


def until(condition, seconds, why):
    """Wait until a condition gives something; what it gave is returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        need(time.monotonic() < end, f"{why} (waited {seconds} s)")
        time.sleep(0.03)


def free_port(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.bind((host, 0))
        return one.getsockname()[1]


def at_once(works):
    """Run functions in threads of their own; what each returned or raised, in order."""
    results = [None] * len(works)

    def run(number, work):
        try:
            results[number] = work()
        except Exception as error:  # looked at by the caller
            results[number] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    return results


def picture(data):
    """A picture from its file, or from base64 of it."""
    data = base64.b64decode(data, validate=True) if isinstance(data, str) else data
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def window(scene):
    """A box around the place of a scene's figure, with room at its sides."""
    radius = 18 if scene["size"] == "small" else 30
    words = scene["position"].split()
    step = {"left": -1, "right": 1, "top": -1, "bottom": 1}
    x = sum(step[w] for w in words if w in ("left", "right"))
    y = sum(step[w] for w in words if w in ("top", "bottom"))
    centre = [SIDE // 2 + x * 24, SIDE // 2 + y * 24]
    reach = radius + 14
    left, top = (max(0, c - reach) for c in centre)
    right, bottom = (min(SIDE, c + reach) for c in centre)
    return left, top, right, bottom


def differing(first, second, box):
    """Pixels outside of a box in which two pictures differ."""
    first, second = first.convert("RGB"), second.convert("RGB")
    left, top, right, bottom = box
    pairs = ((first.getpixel((x, y)), second.getpixel((x, y))) for y in range(first.height) for x in range(first.width)
             if not (left <= x < right and top <= y < bottom))
    return sum(one != other for one, other in pairs)


class Server:
    """A server that runs; a context that stops it."""

    def __init__(self, bench, *options, listen="127.0.0.1:0", packs=None, ready=True):
        self.log = bench.scratch / f"server-{time.monotonic_ns()}.log"
        listening = [word for one in ([listen] if isinstance(listen, str) else listen) for word in ("--listen", one)]
        command = [bench.binary, "serve", *(packs or bench.served), *listening, *options, "--json"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        bench.logs.append(self.log)
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                break
        need(text.rstrip().endswith("}"), f"the server did not start: {self.log.read_text()[-400:]}")
        self.said = json.loads(text)
        self.addresses = self.said["addresses"]
        self.address = self.addresses[0].rstrip("/")
        if ready and self.address.startswith("http://"):
            equal("GET /ready", self.get("/ready").status_code, 200)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    def get(self, path, **options):
        return requests.get(self.address + path, timeout=20, **options)

    def post(self, path, body, **options):
        return requests.post(self.address + path, json=body, timeout=60, **options)

    def jobs(self):
        return self.get("/v1/cores").json()["jobs"]

    def settled(self, seconds, why):
        """Wait until nothing runs or waits any more."""
        until(lambda: (jobs := self.jobs())["running"] == 0 and jobs["waiting"] == 0, seconds, why)

    def count(self, series):
        """A number of /metrics."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def end(self, seconds):
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"the server still runs {seconds} s after SIGTERM") from None


class Bench:
    """What a run of the checks has: the program, the packs, and where files go."""

    def __init__(self, arguments, scratch):
        self.binary, self.out, self.scratch = str(arguments.binary.absolute()), arguments.out, scratch
        self.packs = packs = arguments.packs.absolute()
        self.served = [f"tiny={packs / 'pack'}", f"sees={packs / 'captioner'}"]
        self.chromium, self.nginx = arguments.chromium, arguments.nginx
        self.scenes = json.loads(arguments.scenes.read_text())
        self.logs = []
        self.server = None  # the one that most checks share
        (self.out / "served").mkdir(parents=True, exist_ok=True)
        for old in (self.out / "served").iterdir():
            old.unlink()

    def keep(self, name, data, scene):
        """Keep a picture that was asked for, and what it is to show."""
        data = base64.b64decode(data) if isinstance(data, str) else data
        kind = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[picture(data).format]
        equal(f"the size of {name}", picture(data).size, (SIDE, SIDE))
        (self.out / "served" / f"{name}.{kind}").write_bytes(data)
        (self.out / "served" / f"{name}.json").write_text(json.dumps(scene, indent=1) + "\n")

    def otherwise(self, number):
        """A scene to end at, and one of the same place whose figure has another colour to start from."""
        scene = self.scenes[number]
        colour = next(c for c in ("red", "yellow", "green", "blue") if c not in (scene["colour"], scene["background"]))
        return scene, scene["caption"].replace(scene["colour"], colour, 1)

    def drawn(self, prompt, seed, server=None):
        """A picture by way of the plainest request; PNG."""
        answer = (server or self.server).post("/v1/images/generations", {"prompt": prompt, "seed": seed})
        equal("the status of a drawing", answer.status_code, 200)
        return base64.b64decode(answer.json()["data"][0]["b64_json"])


def run(command, **options):
    """A command's output, as text; it has to end well."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, **options)
    need(done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


def scratch_folder():
    return tempfile.TemporaryDirectory(prefix="check-server-", dir=os.environ.get("TMPDIR"))

