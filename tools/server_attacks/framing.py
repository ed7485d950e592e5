"""Where a request ends and the next begins; heads; methods; other protocols."""
import time

from .wire import HEAD, Answer, Row, chunk, connect, get, hear, need, post, pour, request, talk

JOB = {"prompt": "x", "size": "1x1"}  # refused without a core
AFTER = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def posted(headers, body):
    return b"POST /v1/images/generations HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n" + headers + b"\r\n" + body


def alone(data):
    """Bytes of which nobody may take the end for another request."""
    def act(target):
        answer = talk(target, data, 2, 1, linger=0.15)
        need(len(answer.statuses) <= 1, f"{len(answer.statuses)} answers: what is in the body was taken for a request")
        return answer
    return act


def pipelined(target):
    answer = talk(target, get("/health") * 200, 5, 200)
    need(answer.statuses == [200] * 200, f"{len(answer.statuses)} answers to 200 requests")
    answer.took = 0.0
    return answer


def half_closed(data):
    return lambda target: talk(target, data, 3, close=True)


def endless(first, more, most):
    """Send more and more until the server has had enough, `most` bytes at most."""
    def act(target):
        with connect(target) as one:
            one.settimeout(5)
            sent, start, pieces = 0, time.monotonic(), [first]
            while sent < most and pour(one, pieces[-1]):
                sent += len(pieces[-1])
                pieces = [more]
                if time.monotonic() - start > 20:
                    break
            need(sent < most, f"{sent} bytes were taken")
            return hear(one, 3)
    return act


def unread(target):
    """A large body for a route that reads none: it is not read to its end."""
    with connect(target) as one:
        pour(one, request("GET", "/health", [("Content-Length", "9000000000")]))
        answer = hear(one, 3)
        try:
            for _ in range(400):
                one.sendall(b"x" * 65536)
        except OSError:
            return answer
    need(False, "26 MB that nobody wants were read")


def continued(target):
    """A body that is announced: it is too large, so it is not asked for."""
    headers = [("Content-Type", "application/json"), ("Content-Length", "9000000000"), ("Expect", "100-continue")]
    return talk(target, request("POST", "/v1/images/generations", headers, length=False), 2)


def split(data, pause, size):
    """Bytes in small pieces."""
    def act(target):
        with connect(target) as one:
            for at in range(0, len(data), size):
                one.sendall(data[at:at + size])
                time.sleep(pause)
            return hear(one, 3)
    return act


def many_at_once(target):
    """A hundred garbage connections."""
    opened = [connect(target) for _ in range(100)]
    for number, one in enumerate(opened):
        pour(one, bytes((number * 7 + i * 13) % 256 for i in range(200)) + b"\r\n\r\n")
    answers = [hear(one, 3) for one in opened]
    for one in opened:
        one.close()
    worst = [a for a in answers if not (a.closed or (a.status or 0) in range(400, 500))]
    need(not worst, f"{len(worst)} of 100 without a refusal")
    return Answer([400], [b""], [b""])


CL_TE = posted(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + AFTER)
TE_CL = posted(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunk(AFTER) + b"0\r\n\r\n")
LARGE = b"a" * 4096
TRAILER = b"t: " + LARGE + b"\r\n"
H2C = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]

