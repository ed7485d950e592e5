#!/usr/bin/env python3
"""Send hostile requests to `rockshard serve`, and see that it refuses them and stays well.

    python tools/attack_server.py --binary target/release/rockshard --packs DIR [ROW...]

The program is started as users start it, with the packs that `rockshard demo --out DIR` makes. Each row of the tables in tools/server_attacks is a
request, or something to do with the server, and which answers are allowed; it prints `ok NAME (ANSWER)` or `FAILED NAME: what`. After each group the server
must be well: GET /health within 50 ms (p99), memory within bounds, all connections back, no work or session left, no answer of 5xx, and a normal picture is
drawn. At the end its log has neither prompts nor tokens, and memory does not grow when the requests are sent once more. ROW names some of the rows, by their
beginning. Needs Pillow besides Python; takes about 75 s, since bodies may take a minute. The exit code is 1 if anything failed.
"""
import argparse
import json
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from server_attacks import crowds, documents, framing, images, live, places
from server_attacks.wire import Failure, get, hear, judge, connect, need, post, resident, sockets, talk

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {"framing": framing.ROWS, "places": places.ROWS, "documents": documents.ROWS, "images": images.ROWS, "live": live.ROWS, "crowds": crowds.ROWS}
# Groups that are short and have what takes memory: sent once more at the end.
AGAIN = (framing.ROWS, places.ROWS, images.ROWS[:40])
MOST_MS = 50
# Resident megabytes after a group, above those before the first; and what the groups that are sent again may add.
MOST_KEPT, MOST_ADDED = 700, 40
MARK = "zanzibar lighthouse"


