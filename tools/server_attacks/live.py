"""WebSockets: sessions that are not begun, not ended, or not as agreed."""
import json
import os
import secrets
import struct
import time

from .documents import grows_at_most
from .images import png
from .wire import BINARY, CLOSE, CONTINUED, PING, TEXT, Answer, Failure, Live, Row, connect, frame, hear, need, request, talk, upgrade

FINE = Answer([400], [b""], [b""])
# Close codes that say that the client is to blame, or that there is no room.
BLAMED = ("1002", "1003", "1007", "1008", "1009", "1013", "close", "closed")


def picture_frame(number=1, file=None):
    return frame(BINARY, b"\1\1\0\0" + struct.pack(">IQ", number, 0) + (png(64, 64) if file is None else file))


def refused(*frames, start=False, seconds=8, receive=None, source="text"):
    """A session that is closed for what it sends."""
    def act(target):
        with Live(target, receive=receive) as live:
            if start:
                live.start(source=source)
                need(live.told("hello"), "the session did not begin")
            live.send(*frames)
            ended = live.ended(seconds)
            need(ended in BLAMED, f"closed with {ended}")
        return FINE
    return act


def survived(*frames, source="text"):
    """A session that goes on: what it sends is answered or passed over."""
    def act(target):
        with Live(target) as live:
            live.start(source=source)
            need(live.told("hello"), "the session did not begin")
            live.send(*frames, frame(TEXT, json.dumps({"type": "settings", "prompt": "a blue circle"})))
            need(live.told("settings", 10), "it was closed")
        return FINE
    return act


def garbage(target):
    """Frames of a session that are no pictures: each is refused, and the session goes on."""
    files = (b"", b"hello", png(64, 64)[:100], png(1, 1), png(16384, 1), b"\x89PNG\r\n\x1a\n", png(20000, 20000, bits=1, colour=0))
    with Live(target) as live:
        live.start(source="pictures")
        need(live.told("hello"), "the session did not begin")
        for number, file in enumerate(files):
            live.send(picture_frame(number, file))
            kind, _ = live.next(5)
            need(kind in (TEXT, BINARY), f"closed by frame {number}")
        live.send(picture_frame(99))
        while (got := live.next(5))[0] != BINARY or struct.unpack(">I", got[1][4:8])[0] != 99:
            need(got[0] is not None, "closed")
    return FINE


def beyond_credits(target):
    """2000 frames at once: the newest is drawn, the others are told as dropped."""
    with Live(target) as live:
        live.start(source="pictures")
        need(live.told("hello"), "the session did not begin")
        for number in range(2000):
            live.socket.sendall(picture_frame(number))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            kind, payload = live.next(5)
            need(kind is not None, "closed")
            if kind == BINARY and struct.unpack(">I", payload[4:8])[0] == 1999:
                return FINE
    raise Failure("the newest frame was not drawn")


def never_reads(target):
    """A client that sends and reads nothing: nothing piles up for it."""
    with Live(target, receive=4096) as live:
        live.start(source="pictures", format="png")
        live.socket.settimeout(0.5)
        try:
            for number in range(3000):
                live.socket.sendall(picture_frame(number))
        except OSError:
            pass
        time.sleep(1)
    return FINE


def settings_flood(target):
    """3000 changes of the prompt."""
    with Live(target) as live:
        live.start()
        need(live.told("hello"), "the session did not begin")
        for number in range(3000):
            live.socket.sendall(frame(TEXT, json.dumps({"type": "settings", "prompt": f"a red circle {number}"})))
        end = time.monotonic() + 10
        while (message := live.told("settings", max(0.01, end - time.monotonic()))) and message["generation"] < 3001:
            pass
        need(message, "closed")
    return FINE