ROWS = [
    Row("content-length-and-chunked", alone(CL_TE)),
    Row("chunked-and-content-length", alone(TE_CL)),
    Row("two-content-lengths", alone(posted(b"Content-Length: 2\r\nContent-Length: 60\r\n", b"{}" + AFTER))),
    Row("content-length-list", alone(posted(b"Content-Length: 2, 60\r\n", b"{}" + AFTER))),
    Row("content-length-negative", alone(posted(b"Content-Length: -1\r\n", AFTER))),
    Row("content-length-plus", alone(posted(b"Content-Length: +2\r\n", b"{}" + AFTER))),
    Row("content-length-hexadecimal", alone(posted(b"Content-Length: 0x2\r\n", b"{}" + AFTER))),
    Row("content-length-overflow", alone(posted(b"Content-Length: 99999999999999999999999\r\n", b"{}" + AFTER))),
    Row("content-length-nearly-64-bits", alone(posted(b"Content-Length: 18446744073709551615\r\n", b"{}" + AFTER))),
    Row("transfer-encoding-unknown", alone(posted(b"Transfer-Encoding: xchunked\r\n", b"2\r\n{}\r\n0\r\n\r\n" + AFTER))),
    Row("transfer-encoding-chunked-not-last", alone(posted(b"Transfer-Encoding: chunked, identity\r\n", b"2\r\n{}\r\n0\r\n\r\n" + AFTER))),
    Row("transfer-encoding-twice", alone(posted(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n" + AFTER))),
    Row("transfer-encoding-blank-before-colon", alone(posted(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + AFTER))),
    Row("transfer-encoding-vertical-tab", alone(posted(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n" + AFTER))),
    Row("transfer-encoding-folded", alone(posted(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n" + AFTER))),
    Row("chunked-in-http-1.0", alone(posted(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1) + AFTER)),
    Row("chunk-size-no-number", posted(b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n")),
    Row("chunk-size-negative", posted(b"Transfer-Encoding: chunked\r\n", b"-2\r\n{}\r\n0\r\n\r\n")),
    Row("chunk-size-overflow", posted(b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
    Row("chunk-size-64-bits", half_closed(posted(b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n{}" + b"x" * 100))),
    Row("chunk-longer-than-it-says", posted(b"Transfer-Encoding: chunked\r\n", b"2\r\n{}{}{}\r\n0\r\n\r\n")),
    Row("chunk-extension-endless", endless(posted(b"Transfer-Encoding: chunked\r\n", b"2;"), LARGE, 32 << 20), "4xx closed", 20),
    Row("chunk-trailers-endless", endless(posted(b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n"), TRAILER, 32 << 20), "4xx closed", 20),
    Row("chunks-of-one-byte", posted(b"Transfer-Encoding: chunked\r\n", chunk(b" ") * 50000 + b"0\r\n\r\n")),
    Row("chunked-body-endless", endless(posted(b"Transfer-Encoding: chunked\r\n", b""), chunk(b" " * 65536), 80 << 20), "413 closed", 20),
    Row("declared-body-too-large", endless(posted(b"Content-Length: 9000000000\r\n", b""), b" " * 65536, 80 << 20), "413 closed", 20),
    Row("announced-body-too-large", continued, "413"),
    Row("expectation-unknown", request("GET", "/health", [("Expect", "the-unexpected")]), "200 417"),
    Row("body-that-no-route-reads", unread, "200 4xx closed"),
    Row("body-of-a-get-is-no-request", alone(request("GET", "/health", [], AFTER)), "200 4xx closed"),
    Row("line-feeds-without-carriage-returns", alone(b"GET /health HTTP/1.1\nHost: localhost\n\n"), "200 4xx closed"),
    Row("carriage-returns-without-line-feeds", alone(b"GET /health HTTP/1.1\rHost: localhost\r\r" + b"\r\n\r\n")),
    Row("nul-in-a-header", get("/health", ("X-Name", b"a\0b"))),
    Row("nul-in-the-path", b"GET /hea\0lth HTTP/1.1\r\n" + HEAD + b"\r\n"),
    Row("header-folded", get("/health", ("X-Name", b"a\r\n b")), "200 4xx closed"),
    Row("header-without-colon", b"GET /health HTTP/1.1\r\n" + HEAD + b"nothing\r\n\r\n"),
    Row("header-without-name", b"GET /health HTTP/1.1\r\n" + HEAD + b": value\r\n\r\n"),
    Row("header-name-with-blank", b"GET /health HTTP/1.1\r\n" + HEAD + b"X Name: value\r\n\r\n"),
    Row("headers-too-many", get("/health", *[(f"X-{n}", "v") for n in range(2000)])),
    Row("header-too-long", get("/health", ("X-Name", "v" * (1 << 20)))),
    Row("head-endless", endless(b"GET /health HTTP/1.1\r\n" + HEAD, b"X-Name: value\r\n" * 4096, 32 << 20), "4xx closed", 20),
    Row("line-endless", endless(b"", b"A" * 65536, 32 << 20), "4xx closed", 20),
    Row("path-too-long", get("/health?" + "a" * (1 << 20))),
    Row("query-of-5000-names", get("/health?" + "&".join(f"a{n}=b" for n in range(5000))), "200 4xx closed"),
    Row("version-0.9", b"GET /health\r\n\r\n"),
    Row("version-1.0-without-host", b"GET /v1/models HTTP/1.0\r\n\r\n"),
    Row("version-3.7", b"GET /health HTTP/3.7\r\n" + HEAD + b"\r\n"),
    Row("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"),
    Row("http-2-upgrade", alone(get("/health", *H2C)), "200 4xx"),
    Row("tls-hello-on-a-plain-port", bytes.fromhex("16030100c8010000c40303") + bytes(190) + b"\r\n\r\n"),
    Row("ssh-greeting", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    Row("method-trace", request("TRACE", "/health", [("X-Name", "value")])),
    Row("method-connect", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Row("method-unknown", request("BREW", "/v1/models")),
    Row("method-in-small-letters", request("get", "/v1/models")),
    Row("method-too-long", request("A" * 100000, "/health")),
    Row("method-put-and-delete", lambda target: talk(target, request("PUT", "/v1/models") + request("DELETE", "/v1/images/generations"), 3, 2)),
    Row("options-of-everything", b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", "2xx 4xx closed"),
    Row("blanks-before-a-request", b"\r\n" * 5000 + get("/health"), "200 4xx closed"),
    Row("garbage-of-100-connections", many_at_once),
    Row("200-requests-at-once-in-a-row", pipelined, "200"),
    Row("refused-and-then-another", lambda t: talk(t, post("/v1/images/generations", JOB) + get("/health"), 3, 2), "200 4xx"),
    Row("half-closed-after-a-request", half_closed(get("/health")), "200 closed"),
    Row("half-closed-in-a-head", half_closed(b"GET /health HTTP/1.1\r\nHo")),
    Row("half-closed-in-a-body", half_closed(posted(b"Content-Length: 1000\r\n", b"{"))),
    Row("half-closed-in-a-chunk", half_closed(posted(b"Transfer-Encoding: chunked\r\n", b"ff\r\n{"))),
    Row("head-byte-by-byte", split(get("/health"), 0.001, 1), "200"),
]
