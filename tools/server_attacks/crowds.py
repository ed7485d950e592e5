"""Many at once: connections, jobs; and those who guess tokens."""
import base64
import secrets
import time

from .documents import grows_at_most
from .wire import Answer, Live, Row, connect, get, hear, need, post, request, talk, upgrade

LIMIT = 512


def full(target):
    """More connections than there may be: those beyond are closed, and a normal client gets in when the others have gone."""
    opened = [connect(target) for _ in range(LIMIT + 88)]
    time.sleep(0.3)
    answers = []
    for one in opened:
        try:
            one.sendall(get("/health"))
        except OSError:
            pass
    for one in opened:
        answers.append(hear(one, 3))
        need(answers[-1].closed or answers[-1].status == 200, f"answered {answers[-1].word}")
    served = sum(a.status == 200 for a in answers)
    for one in opened:
        one.close()
    need(LIMIT - 30 <= served <= LIMIT, f"{served} were served at once")
    end = time.monotonic() + 3
    while (answer := talk(target, get("/health"), 1)).status != 200:
        need(time.monotonic() < end, "no normal client gets in after them")
    return answer


def come_and_go(target):
    """3000 connections that are opened and closed, some after half a request, some by a reset."""
    import socket
    import struct
    for number in range(3000):
        one = connect(target)
        if number % 3:
            one.sendall(b"GET /health HTTP/1.1\r\n" if number % 2 else get("/health"))
        if number % 5 == 0:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    return Answer([400], [b""], [b""])


def jobs(target):
    """Jobs until no more are taken: they are refused with a time to wait, and can be given up."""
    body = post("/v1/jobs", {"kind": "image", "request": {"prompt": "a red circle", "steps": 50, "n": 10}})
    names, refused = [], []
    for _ in range(10):
        answer = talk(target, body * 50, 20, 50)
        need(len(answer.statuses) == 50, f"{len(answer.statuses)} of 50 answers")
        need(set(answer.statuses) <= {202, 429}, f"answered {sorted(set(answer.statuses))}")
        refused += [head for status, head in zip(answer.statuses, answer.heads) if status == 429]
        names += taken(answer)
    give_up(target, names)
    need(refused, "none of 500 was refused")
    need(all(b"retry-after" in head.lower() for head in refused), "refused without a time to wait")
    need(len(names) <= 64 + 30, f"{len(names)} jobs of one client were taken")
    return Answer([429], [b""], [b""])


def taken(answer):
    """Names of the jobs that were taken."""
    return [body[7:39].decode() for status, body in zip(answer.statuses, answer.bodies) if status == 202]


def give_up(target, names):
    answer = talk(target, b"".join(request("DELETE", f"/v1/jobs/{name}") for name in names), 20, len(names))
    need(len(answer.statuses) == len(names) and set(answer.statuses) <= {200, 404}, f"jobs cannot be given up: {answer.word}")


def lasting(user, **more):
    """A job of many steps for one of a client's users."""
    return post("/v1/jobs", {"kind": "image", "request": {"prompt": "x", "steps": 50, "n": 10, "user": user} | more})


def under_many_names(target):
    """Jobs of ever more users, each given up: the queue is bounded, and what it knows of them too."""
    for turn in range(6):
        answer = talk(target, b"".join(lasting(secrets.token_hex(8)) for _ in range(100)), 20, 100)
        need(set(answer.statuses) <= {202, 429}, f"answered {sorted(set(answer.statuses))}")
        names = taken(answer)
        give_up(target, names)
        need(turn or len(names) >= 90, f"{len(names)} of 100 were taken")
    return Answer([429], [b""], [b""])


def gone_before_the_end(target):
    """200 clients who ask and go: nothing is drawn for them."""
    body = post("/v1/images/generations", {"prompt": "a red circle", "steps": 50, "n": 10})
    for start in range(0, 200, 40):
        opened = [connect(target) for _ in range(40)]
        for one in opened:
            one.sendall(body)
        time.sleep(0.05)
        for one in opened:
            one.close()
    return Answer([400], [b""], [b""])


