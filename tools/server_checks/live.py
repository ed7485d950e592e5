"""The live WebSocket, as a program uses it: pictures from words, and from frames."""
import json
import struct
import time

from websockets.sync.client import connect

from .harness import equal, need, picture

SKIPPED, UNFINISHED = 1, 2


class Live:
    """A live session."""

    def __init__(self, address, start, token=None, **options):
        protocols = ["rockshard.live.v1"] + ([f"rockshard.token.{token}"] if token else [])
        url = address.replace("http", "ws", 1) + "/v1/live"
        self.socket = connect(url, subprotocols=protocols, open_timeout=10, max_size=None, compression=None, **options)
        self.say({"type": "start", **start})
        self.hello = self.told("hello")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, message):
        self.socket.send(json.dumps(message))

    def next(self, seconds=20):
        """The next message: a dictionary, or a picture's header and file."""
        message = self.socket.recv(timeout=seconds)
        if isinstance(message, str):
            return json.loads(message)
        version, kind, flags, seq, generation, latency, time_us = struct.unpack(">BBHIIIQ", message[:24])
        equal("version and kind", (version, kind), (1, 2))
        return {"type": "picture", "flags": flags, "seq": seq, "generation": generation, "latency_us": latency, "time": time_us, "file": message[24:]}

    def told(self, *kinds, seconds=20):
        """The next message of these kinds; an error is none."""
        end = time.monotonic() + seconds
        while True:
            message = self.next(max(0.1, end - time.monotonic()))
            if message["type"] in kinds:
                return message
            need(message["type"] != "error", f"the server says: {message.get('message')}")

    def drawn(self, generation=0):
        """The next whole picture of these settings or newer ones."""
        while True:
            message = self.told("picture")
            if message["generation"] >= generation and not message["flags"] & UNFINISHED:
                return message

    def frame(self, seq, file):
        self.socket.send(struct.pack(">BBHIQ", 1, 1, 0, seq, 1000 + seq) + file)


def words(bench, name, address, **options):
    """Pictures from words over a live connection: the first scene, then another after a change of settings."""
    first, second = bench.scenes[9], bench.scenes[22]
    start = {"source": "text", "prompt": first["caption"], "seed": first["seed"], "steps": 4, "format": "png"}
    with Live(address, start, **options) as live:
        equal("the model and the size", (live.hello["model"], live.hello["width"], live.hello["height"]), ("tiny", 128, 128))
        got = live.drawn()
        equal("the generation", got["generation"], live.hello["generation"])
        bench.keep(f"{name}_0", got["file"], first)
        live.say({"type": "settings", "prompt": second["caption"], "seed": second["seed"]})
        confirmed = live.told("settings")
        need(confirmed["generation"] > live.hello["generation"], "a change has no newer generation")
        bench.keep(f"{name}_1", live.drawn(confirmed["generation"])["file"], second)


def live_words(bench):
    words(bench, "live_words", bench.server.address)


def live_frames(bench):
    """Frames that show a figure in another colour become the scene; each is answered by a picture or by word that a newer one came."""
    scene, before = bench.otherwise(22)
    frame = bench.drawn(before, scene["seed"])
    start = {"source": "pictures", "prompt": scene["caption"], "seed": scene["seed"], "steps": 4, "strength": 0.8, "format": "png", "similarity": 0}
    with Live(bench.server.address, start) as live:
        credits = live.hello["credits"]
        need(credits >= 1, "no frame may be sent")
        pictures, answered, sent = [], 0, 0
        while len(pictures) < 4:
            need(sent < 300, f"of {sent} frames {len(pictures)} were drawn")
            while sent - answered < credits:
                sent += 1
                live.frame(sent, frame)
                time.sleep(0.03)
            answer = live.told("picture", "dropped")
            answered += 1
            if answer["type"] == "picture":
                pictures.append(answer)
        for one in pictures:
            equal("the time that comes back", one["time"], 1000 + one["seq"])
            need(one["latency_us"] > 0, "a picture took no time")
            equal("the picture's size", picture(one["file"]).size, (128, 128))
        order = [one["seq"] for one in pictures]
        equal("the order of the pictures", order, sorted(order))
        bench.keep("live_frames", pictures[-1]["file"], scene)
        stats = live.told("stats")
        need(stats["received"] >= 4 and stats["drawn"] >= 3, f"statistics are {stats}")


def live_resumes(bench):
    """A session goes on after its connection was lost, and a wrong message does not end it."""
    scene = bench.scenes[0]
    start = {"source": "text", "prompt": scene["caption"], "seed": scene["seed"], "steps": 4, "format": "jpeg"}
    with Live(bench.server.address, start) as live:
        live.drawn()
        live.socket.send("no JSON")
        problem = None
        while problem is None:
            message = live.next()
            problem = message if message["type"] == "error" else None
        equal("whether the session is over", problem["fatal"], False)
        live.say({"type": "settings", "seed": scene["seed"]})
        live.told("settings")
        live.drawn()
        token = live.hello["resume"]
        live.socket.socket.close()
    deadline = time.monotonic() + 5
    while True:
        with Live(bench.server.address, {**start, "resume": token}) as again:
            if again.hello["resumed"]:
                bench.keep("live_resumes", again.drawn()["file"], scene)
                return
        need(time.monotonic() < deadline, "the session is not resumed")
        time.sleep(0.2)


CHECKS = [live_words, live_frames, live_resumes]