def endless_fragments(target):
    """A message of ever more fragments."""
    with Live(target) as live:
        live.start()
        need(live.told("hello"), "the session did not begin")
        if live.send(frame(BINARY, b"x", end=False)):
            for _ in range(400):
                if not live.send(frame(CONTINUED, b"x" * 65536, end=False)):
                    break
            else:
                raise Failure("26 MB of one message were taken")
    return FINE


def vanishing(count):
    """Sessions that begin, and whose client is gone: their places are free again, and what is kept is bounded."""
    def act(target):
        for _ in range(count):
            with Live(target) as live:
                live.start(source="pictures")
                need(live.told("hello", 10), "no place for the next session")
        with Live(target) as live:
            live.start()
            need(live.told("hello", 5), "no place is free")
        threads = len(os.listdir(f"/proc/{target.pid}/task"))
        need(threads < 600, f"{threads} threads are left")
        return FINE
    return act


def many_sessions(target):
    """200 at once: some draw, some wait, the others are told to come later; a normal client gets its turn after them."""
    opened = [Live(target) for _ in range(200)]
    for live in opened:
        live.start()
    words = [live.next(10) for live in opened]
    told = [json.loads(payload)["type"] if kind == TEXT else str(kind) for kind, payload in words]
    need(set(told) <= {"hello", "queued", str(CLOSE)}, f"told {sorted(set(told))}")
    need(told.count("hello") <= 8, f"{told.count('hello')} draw at a time")
    for live in opened:
        live.socket.close()
    with Live(target) as live:
        live.start()
        need(live.told("hello", 10), "no place is free after them")
    return FINE


def guessed(target):
    """Tokens of sessions that somebody guesses: a new session each time, of no other's."""
    for word in ("", "0" * 32, "../../x", "x" * 100000, secrets.token_hex(16), "\0"):
        with Live(target) as live:
            live.start(resume=word)
            hello = live.told("hello")
            need(hello and not hello["resumed"], f"{word[:20]!r} goes on with a session")
    return FINE


def taken_twice(target):
    """A token of a session is good once."""
    with Live(target) as live:
        live.start()
        token = live.told("hello")["resume"]
    time.sleep(0.3)
    resumed = []
    for _ in range(2):
        with Live(target) as live:
            live.start(resume=token)
            resumed.append(live.told("hello")["resumed"])
    need(resumed[1] is False, f"resumed {resumed}")
    return FINE


def silent(target):
    """600 WebSockets that say nothing: no more connections than the limit of 512."""
    opened = []
    try:
        for _ in range(600):
            one = connect(target)
            one.sendall(upgrade())
            opened.append(one)
        answers = [hear(one, 3) for one in opened]
        open_now = sum(a.status == 101 and not a.closed for a in answers)
        need(open_now <= 512, f"{open_now} WebSockets are open: they are not counted as connections")
    finally:
        for one in opened:
            one.close()
    return FINE


def start_of(value):
    return frame(TEXT, json.dumps({"type": "start"} | value))


BIG = "a" * (7 << 20)
JUNK = '{"type":"start","source":"text","prompt":"x","z":[' + "0," * (3 << 20) + "0]}"


def starts_with(text):
    """A first message that is refused, or is a session; it takes neither long nor much."""
    def act(target):
        with Live(target) as live:
            live.send(frame(TEXT, text))
            live.next(5)
        return FINE
    return grows_at_most(100, act)