def streams_left(target):
    """40 clients who read the head of a stream of events and go."""
    body = post("/v1/images/generations", {"prompt": "a red circle", "steps": 50, "stream": True, "partial_images": 3})
    opened = [connect(target) for _ in range(40)]
    for one in opened:
        one.sendall(body)
    for one in opened:
        one.settimeout(10)
        need(one.recv(12)[9:12] in (b"200", b"429"), "no stream")
        one.close()
    return Answer([400], [b""], [b""])


def not_starved(target):
    """Who gives up many jobs has no less than others after it: work that was not done is not counted."""
    give_up(target, taken(talk(target, lasting("a") * 40, 20, 40)))
    names = taken(talk(target, lasting("b", steps=20, n=1) * 30, 20, 30))
    mine = talk(target, lasting("a", steps=20, n=1))
    give_up(target, names + taken(mine))
    ahead = mine.json().get("position", 0)
    need(ahead <= 15, f"{ahead} jobs of another client, which came at the same time, go first")
    return Answer([400], [b""], [b""])


def deadline(target):
    """A deadline of a second is told of when it is over, though everything is busy."""
    names = taken(talk(target, b"".join(lasting(str(n)) for n in range(5)), 20, 5))
    time.sleep(0.2)
    answer = talk(target, post("/v1/images/generations", {"prompt": "x", "deadline_s": 1, "user": "late", "priority": "low"}), 4)
    give_up(target, names)
    need(answer.status in (200, 408), "no answer 4 s after it was asked for within 1 s")
    return answer


ROWS = [
    Row("connections-600", full, "200", 30),
    Row("connections-3000-that-come-and-go", come_and_go, within=30),
    Row("jobs-500", grows_at_most(60, jobs), within=40),
    Row("jobs-of-600-users", grows_at_most(60, under_many_names), within=40),
    Row("jobs-given-up-are-not-counted", not_starved, within=30),
    Row("deadline-while-all-are-busy", deadline, "200 408", 30),
    Row("clients-who-go-200", grows_at_most(100, gone_before_the_end), within=30),
    Row("streams-of-events-left-40", streams_left, within=30),
]

# Tokens: of a server that needs one, which is `target.token`.


def bearer(token):
    return ("Authorization", f"Bearer {token}")


def constant(target):
    """Whatever is wrong with a token, the answer is the same."""
    tried = ["", "x", target.token[:-1], target.token + "x", target.token.upper(), target.token[::-1], "x" * 1000]
    answers = [talk(target, get("/v1/models", bearer(word), ("X-Request-Id", "same"))) for word in tried]
    need({a.status for a in answers} == {401}, f"answered {[a.word for a in answers]}")
    need(len({a.bodies[0] for a in answers}) == 1, "the answers differ")
    need(len({tuple(sorted(line for line in a.heads[0].split(b"\r\n") if not line.lower().startswith(b"date"))) for a in answers}) == 1, "the heads differ")
    return answers[0]


def right_after_many(target):
    """Others guess behind the same proxy; who has the token is let in."""
    for number in range(30):
        talk(target, get("/v1/models", bearer(secrets.token_hex(8)), ("X-Forwarded-For", "203.0.113.7")))
    answer = talk(target, get("/v1/models", bearer(target.token), ("X-Forwarded-For", "203.0.113.8")))
    need(answer.status == 200, f"who has the token gets {answer.word}, since somebody else guesses")
    return answer


def guessed(target):
    """Guesses are answered with 429 after a while."""
    answers = [talk(target, get("/v1/models", bearer(secrets.token_hex(16)))).status for _ in range(40)]
    need(set(answers) <= {401, 429} and answers[-1] == 429, f"answered {answers[0]} to {answers[-1]}")
    return Answer([429], [b""], [b""])


