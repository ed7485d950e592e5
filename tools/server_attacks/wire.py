"""Bytes to a server and what it answers: plain sockets, since every client library would refuse to send most of this."""
import json
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field

# An answer that refuses something is short: what was sent is not sent back.
LONGEST_REFUSAL = 16 << 10
HEAD = b"Host: localhost\r\n"
JSON = "application/json"


class Failure(Exception):
    """An answer that is not allowed."""


def need(condition, why):
    if not condition:
        raise Failure(why)


@dataclass
class Row:
    """A hostile request: bytes, or what to do with a server; which answers are allowed, and within how many seconds."""

    name: str
    act: object
    allowed: str = "4xx closed"
    within: float = 3.0


@dataclass
class Answer:
    """What came back: whole answers in their order, and whether the connection was closed."""

    statuses: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    bodies: list = field(default_factory=list)
    closed: bool = False
    took: float = 0.0

    @property
    def word(self):
        if self.statuses:
            return " ".join(str(status) for status in self.statuses[:3]) + (" ..." if len(self.statuses) > 3 else "")
        return "closed" if self.closed else "no answer"

    @property
    def status(self):
        return self.statuses[0] if self.statuses else None

    def json(self):
        return json.loads(self.bodies[0])


def is_allowed(answer, allowed):
    """Whether each status is one of those in a list as `200 4xx closed`."""
    words = allowed.split()
    if not answer.statuses:
        return answer.closed and "closed" in words
    return all(any(word == str(status) or (word.endswith("xx") and word[0] == str(status)[0]) for word in words) for status in answer.statuses)


def judge(answer, row, secrets):
    """Hold an answer to what its row allows, and to what is true of every answer."""
    need(is_allowed(answer, row.allowed), f"answered {answer.word!r}, allowed: {row.allowed}")
    need(answer.took <= row.within, f"took {answer.took:.1f} s, at most {row.within} s")
    for status, head, body in zip(answer.statuses, answer.heads, answer.bodies):
        if status >= 400:
            need(len(body) <= LONGEST_REFUSAL, f"refused with {len(body)} bytes: what was sent is sent back")
        for secret in secrets:
            need(secret not in body and secret not in head, f"the answer has {secret!r}")


def connect(target, receive=None):
    """A connection; `receive` is the size of the buffer for what the server sends."""
    one = socket.socket()
    if receive:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    one.settimeout(10)
    one.connect(("127.0.0.1", target.port))
    return one


def whole(buffer, ended):
    """The first answer of a buffer and the rest, or None where it is not whole yet."""
    head, mark, rest = buffer.partition(b"\r\n\r\n")
    if not mark or not head.startswith(b"HTTP/1."):
        return None
    status = int(head[9:12])
    lines = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
    named = {name.strip().lower(): value.strip() for name, value in (line for line in lines if len(line) == 2)}
    if status in (101, 204, 304) or status < 200:
        return status, head, b"", rest
    if b"content-length" in named:
        size = int(named[b"content-length"])
        return (status, head, rest[:size], rest[size:]) if len(rest) >= size else None
    if named.get(b"transfer-encoding") == b"chunked":
        end = rest.find(b"0\r\n\r\n")
        return (status, head, rest[:end], rest[end + 5:]) if end >= 0 else None
    return (status, head, rest, b"") if ended else None


def hear(one, seconds, answers=1, linger=0.0):
    """Read until so many answers are whole, and `linger` seconds more, or the connection is closed."""
    start, buffer, found = time.monotonic(), b"", Answer()
    end = start + seconds
    lingering = False
    while True:
        while part := whole(buffer, found.closed):
            status, head, body, buffer = part
            if status == 100:
                continue
            found.statuses.append(status)
            found.heads.append(head)
            found.bodies.append(body)
            found.took = time.monotonic() - start
        if found.closed:
            break
        if len(found.statuses) >= answers and not lingering:
            if not linger:
                break
            end, lingering = time.monotonic() + linger, True
        left = end - time.monotonic()
        if left <= 0 or not select.select([one], [], [], left)[0]:
            break
        try:
            more = one.recv(1 << 20)
        except OSError:
            more = b""
        buffer += more
        found.closed = not more
    if not found.statuses:
        found.took = time.monotonic() - start
    return found


def pour(one, data):
    """Send until it is sent or the other side has had enough."""
    view = memoryview(data)
    try:
        while view:
            one.settimeout(5)
            view = view[one.send(view[:1 << 16]):]
            # A refusal that is there already is not to be lost by a reset.
            if len(view) and select.select([one], [], [], 0)[0]:
                return False
    except OSError:
        return False
    return True


