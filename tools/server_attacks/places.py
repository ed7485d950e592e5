"""Paths that lead elsewhere, names of hosts, what is told in headers and comes back."""
import secrets

from .wire import Answer, Failure, Row, get, need, post, request, talk

# How people write ../../etc/passwd when they hope that somebody does not look.
WAYS = {
    "plain": "/page/../../../../etc/passwd",
    "encoded": "/page/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "encoded-twice": "/page/%252e%252e%252fetc%252fpasswd",
    "backslashes": "/page/..%5c..%5c..%5cetc%5cpasswd",
    "overlong-utf-8": "/page/%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
    "doubled": "/page/....//....//etc/passwd",
    "from-the-root": "//etc/passwd",
    "with-a-nul": "/page/index.html%00.png",
    "not-utf-8": "/page/%ff%fe",
    "of-a-job": "/v1/jobs/..%2f..%2f..%2fetc%2fpasswd/result",
    "of-a-picture": "/v1/jobs/%2e%2e/pictures/0",
    "of-a-model": "/v1/models/..%2f..%2f..%2fetc%2fpasswd",
    "semicolons": "/page/..;/..;/etc/passwd",
    "the-source": "/page/../src/server.rs",
}


def elsewhere(path):
    def act(target):
        answer = talk(target, get(path))
        need(not any(b"root:" in body for body in answer.bodies), "it has a file of this machine")
        return answer
    return act


def random_jobs(target):
    """Names of jobs that somebody guesses."""
    for _ in range(20):
        asked = b"".join(get(f"/v1/jobs/{secrets.token_hex(16)}{end}") for end in ("", "/result", "/pictures/0") for _ in range(40))
        answer = talk(target, asked, 10, 120)
        need(answer.statuses == [404] * 120, f"answers {sorted(set(answer.statuses))}, {len(answer.statuses)} of 120")
        need(len({body for body in answer.bodies}) <= 2, "the answers differ: they tell something of the names")
    return Answer([404], [b""], [b""])


def request_id(value):
    """A request id that is no simple word is not sent back."""
    def act(target):
        answer = talk(target, get("/health", ("X-Request-Id", value)))
        for head in answer.heads:
            need(b"evil" not in head.lower(), "it is sent back")
        return answer
    return act


def not_sent_back(*headers, path="/health"):
    def act(target):
        answer = talk(target, get(path, *headers))
        for head in answer.heads:
            need(b"evil" not in head.lower(), "it is in the answer's head")
        return answer
    return act


def links(target):
    """Addresses of pictures are never those of another line, whatever a client tells of itself."""
    told = [("X-Forwarded-Host", b"evil\xff\xfe"), ("X-Forwarded-Proto", "javascript"), ("X-Forwarded-Prefix", "/a\tb")]
    answer = talk(target, post("/v1/images/generations", {"prompt": "a red circle", "response_format": "url"}, *told))
    if answer.status == 200 and not answer.json()["data"][0]["url"].startswith(("http://", "https://")):
        raise Failure(f"an address that is none: {answer.json()['data'][0]['url'][:60]}")
    return answer


def preflight(target):
    headers = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")]
    answer = talk(target, request("OPTIONS", "/v1/images/generations", headers))
    need(b"access-control" not in answer.heads[0].lower(), "another origin is let in")
    return answer


def read_by_another(target):
    answer = talk(target, get("/v1/models", ("Origin", "http://evil.example")))
    need(b"access-control" not in answer.heads[0].lower(), "another origin may read")
    return answer


DRAW = {"prompt": "x"}