class Target:
    """A server that is attacked."""

    def __init__(self, arguments, folder, name, *options):
        self.name, self.log, self.token = name, folder / f"{name}.log", None
        packs, binary = arguments.packs.absolute(), arguments.binary.absolute()
        self.secrets = [str(packs).encode(), str(ROOT).encode() + b"/crates", b"panicked"]
        served = [f"tiny={packs / 'pack'}", f"sees={packs / 'captioner'}"]
        command = [binary, "serve", *served, "--listen", "127.0.0.1:0", "--json", "-v", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                break
        need(text.rstrip().endswith("}"), f"the server did not start: {self.log.read_text()[-400:]}")
        self.port, self.pid = int(json.loads(text)["addresses"][0].rstrip("/").rsplit(":", 1)[1]), self.process.pid
        self.headers = []

    def ask(self, path):
        return talk(self, get(path, *self.headers), 20)

    def draws(self):
        """A normal picture."""
        value = {"prompt": MARK, "seed": 7}
        start = time.monotonic()
        answer = talk(self, post("/v1/images/generations", value, *self.headers), 20)
        need(answer.status == 200 and len(answer.json()["data"][0]["b64_json"]) > 1000, f"no picture is drawn: {answer.word}")
        return time.monotonic() - start

    def metric(self, name):
        lines = self.ask("/metrics").bodies[0].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def baseline(self):
        self.draws()
        chat = {"messages": [{"role": "user", "content": "what"}], "max_tokens": 2}
        talk(self, post("/v1/chat/completions", chat, *self.headers), 30)
        talk(self, post("/v1/images/edits", images.form(("prompt", b"x"), ("image", images.SMALL)), *self.headers, kind="multipart/form-data; boundary=b"), 30)
        time.sleep(0.3)
        self.memory, self.descriptors = resident(self.pid), sockets(self.pid)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def until(condition, seconds, why):
    end = time.monotonic() + seconds
    while not condition():
        need(time.monotonic() < end, f"{why()} after {seconds} s")
        time.sleep(0.05)


def is_well(target):
    """What must be true of a server whenever nobody attacks it."""
    need(target.process.poll() is None, f"the server has ended: {target.process.poll()}")
    cores = lambda: target.ask("/v1/cores").json()
    until(lambda: not any((now := cores())["jobs"][k] or now["live"].get(l) for k in ("running", "waiting") for l in ("active", "waiting")), 15,
          lambda: f"work or sessions are left: {cores()['jobs']}, {cores()['live']}")
    until(lambda: sockets(target.pid) <= target.descriptors + 2, 15, lambda: f"{sockets(target.pid)} descriptors are open, {target.descriptors} before")
    counted = lambda: target.metric("rockshard_http_connections ")
    until(lambda: counted() <= 1, 15, lambda: f"{counted():.0f} connections are counted, and one is open,")
    with connect(target) as one:
        times = []
        for _ in range(200):
            start = time.monotonic()
            one.sendall(get("/health"))
            need(hear(one, 5).status == 200, "GET /health fails")
            times.append((time.monotonic() - start) * 1e3)
    p99 = sorted(times)[int(len(times) * 0.99)]
    need(p99 <= MOST_MS, f"GET /health takes {p99:.0f} ms (p99), at most {MOST_MS} ms")
    took = target.draws()
    text = target.ask("/metrics").bodies[0].decode()
    wrong = [line for line in text.splitlines() if line.startswith("rockshard_http_requests_total") and 'status="5' in line]
    need(not wrong, f"answers of 5xx: {wrong[:3]}")
    kept = (resident(target.pid) - target.memory) / 1e6
    need(kept <= MOST_KEPT, f"{kept:.0f} MB more are resident than before, at most {MOST_KEPT} MB")
    return f"health p99 {p99:.1f} ms, {kept:+.0f} MB, a picture in {took * 1e3:.0f} ms"


def execute(name, act):
    """Whether something is as it is to be; `act` gives what is said of it."""
    start = time.monotonic()
    try:
        said = act()
    except Exception as error:  # whatever happens is a failure of the row
        kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
        print(f"FAILED {name}: {kind}{' '.join(str(error).split())[:400]}", flush=True)
        return False
    took = time.monotonic() - start
    print(f"ok {name} ({said}{f', {took:.1f} s' if took > 1 else ''})", flush=True)
    return True


def attack(target, row):
    def act():
        start = time.monotonic()
        answer = talk(target, row.act) if isinstance(row.act, bytes) else row.act(target)
        took = time.monotonic() - start
        if callable(row.act):
            need(took <= row.within, f"took {took:.1f} s, at most {row.within} s; answered {answer.word}")
        judge(answer, row, target.secrets)
        return answer.word
    return act


class Patient:
    """Connections that take their time, beside everything else; each kind is looked at when its time is over."""

    def __init__(self, target, chosen):
        self.target, self.start = target, time.monotonic()
        self.held = []
        for name, open_, seconds in crowds.PATIENT:
            if chosen(name):
                self.held.append((name, seconds, open_(target)))

    def rows(self):
        for name, seconds, opened in sorted(self.held, key=lambda held: held[1]):
            yield name, lambda: self.look(seconds, opened)

    def look(self, seconds, opened):
        time.sleep(max(0.0, self.start + seconds - time.monotonic()))
        ports = self.established()
        alive = sum(one.getsockname()[1] in ports for one in opened)
        for one in opened:
            one.close()
        need(alive == 0, f"{alive} of {len(opened)} are still open after {time.monotonic() - self.start:.0f} s")
        return f"closed within {seconds} s"

    def established(self):
        """Ports of clients whose connection the server has open."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        mine = f"{self.target.port:04X}"
        return {int(line[2].split(":")[1], 16) for line in lines if line[1].endswith(":" + mine) and line[3] == "01"}


def memory_is_flat(target):
    """The same once more adds nothing."""
    before = resident(target.pid)
    for rows in AGAIN:
        for row in rows:
            try:
                attack(target, row)()
            except Exception:  # was told the first time
                pass
    time.sleep(1)
    added = (resident(target.pid) - before) / 1e6
    need(added <= MOST_ADDED, f"{added:.0f} MB more after the same requests once more, at most {MOST_ADDED} MB")
    is_well(target)
    return f"{added:+.0f} MB"


def ends_when_told(target, *sent):
    """Told to end, with connections open on which so much was sent, a server says good-bye to its session and ends soon."""
    session = live.Live(target)
    session.start()
    need(session.told("hello"), "the session did not begin")
    opened = [connect(target) for _ in sent]
    for one, data in zip(opened, sent):
        one.sendall(data)
    time.sleep(0.2)
    start = time.monotonic()
    target.process.terminate()
    code = session.ended(8)
    exit_code = target.process.wait(15)
    need(exit_code == 0, f"its exit code is {exit_code}")
    need(code == "1001", f"the session is closed with {code!r} and not 1001")
    return f"after {time.monotonic() - start:.1f} s"


def log_is_clean(target):
    """No panic, no prompt, no token."""
    text = target.log.read_bytes()
    for word in (b"panicked", MARK.encode(), *([target.token.encode()] if target.token else [])):
        at = text.find(word)
        need(at < 0, f"it has {word!r}: {text[max(0, at - 80):at + 120]!r}")
    return f"{len(text) >> 10} KiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/rockshard")
    parser.add_argument("--packs", type=Path, required=True, help="what `rockshard demo --out` made")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="beginnings of names; none: all")
    arguments = parser.parse_args()
    chosen = lambda name: not arguments.rows or name.startswith(tuple(arguments.rows))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    start, results = time.monotonic(), []
    check = lambda name, act: results.append(execute(name, act))
    with tempfile.TemporaryDirectory(prefix="attack-server-") as scratch:
        folder, targets = Path(scratch), []
        try:
            tokens = folder / "tokens"
            token = secrets.token_hex(16)
            tokens.write_text(token + "\n")
            tokens.chmod(0o600)
            open_, slow, guarded = (Target(arguments, folder, *words) for words in (("open",), ("slow",), ("guarded", "--token-file", str(tokens))))
            targets = [open_, slow, guarded]
            guarded.token, guarded.headers = token, [("Authorization", f"Bearer {token}")]
            for target in targets:
                target.baseline()
            patient = Patient(slow, chosen)
            for name, rows in GROUPS.items():
                rows = [row for row in rows if chosen(row.name)]
                for row in rows:
                    check(row.name, attack(open_, row))
                if rows:
                    check(f"well-after-{name}", lambda: is_well(open_))
            if not arguments.rows:
                check("memory-is-flat", lambda: memory_is_flat(open_))
            check("well-with-a-token", lambda: is_well(guarded))
            for row in crowds.TOKEN_ROWS:
                if chosen(row.name):
                    check(row.name, attack(guarded, row))
            for name, look in patient.rows():
                check(name, look)
            check("well-after-the-slow", lambda: is_well(slow))
            check("ends-when-told", lambda: ends_when_told(slow))
            check("ends-with-half-a-head", lambda: ends_when_told(open_, b"GET /health HTTP/1.1\r\n"))
            for target in targets:
                check(f"log-is-clean-{target.name}", lambda: log_is_clean(target))
        finally:
            for target in targets:
                target.stop()
    print(f"{len(results)} rows, {results.count(False)} failed, {time.monotonic() - start:.0f} s")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
