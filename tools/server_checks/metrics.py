"""Every metric of docs/server.md moves: a server is given all that they count, and each has a series that is not 0 afterwards."""
import re
import socket
import time
from pathlib import Path

import requests
from PIL import Image

from .harness import SIDE, Server, at_once, need, png, until
from .live import Live

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/server.md"
WORD = "a-word-that-opens"
PROMPT = "a large red circle on a white background"
# More than the server lets be open at a time.
CONNECTIONS = 540


def documented():
    """The metrics in the page's table."""
    table = PAGE.read_text().split("## Metrics")[1]
    return re.findall(r"^\| `(\w+)`", table, re.M)


def sums(text):
    """The sum over all series of each metric; a histogram's are its observations."""
    found = {}
    for name, value in re.findall(r"^(\w+?)(?:_count)?(?:\{[^}]*\})? (\S+)$", text, re.M):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def crowded(address):
    """Open more connections than are let in."""
    host, port = address.split("//")[1].split(":")
    all_of_them = [socket.create_connection((host, int(port)), 10) for _ in range(CONNECTIONS)]
    time.sleep(0.2)
    for one in all_of_them:
        one.close()
    time.sleep(0.2)


def every_metric_moves(bench):
    words = bench.scratch / "the-word"
    words.write_text(WORD + "\n")
    packs = [f"tiny={bench.packs}/pack", f"again={bench.packs}/pack", f"sees={bench.packs}/captioner"]
    # One model fits the limit, so that others are dropped; one request may wait, so that others are refused.
    options = ["--token-file", words, "--memory-limit", "25MB", "--queue", "1", "--live", "1"]
    with Server(bench, *options, packs=packs) as server:
        headers = {"Authorization": f"Bearer {WORD}"}

        def post(path, body):
            return requests.post(server.address + path, json=body, headers=headers, timeout=60)

        def metrics():
            return sums(requests.get(server.address + "/metrics", headers=headers, timeout=10).text)

        need(requests.get(server.address + "/v1/models", headers={"Authorization": "Bearer wrong"}, timeout=10).status_code == 401, "a wrong word opens")
        crowded(server.address)
        drawing = {"prompt": PROMPT, "steps": 30}
        for model in ("tiny", "again"):
            need(post("/v1/images/generations", {**drawing, "model": model}).status_code == 200, f"{model} does not draw")
        need(post("/v1/chat/completions", {"messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 4}).status_code == 200, "no words")
        answers = at_once([lambda: post("/v1/images/generations", drawing).status_code] * 12)
        need(429 in answers, f"nothing is refused: {answers}")
        frame = png(Image.new("RGB", (SIDE, SIDE), "red"))
        with Live(server.address, {"source": "pictures", "prompt": PROMPT, "format": "png"}, token=WORD) as live:
            for number in range(6):
                live.frame(number, frame)
            live.told("picture")
            during = metrics()
        waiting = at_once([lambda: post("/v1/images/generations", drawing)] * 6 + [metrics])[-1]
        until(lambda: metrics().get("rockshard_live_frames_total", 0) > 1, 5, "no live frames are counted")
        after = metrics()
        still = [name for name in documented() if max(m.get(name, 0) for m in (during, waiting, after)) <= 0]
        need(not still, f"these never moved: {', '.join(still)}")


CHECKS = [every_metric_moves]