ROWS = [Row(f"path-{name}", elsewhere(path)) for name, path in WAYS.items()] + [
    Row("path-of-another-server", get("http://evil.example/v1/models"), "4xx closed"),
    Row("path-of-another-server-and-host", get("http://localhost/v1/models", host="evil.example"), "200 4xx closed"),
    Row("path-of-a-file", get("file:///etc/passwd")),
    Row("path-not-ascii", b"GET /page/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Row("path-with-a-fragment", b"GET /page/#/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Row("path-of-an-injected-line", elsewhere("/v1/models/x%0d%0aSet-Cookie:%20evil=1")),
    Row("job-of-50000-characters", get("/v1/jobs/" + "a" * 50000)),
    Row("picture-minus-one", get("/v1/jobs/00000000000000000000000000000000/pictures/-1")),
    Row("picture-of-128-bits", get("/v1/jobs/00000000000000000000000000000000/pictures/340282366920938463463374607431768211456")),
    Row("job-cancelled-by-guess", request("POST", "/v1/jobs/00000000000000000000000000000000/cancel")),
    Row("jobs-guessed-2400-times", random_jobs, within=20),
    Row("model-as-a-path", post("/v1/images/generations", DRAW | {"model": "../../../etc/passwd"}), "404"),
    Row("model-of-a1111-as-a-path", post("/sdapi/v1/options", {"sd_model_checkpoint": "../../../etc/passwd"}), "404"),
    Row("host-of-another", get("/v1/models", host="evil.example"), "403"),
    Row("host-that-looks-like-ours", get("/v1/models", host="127.0.0.1.evil.example"), "403"),
    Row("host-with-our-name-behind", get("/v1/models", host="evil.example:80@localhost"), "403 400"),
    Row("host-0.0.0.0", get("/v1/models", host="0.0.0.0"), "403"),
    Row("host-empty", get("/v1/models", host=""), "403 400"),
    Row("host-missing", request("GET", "/v1/models", host=None), "403 400"),
    Row("host-twice", get("/v1/models", ("Host", "evil.example")), "403 400"),
    Row("host-of-60000-characters", get("/v1/models", host="e" * 60000)),
    Row("host-not-utf-8", get("/v1/models", host=b"\xff\xfe"), "4xx closed"),
    Row("host-forwarded", get("/v1/models", ("X-Forwarded-Host", "localhost"), host="evil.example"), "403"),
    Row("origin-of-another-posts", post("/v1/images/generations", DRAW, ("Origin", "http://evil.example")), "403"),
    Row("origin-null-posts", post("/v1/images/generations", DRAW, ("Origin", "null")), "403"),
    Row("origin-of-another-port-posts", post("/v1/images/generations", DRAW, ("Origin", "http://localhost:1")), "403"),
    Row("origin-of-another-deletes", request("DELETE", "/v1/jobs/0", [("Origin", "http://evil.example")]), "403"),
    Row("origin-of-another-interrupts", request("POST", "/sdapi/v1/interrupt", [("Origin", "http://evil.example")]), "403"),
    Row("origin-of-another-reads", read_by_another, "200 403"),
    Row("origin-of-another-asks-before", preflight, "4xx"),
    Row("form-of-another-page", post("/v1/images/generations", b'{"prompt":"x","a":"="}', ("Origin", "http://evil.example"), kind="text/plain"), "4xx"),
    Row("request-id-with-a-line", request_id("evil%0d%0aSet-Cookie: evil=1"), "200"),
    Row("request-id-with-a-carriage-return", request_id(b"evil\rSet-Cookie: evil=1"), "200 4xx closed"),
    Row("request-id-of-10000-characters", request_id("evil" * 2500), "200"),
    Row("request-id-of-a-script", request_id("<script>evil</script>"), "200"),
    Row("request-id-not-ascii", request_id(b"\xff\xfeevil"), "200"),
    Row("forwarded-for-garbage", not_sent_back(("X-Forwarded-For", "evil, 1.2.3.4.5, ::::, " + "1.2.3.4," * 5000)), "200 4xx"),
    Row("forwarded-links", links, "200 4xx"),
    Row("range-of-1000-parts", get("/page/app.js", ("Range", "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(1000)))), "200 4xx"),
    Row("cookie-of-50000-characters", get("/health", ("Cookie", "a=" + "b" * 50000)), "200 4xx"),
    Row("authorization-of-60000-characters", get("/v1/models", ("Authorization", "Bearer " + "x" * 60000)), "200 4xx"),
    Row("authorization-not-utf-8", get("/v1/models", ("Authorization", b"Bearer \xff\xfe")), "200 4xx"),
]