ROWS = [
    Row("live-without-upgrade", request("GET", "/v1/live")),
    Row("live-of-another-origin", upgrade(("Origin", "http://evil.example")), "403"),
    Row("live-of-no-origin", upgrade(("Origin", "null")), "403"),
    Row("live-of-another-host", upgrade(host="evil.example"), "403"),
    Row("live-by-post", upgrade().replace(b"GET", b"POST", 1)),
    Row("live-of-version-7", upgrade().replace(b"Version: 13", b"Version: 7")),
    Row("live-without-key", upgrade().replace(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"")),
    Row("live-somewhere-else", upgrade(path="/v1/models"), "200"),
    Row("live-with-compression", lambda t: talk(t, upgrade(("Sec-WebSocket-Extensions", "permessage-deflate")), 3), "101"),
    Row("first-message-no-json", refused(frame(TEXT, "hello"))),
    Row("first-message-binary", refused(frame(BINARY, b"hello"))),
    Row("first-message-settings", refused(frame(TEXT, '{"type":"settings","prompt":"x"}'))),
    Row("first-message-not-utf-8", refused(frame(TEXT, b"\xff\xfe"))),
    Row("first-message-deep", refused(frame(TEXT, '{"type":"start","source":"text","a":' + "[" * 100000))),
    Row("first-message-of-another-model", refused(start_of({"source": "text", "model": "../../etc/passwd"}))),
    Row("first-message-of-another-size", refused(start_of({"source": "text", "size": "99999x99999"}))),
    Row("first-message-of-another-format", refused(start_of({"source": "text", "format": "../png"}))),
    Row("first-message-of-a-wrong-seed", refused(start_of({"source": "text", "seed": -1}))),
    Row("first-message-of-a-wrong-strength", refused(start_of({"source": "pictures", "strength": 1e300}))),
    Row("first-message-of-7-mb-of-zeros", starts_with(JUNK), within=6),
    Row("first-prompt-of-7-mb", starts_with(json.dumps({"type": "start", "source": "text", "prompt": BIG})), within=6),
    Row("first-prompt-of-7-mb-for-pictures", starts_with(json.dumps({"type": "start", "source": "pictures", "prompt": BIG})), within=6),
    Row("second-prompt-of-200-kb-for-pictures", survived(frame(TEXT, json.dumps({"type": "settings", "prompt": "a" * 200000})), source="pictures"), within=10),
    Row("frame-unmasked", refused(frame(TEXT, "hello", mask=False), start=True)),
    Row("frame-of-reserved-bits", refused(frame(TEXT, "hello", reserved=7), start=True)),
    Row("frame-of-a-reserved-kind", refused(frame(5, "hello"), start=True)),
    Row("frame-that-goes-on-with-nothing", refused(frame(CONTINUED, "hello"), start=True)),
    Row("frame-text-within-a-message", refused(frame(TEXT, "a", end=False), frame(TEXT, "b"), start=True)),
    Row("frame-of-2-to-the-62", refused(frame(BINARY, b"x", length=1 << 62), start=True)),
    Row("frame-of-9-mb", refused(frame(BINARY, b"x" * (9 << 20)), start=True)),
    Row("frame-ping-of-70000", refused(frame(PING, b"x" * 70000), start=True)),
    Row("frame-close-of-one-byte", refused(frame(CLOSE, b"x"), start=True)),
    Row("message-of-endless-fragments", grows_at_most(60, endless_fragments), within=20),
    Row("messages-of-nonsense", refused(*[frame(TEXT, "{}")] * 20, start=True)),
    Row("messages-of-300-kb", refused(*[frame(TEXT, "x" * 300000)] * 20, start=True)),
    Row("messages-binary-without-head", refused(*[frame(BINARY, b"xx")] * 20, start=True)),
    Row("started-twice", survived(start_of({"source": "text"}))),
    Row("pings-20000", survived(frame(PING, b"x" * 100) * 20000), within=15),
    Row("pictures-that-are-none", garbage, within=20),
    Row("pictures-beyond-credits", grows_at_most(60, beyond_credits), within=20),
    Row("pictures-of-who-never-reads", grows_at_most(60, never_reads), within=20),
    Row("settings-3000", grows_at_most(60, settings_flood), within=20),
    Row("sessions-resumed-by-guess", guessed, within=20),
    Row("sessions-resumed-twice", taken_twice, within=20),
    Row("sessions-of-100-who-vanish", vanishing(100), within=30),
    Row("sessions-200-at-once", many_sessions, within=30),
    Row("websockets-600-that-say-nothing", silent, within=20),
]