def basic(word):
    return ("Authorization", b"Basic " + word)


TOKEN_ROWS = [
    Row("token-missing", get("/v1/models"), "401"),
    Row("token-missing-for-a-body", post("/v1/images/generations", b"x" * 1000), "401"),
    Row("token-missing-for-metrics", get("/metrics"), "401"),
    Row("token-missing-for-the-cores", get("/v1/cores"), "401"),
    Row("token-missing-for-a-websocket", upgrade(), "401"),
    Row("token-missing-by-another-path", lambda t: talk(t, get("//v1/models") + get("/v1/models/") + get("/V1/models") + get("/v1/%6dodels"), 3, 4), "401 404"),
    Row("token-missing-by-head-and-options", lambda t: talk(t, request("OPTIONS", "/v1/models") + request("BREW", "/v1/models"), 3, 2), "4xx"),
    Row("token-in-the-address", lambda t: talk(t, get(f"/v1/models?token={t.token}&api_key={t.token}")), "401"),
    Row("token-in-a-cookie", lambda t: talk(t, get("/v1/models", ("Cookie", f"token={t.token}"))), "401"),
    Row("token-of-basic-garbage", get("/v1/models", basic(b"!!!!")), "401"),
    Row("token-of-basic-without-colon", get("/v1/models", basic(base64.b64encode(b"user"))), "401"),
    Row("token-of-basic-not-utf-8", get("/v1/models", basic(base64.b64encode(b"\xff:\xfe"))), "401"),
    Row("token-of-digest", get("/v1/models", ("Authorization", "Digest username=x")), "401"),
    Row("token-of-an-empty-line", get("/v1/models", bearer("")), "401"),
    Row("token-twice", lambda t: talk(t, get("/v1/models", bearer("wrong"), bearer(t.token))), "401 400"),
    Row("token-of-a-websocket-wrong", upgrade(("Sec-WebSocket-Protocol", "rockshard.live.v1, rockshard.token.wrong")), "401"),
    Row("picture-without-token-by-guess", get("/v1/jobs/00000000000000000000000000000000/pictures/0"), "404"),
    Row("token-answers-are-alike", constant, "401"),
    Row("token-guessed-by-somebody-else", right_after_many, "200", 10),
    Row("token-guessed", guessed, "429", 10),
]


# Those who take their time, on a server of their own, beside everything else. Each opens connections, and all of them must be closed after `seconds`.


def slow_heads(target):
    opened = [connect(target) for _ in range(60)]
    for one in opened:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: local")
    return opened


def silent(target):
    return [connect(target) for _ in range(40)]


def idle(target):
    """Connections that are kept after an answer."""
    opened = [connect(target) for _ in range(20)]
    for one in opened:
        one.sendall(get("/health"))
        need(hear(one, 3).status == 200, "no answer")
    return opened


def slow_bodies(target):
    opened = [connect(target) for _ in range(40)]
    for one in opened:
        one.sendall(b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    return opened


def never_reading(target):
    """Clients that ask for much and read nothing of it."""
    opened = [connect(target, receive=4096) for _ in range(30)]
    for one in opened:
        one.sendall(get("/openapi.json") * 300)
    return opened


def never_starting(target):
    opened = [Live(target).socket for _ in range(40)]
    return opened


def half_messages(target):
    """Sessions in the middle of whose message nothing more comes."""
    opened = []
    for _ in range(4):
        live = Live(target)
        live.start()
        need(live.told("hello"), "no session")
        live.socket.sendall(b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(4) + b"x" * 1000)
        opened.append(live.socket)
    return opened


PATIENT = [
    ("silent-connections-40", silent, 20),
    ("slow-heads-60", slow_heads, 20),
    ("idle-connections-20", idle, 20),
    ("websockets-that-never-start-40", never_starting, 20),
    ("half-messages-4", half_messages, 50),
    ("slow-bodies-40", slow_bodies, 68),
    ("never-reading-30", never_reading, 68),
]