def talk(target, data, seconds=5.0, answers=1, linger=0.0, close=False):
    """Send bytes and hear what comes back; with `close` nothing more is sent, which the server is told."""
    with connect(target) as one:
        pour(one, data)
        if close:
            try:
                one.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        return hear(one, seconds, answers, linger)


def request(method, path, headers=(), body=b"", host="localhost", length=True):
    """A request as bytes."""
    path = path if isinstance(path, bytes) else path.encode()
    lines = [method.encode() + b" " + path + b" HTTP/1.1"]
    if host is not None:
        lines.append(b"Host: " + (host if isinstance(host, bytes) else host.encode()))
    for name, value in headers:
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    if length and (body or method == "POST"):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(path, *headers, host="localhost"):
    return request("GET", path, headers, host=host)


def post(path, value, *headers, kind=JSON, host="localhost"):
    """A POST of JSON, or of bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    kinds = [] if kind is None else [("Content-Type", kind)]
    return request("POST", path, [*kinds, *headers], body, host)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


# WebSockets, as far as somebody needs them who breaks their rules.

TEXT, BINARY, CLOSE, PING, CONTINUED = 1, 2, 8, 9, 0


def upgrade(*headers, host="localhost", path="/v1/live"):
    fixed = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]
    return request("GET", path, [*fixed, *headers], host=host)


def frame(kind, payload=b"", end=True, mask=True, reserved=0, length=None):
    """A frame; `length` is what it says of itself, where that is another than its own."""
    payload = payload.encode() if isinstance(payload, str) else payload
    length = len(payload) if length is None else length
    head = bytes([(0x80 if end else 0) | reserved << 4 | kind])
    bit = 0x80 if mask else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 1 << 16:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    # A mask of zeros leaves everything as it is.
    return head + (b"\0\0\0\0" if mask else b"") + payload


class Live:
    """A WebSocket of /v1/live."""

    def __init__(self, target, *headers, receive=None):
        self.socket = connect(target, receive)
        self.socket.sendall(upgrade(*headers))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = self.socket.recv(1)
            need(more, "closed in the handshake")
            head += more
        need(head[9:12] == b"101", f"no WebSocket but {head[9:12]!r}")
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        """Whether the server took them."""
        try:
            self.socket.settimeout(5)
            self.socket.sendall(b"".join(frames))
            return True
        except OSError:
            return False

    def start(self, **settings):
        return self.send(frame(TEXT, json.dumps({"type": "start", "source": "text", "prompt": "a red circle"} | settings)))

    def next(self, seconds=5.0):
        """The next message that is no ping, (kind, payload); (None, b"") once the connection is closed."""
        end = time.monotonic() + seconds
        while True:
            if (message := self.cut()) is not None:
                if message[0] != PING:
                    return message
                continue
            left = end - time.monotonic()
            need(left > 0 and select.select([self.socket], [], [], left)[0], f"no message within {seconds} s")
            try:
                more = self.socket.recv(1 << 20)
            except OSError:
                more = b""
            if not more:
                return None, b""
            self.buffer += more

    def cut(self):
        if len(self.buffer) < 2:
            return None
        length, at = self.buffer[1] & 0x7F, 2
        if length == 126:
            length, at = int.from_bytes(self.buffer[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(self.buffer[2:10], "big"), 10
        if len(self.buffer) < at + length:
            return None
        kind, payload = self.buffer[0] & 0xF, self.buffer[at:at + length]
        self.buffer = self.buffer[at + length:]
        return kind, payload

    def told(self, word, seconds=5.0):
        """The next message of a type; others are passed over. None once the connection is closed."""
        end = time.monotonic() + seconds
        while True:
            kind, payload = self.next(max(0.01, end - time.monotonic()))
            if kind in (None, CLOSE):
                return None
            if kind == TEXT and (message := json.loads(payload))["type"] == word:
                return message

    def ended(self, seconds=5.0):
        """How it was closed: the code, or `closed`."""
        end = time.monotonic() + seconds
        while True:
            kind, payload = self.next(max(0.01, end - time.monotonic()))
            if kind == CLOSE:
                return str(int.from_bytes(payload[:2], "big")) if payload else "close"
            if kind is None:
                return "closed"


def resident(pid):
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as text:
        return int(text.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sockets(pid):
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
